"""The page a run leaves behind: ``report.html``, complete in itself, and ``curve.png``.

It shows the learning curve, the settings, the final scores and where the time went, and it is drawn from the
records of ``metrics.jsonl`` alone, so it can be drawn again:

    write(folder, Run(title="cifar10_quick", settings={"tau": "10"}, records=metrics.read(file)))
"""

from __future__ import annotations

import html
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from sparknet.errors import TrainingError
from sparknet.reporting.metrics import Record, clock, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Iterable[tuple[str, str]]

BLUE, ORANGE = "#1f6fb4", "#c8501e"


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a report is about: a title, the settings as (name, value) text, and the records, in order.

    Raises TrainingError when there are no records: there is nothing to report on.
    """

    title: str
    settings: Mapping[str, str]
    records: Sequence[Record]

    def __post_init__(self) -> None:
        if not self.records:
            raise TrainingError("no round was completed: there is nothing to report on")

    @property
    def last(self) -> Record:
        return self.records[-1]

    @property
    def synthetic(self) -> bool:
        return any(record.synthetic for record in self.records)

    @property
    def tested(self) -> list[Record]:
        return [record for record in self.records if record.scores]

    @property
    def headline(self) -> str:
        """The result in one line."""
        scored = [r for r in self.records if r.accuracy is not None]
        result = f"accuracy {percent(scored[-1].accuracy or 0, self.synthetic)}" if scored else "not tested"
        return f"{result} after {self.last.round} rounds, {clock(self.last.elapsed_seconds)}"


def write(folder: Path, run: Run) -> Path:
    """Write ``report.html`` and ``curve.png`` into ``folder``; returns the page."""
    figure = curve(run)
    figure.savefig(folder / "curve.png", dpi=110)
    page = folder / "report.html"
    page.write_text(render(run, _svg(figure)), encoding="utf-8")
    return page


def curve(run: Run) -> Figure:
    """Training loss, and accuracy where the run tested, against the rounds."""
    # matplotlib takes a second to import, and only this function needs it
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.2), layout="constrained")
    axes = figure.subplots()
    _draw_loss(axes, run)
    if any(record.accuracy is not None for record in run.records):
        _draw_accuracy(axes.twinx(), run)
    axes.set_title(f"{run.title}{' — synthetic data' if run.synthetic else ''}")
    return figure


def render(run: Run, svg: str) -> str:
    """The page, with nothing in it that has to be fetched."""
    page = Template((files("sparknet.reporting") / "report.template").read_text(encoding="utf-8"))
    return page.substitute(
        title=html.escape(run.title),
        headline=html.escape(run.headline),
        curve=svg,
        settings=_table(run.settings.items()),
        scores=_table(_scores(run)),
        time=_table(_time(run)),
    )


def _draw_loss(axes: Axes, run: Run) -> None:
    from matplotlib.ticker import MaxNLocator

    losses = [float("nan") if r.loss is None else r.loss for r in run.records]
    axes.plot([r.round for r in run.records], losses, color=BLUE)
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("training loss", color=BLUE)
    axes.grid(alpha=0.3)


def _draw_accuracy(axes: Axes, run: Run) -> None:
    scored = [(r.round, 100 * r.accuracy) for r in run.records if r.accuracy is not None]
    axes.plot(*zip(*scored, strict=True), color=ORANGE, marker="o", markersize=3)
    axes.set_ylim(0, 100)
    axes.set_ylabel(f"test accuracy, %{' (synthetic data)' if run.synthetic else ''}", color=ORANGE)


def _svg(figure: Figure) -> str:
    import matplotlib

    drawn = io.StringIO()
    # text stays text; a fixed salt gives the same page for the same run
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sparknet"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    markup = drawn.getvalue()
    return markup[markup.index("<svg") :]


def _scores(run: Run) -> Rows:
    if not run.tested:
        return [("test", "none was asked for")]
    last = run.tested[-1]
    rows = [(name, _score(name, value, run.synthetic)) for name, value in last.scores.items()]
    return [("tested after round", str(last.round)), *rows]


def _score(name: str, value: float | None, synthetic: bool) -> str:
    if value is None:
        return "not a number"
    return percent(value, synthetic) if "accuracy" in name.lower() else f"{value:.4f}"


def _time(run: Run) -> Rows:
    """Seconds of the whole run by what they were spent on, and what came of them."""
    records = run.records
    total = max(run.last.elapsed_seconds, 1e-9)
    parts = {
        "computing (slowest worker)": sum(r.compute_seconds for r in records),
        "exchanging weights": sum(r.exchange_seconds for r in records),
        "starting workers": sum(r.joining_seconds for r in records),
        "testing": sum(r.test_seconds for r in records),
    }
    parts["all else"] = max(0.0, total - sum(parts.values()))
    images, seconds = sum(r.images for r in records), sum(r.seconds - r.joining_seconds for r in records)
    return [
        *((name, f"{value:,.1f} s ({100 * value / total:.0f} %)") for name, value in parts.items()),
        ("in all", f"{total:,.1f} s"),
        ("waiting for the slowest, per worker", f"{sum(r.wait_seconds for r in records):,.1f} s"),
        ("training images", f"{images:,} ({images / max(seconds, 1e-9):,.0f} a second)"),
        ("bytes sent, received", ", ".join(_mib(n) for n in _bytes(records))),
    ]


def _bytes(records: Sequence[Record]) -> tuple[int, int]:
    return sum(r.bytes_sent for r in records), sum(r.bytes_received for r in records)


def _mib(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"


def _table(rows: Rows) -> str:
    return "\n".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows
    )
