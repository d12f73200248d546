"""The page of a run, in HTML: the one that is served while it trains, and the same with its data inside.

Both are one frame (page/page.html) around the same fragments (page/fragments.html), which are all that
changes while a run trains: a fragment is the inside of the element whose id is its name.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from sparknet.reporting import words
from sparknet.reporting.curves import charts
from sparknet.reporting.drawing import svg
from sparknet.reporting.run import Run

POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
"""The content security policy of the page that is served."""

Fragments = Mapping[str, str]


def fragments(run: Run) -> dict[str, str]:
    """The inside of each element of the page, by its id; and the title, as text."""
    parts = _parts()
    found = {
        "title": title(run),
        "state": parts.state(run),
        "failure": parts.failure(run),
        "figures": parts.figures(words.figures(run)),
        "progress": parts.progress(run),
        "workers": parts.workers(words.workers(run)),
        "events": parts.events(words.events(run)),
        "time": parts.time(words.time(run)),
        "scores": parts.table(words.scores(run)),
        "settings": parts.table(run.settings.items()),
        "machines": parts.table(words.machines(run)),
        "versions": parts.table(run.versions.items()),
    }
    for chart in charts(run):
        found[f"plot-{chart.key}"] = Markup(svg(chart)) or parts.absent(chart.absent)
        found[f"latest-{chart.key}"] = parts.latest(chart)
        found[f"rows-{chart.key}"] = parts.chart_rows(chart)
    return found


def render(run: Run, *, live: bool = False, inside: Fragments | None = None) -> str:
    """The whole page: ``live``, with what it needs beside it and updates; else complete in itself.

    ``inside`` are its ``fragments``, where those are known already.
    """
    script, style = read("page.js").rstrip(), read("page.css").rstrip()
    page = _environment().get_template("page.html")
    return page.render(
        run=run,
        live=live,
        charts=charts(run),
        columns=words.COLUMNS,
        fragments=inside or fragments(run),
        script=Markup(script),
        style=Markup(style),
        policy=f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'",
    )


def title(run: Run) -> str:
    """Of the browser's window."""
    if not run.records:
        return run.title
    return f"{run.last.round}/{run.last.rounds} \N{MIDDLE DOT} {run.title}"


@cache
def read(name: str) -> str:
    """A file of the folder ``page``."""
    return (files("sparknet.reporting") / "page" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    return Environment(
        loader=FunctionLoader(read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _parts() -> Any:
    """The macros of page/fragments.html."""
    return _environment().get_template("fragments.html").module


def _digest(text: str) -> str:
    """As a content security policy names what may be in the page."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
