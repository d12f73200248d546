"""What an experiment found, as a page with tables and curves: ``report.html``, ``curves.png``.

A table has the workers as rows and tau as columns, as figure 3 of SparkNet's paper; there is one of speed-ups
where there is a goal, and one of accuracies, for each of the other combinations. Means are over the seeds.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from importlib.resources import files
from pathlib import Path
from statistics import mean, stdev
from string import Template
from typing import TYPE_CHECKING

from sparknet.experiment.results import Results, speed_up
from sparknet.experiment.study import Trial
from sparknet.experiment.trial import Outcome

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write(results: Results) -> Path:
    """Write ``curves.png`` and ``report.html`` beside the runs; returns the page."""
    figure = curves(results)
    figure.savefig(results.folder / "curves.png", dpi=110)
    page = results.folder / "report.html"
    template = Template((files("sparknet.experiment") / "page.template").read_text(encoding="utf-8"))
    text = template.substitute(
        title=html.escape(results.study.title),
        settings=html.escape(_settings(results)),
        tables="\n".join(tables(results)),
        curves=_svg(figure),
        failures=_failures(results.outcomes),
    )
    page.write_text(text, encoding="utf-8")
    return page


def tables(results: Results) -> Iterable[str]:
    """Of the runs that went well, in HTML."""
    for name, group in _groups(results.outcomes).items():
        if results.study.goal is not None:
            told = f"Speed-up to {100 * results.study.goal:g} % by steps of a worker"
            yield _table(f"{told}: {name}", group, lambda found: _speed_ups(found, results.outcomes))
        yield _table(f"Accuracy, %: {name}", group, _accuracies)


def curves(results: Results) -> Figure:
    """Accuracy against the images that all workers have read, the first seed of every combination."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    seen: set[Trial] = set()
    for outcome in results.outcomes:
        trial = replace(outcome.trial, seed=0)
        if trial in seen or not outcome.curve:
            continue
        seen.add(trial)
        each = outcome.images / max(1, outcome.steps)
        images = [steps * each for steps, _ in outcome.curve]
        accuracies = [100 * accuracy for _, accuracy in outcome.curve]
        axes.plot(
            images, accuracies, marker=".", label=f"{name_of(trial)}, K {trial.workers}, tau {trial.tau}"
        )
    axes.set_xlabel("images read by all workers")
    axes.set_ylabel("test accuracy, %")
    axes.set_title(results.study.title)
    axes.grid(alpha=0.3)
    if seen:
        axes.legend(fontsize="x-small", ncols=2)
    return figure


def name_of(trial: Trial) -> str:
    """All that a table's runs have in common, where it is not as usual."""
    usual = Trial(algorithm=trial.algorithm, workers=trial.workers, tau=trial.tau, seed=trial.seed)
    others = [
        f"{each.name} {getattr(trial, each.name)}".replace("overlap True", "overlap")
        for each in fields(Trial)
        if getattr(trial, each.name) != getattr(usual, each.name)
    ]
    return ", ".join([trial.algorithm, *others])


def _groups(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if not outcome.failure:
            groups.setdefault(name_of(outcome.trial), []).append(outcome)
    return groups


def _table(title: str, group: Sequence[Outcome], text: Callable[[Sequence[Outcome]], str]) -> str:
    workers = sorted({outcome.trial.workers for outcome in group})
    taus = sorted({outcome.trial.tau for outcome in group})
    head = "".join(f"<th>tau {tau}</th>" for tau in taus)
    rows = [f"<h2>{html.escape(title)}</h2>", f"<table><tr><th>workers</th>{head}</tr>"]
    for count in workers:
        cells = ([o for o in group if (o.trial.workers, o.trial.tau) == (count, tau)] for tau in taus)
        rows.append(f"<tr><th>{count}</th>{''.join(f'<td>{text(cell)}</td>' for cell in cells)}</tr>")
    return "\n".join([*rows, "</table>"])


def _speed_ups(found: Sequence[Outcome], among: Sequence[Outcome]) -> str:
    values = [value for outcome in found if (value := speed_up(outcome, among)) is not None]
    return _mean_of(values, len(found), ".2f")


def _accuracies(found: Sequence[Outcome]) -> str:
    values = [100 * outcome.accuracy for outcome in found if outcome.accuracy is not None]
    return _mean_of(values, len(found), ".1f")


def _mean_of(values: Sequence[float], runs: int, form: str) -> str:
    """The mean, its spread, and of how many runs it is where some have no value."""
    if not values:
        return "" if not runs else "&ndash;"
    spread = f" &plusmn; {stdev(values):{form}}" if len(values) > 1 else ""
    missing = f" ({len(values)} of {runs})" if len(values) < runs else ""
    return f"{mean(values):{form}}{spread}{missing}"


def _settings(results: Results) -> str:
    done, due = len(results.outcomes), len(results.study.trials)
    said = [f"{name} {value}" for name, value in results.study.settings.items() if value is not None]
    return f"{done} of {due} runs. {', '.join(said)}."


def _failures(outcomes: Sequence[Outcome]) -> str:
    reasons: dict[str, list[str]] = {}
    for outcome in outcomes:
        if outcome.failure:
            trial = outcome.trial
            which = f"{name_of(trial)}, K {trial.workers}, tau {trial.tau}, seed {trial.seed}"
            reasons.setdefault(outcome.failure, []).append(which)
    if not reasons:
        return ""
    rows = [
        f"<tr><td class=text>{html.escape(reason)}</td><td>{len(which)} runs, the first: "
        f"{html.escape(which[0])}</td></tr>"
        for reason, which in reasons.items()
    ]
    return "\n".join(["<h2>Runs that were not made, or failed</h2>", "<table>", *rows, "</table>"])


def _svg(figure: Figure) -> str:
    import matplotlib

    drawn = io.StringIO()
    # text stays text; a fixed salt gives the same page for the same runs
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "sparknet"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    markup = drawn.getvalue()
    return markup[markup.index("<svg") :]
