"""What a run leaves behind: ``report.html``, the page with its data inside, and ``curve.png``.

It is drawn from the records of ``metrics.jsonl`` and what is known of the workers, so it can be drawn again:

    write(folder, Run(title="cifar10_quick", settings={"tau": "10"}, records=metrics.read(file)))
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparknet.errors import UsageError
from sparknet.reporting.page import render
from sparknet.reporting.run import Run

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Run", "curve", "write", "write_page"]

BLUE, ORANGE = "#1f6fb4", "#c8501e"


def write(folder: Path, run: Run) -> Path:
    """Write ``report.html`` and ``curve.png`` into ``folder``; returns the page.

    Raises TrainingError when there are no records: there is nothing to report on.
    """
    run.require()
    curve(run).savefig(folder / "curve.png", dpi=110)
    return write_page(folder / "report.html", run)


def write_page(file: Path, run: Run) -> Path:
    """Write the page alone. Raises UsageError if it cannot be written."""
    try:
        file.write_text(render(run), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the report {file} cannot be written: {error.strerror}") from error
    return file


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
