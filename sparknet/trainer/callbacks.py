"""Who is told of every round, and may end a run early."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TextIO

from sparknet.errors import UsageError
from sparknet.reporting.metrics import Record
from sparknet.training import Round

if TYPE_CHECKING:
    from sparknet.trainer.trained import Trained

Mode = Literal["min", "max"]


class Callback(Protocol):
    """What ``Trainer(callbacks=)`` takes; a class that has only one of the two methods will do."""

    def on_round(self, record: Record, done: Round) -> bool | None:
        """After a round: its record, and the round with its ``weights``. True ends the run here."""
        ...

    def on_end(self, trained: Trained) -> None:
        """After the last round."""
        ...


class Lines:
    """Writes a line a round: round 12/100  loss 1.8312  accuracy 41.2 %  1,140 images/s  00:31."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream

    def on_round(self, record: Record, done: Round) -> None:  # noqa: ARG002 - the record says all
        stream = self._stream or sys.stderr
        stream.write(record.line + "\n")
        stream.flush()


@dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """End a run once ``metric`` of the validation set has not become better for ``patience`` tests.

    Better is smaller, unless the metric is an accuracy or ``mode`` says max; by ``min_delta`` at least.
    """

    metric: str = "loss"
    patience: int = 5
    min_delta: float = 0.0
    mode: Mode | None = None

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise UsageError(f"patience is {self.patience} tests: at least 1 is needed")


class Best:
    """The best test so far by one metric. ``rounds_since`` counts the tests after it."""

    def __init__(self, metric: str, mode: Mode | None = None, min_delta: float = 0.0) -> None:
        self.metric, self.min_delta = metric, min_delta
        self._sign = 1 if (mode or _mode_of(metric)) == "min" else -1
        self._value = math.inf
        self.tests_since = 0

    def is_new(self, scores: Mapping[str, float | None]) -> bool:
        """Whether these scores are better than all before. Raises UsageError if the metric is not there."""
        if self.metric not in scores:
            raise UsageError(f"there is no score {self.metric!r}: the tests give {', '.join(scores)}")
        value = scores[self.metric]
        signed = math.inf if value is None else self._sign * value
        better = signed < self._value - self.min_delta
        self.tests_since = 0 if better else self.tests_since + 1
        if better:
            self._value = signed
        return better


def _mode_of(metric: str) -> Mode:
    return "max" if any(word in metric.lower() for word in ("accuracy", "top", "auc", "f1", "r2")) else "min"
