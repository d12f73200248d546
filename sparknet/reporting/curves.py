"""The curves of a run, as numbers: what is drawn, and what stands in the table beneath."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sparknet.reporting.metrics import Record
from sparknet.reporting.run import Run

Point = tuple[int, float]

# Rows of a table at most: metrics.jsonl has all rounds.
_ROWS = 100


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A ``name`` and points (round, value), in the order of the rounds."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves over the rounds on one pair of axes. ``key`` names it in the page, ``absent`` is said where
    there is no point; ``text`` writes a value for people. Values of one that ``counts`` are whole numbers or
    shares of something: its axis begins at 0."""

    key: str
    title: str
    curves: Sequence[Curve]
    text: Callable[[float], str]
    absent: str = "No round yet."
    counts: bool = False

    @property
    def rounds(self) -> tuple[int, int] | None:
        """The first and the last round that has a point."""
        numbers = [number for curve in self.curves for number, _ in curve.points]
        return (min(numbers), max(numbers)) if numbers else None

    @property
    def rows(self) -> list[tuple[int, list[str]]]:
        """(round, a text for each curve): all rounds that have a value, or some of them and the last."""
        values = [dict(curve.points) for curve in self.curves]
        rounds = sorted(set().union(*values))
        step = -(-len(rounds) // _ROWS) or 1
        shown = sorted({*rounds[::step], *rounds[-1:]})
        return [(n, [self.text(one[n]) if n in one else "" for one in values]) for n in shown]

    @property
    def latest(self) -> list[str]:
        """The last value of each curve, with its name where there are several."""
        last = [(curve.name, curve.points[-1][1]) for curve in self.curves if curve.points]
        named = len(self.curves) > 1
        return [f"{name} {self.text(value)}" if named else self.text(value) for name, value in last]


def charts(run: Run) -> list[Chart]:
    """Every chart of a page, also those that have no point yet."""
    records = run.records
    drawn = " (synthetic data)" if run.synthetic else ""
    return [
        Chart(
            key="loss",
            title="Training loss",
            curves=[_curve("loss", records, lambda r: r.loss)],
            text=lambda value: f"{value:.4f}",
        ),
        Chart(
            key="accuracy",
            title=f"Test accuracy{drawn}",
            curves=[_curve("accuracy", records, lambda r: None if r.accuracy is None else 100 * r.accuracy)],
            text=lambda value: f"{value:.1f} %",
            absent="No test yet.",
        ),
        Chart(
            key="speed",
            title="Images a second",
            curves=[_curve("images a second", records, lambda r: r.images_per_second)],
            text=lambda value: f"{value:,.0f}",
            counts=True,
        ),
        Chart(
            key="time",
            title="Time of a round",
            curves=[
                _curve("computing", records, lambda r: r.compute_seconds),
                _curve("waiting", records, lambda r: r.wait_seconds),
                _curve("exchanging", records, lambda r: r.exchange_seconds),
            ],
            text=seconds,
            counts=True,
        ),
        Chart(
            key="lr",
            title="Learning rate",
            curves=[_curve("learning rate", records, lambda r: r.lr)],
            text=lambda value: f"{value:.3g}",
        ),
        Chart(
            key="members",
            title="Workers in the mean",
            curves=[_curve("workers", records, lambda r: float(r.workers))],
            text=lambda value: f"{value:.0f}",
            counts=True,
        ),
    ]


def seconds(value: float) -> str:
    """
    >>> seconds(12.3), seconds(0.0123)
    ('12.3 s', '12.3 ms')
    """
    return f"{value:,.1f} s" if value >= 1 else f"{1000 * value:,.1f} ms"


def _curve(name: str, records: Sequence[Record], value: Callable[[Record], float | None]) -> Curve:
    points = ((record.round, value(record)) for record in records)
    return Curve(name=name, points=[(number, one) for number, one in points if one is not None])
