"""What passes in a round between the algorithm and its workers, as values.

RoundPlan ──> a worker ──> Report ─┐
                                   ├─> RoundResult ──> Round
              the others ────────> ┘        Scores ──┘
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np

from sparknet.moved import moved_name
from sparknet.usage import Usage
from sparknet.weights import Vector, Weights, fetch, mean_of

__getattr__ = partial(
    moved_name, __name__, {"Gathered": "sparknet.rounds.RoundResult", "Order": "sparknet.rounds.RoundPlan"}
)

Momentum = Literal["keep", "average", "reset"]


@dataclass(frozen=True, kw_only=True)
class RoundPlan:
    """What every worker does in one round.

    ``momentum`` says what becomes of the solver's history when new weights arrive: each worker keeps its
    own (as SparkNet does), all get the mean of theirs, or it starts from zero. ``rate`` is what the learning
    rate is multiplied by. With ``gradients`` a round is one step, which all workers take by the mean of their
    gradients (``gradients.py``): they keep the same weights, and the same history.
    """

    tau: int
    time_cap_seconds: float | None = None
    momentum: Momentum = "keep"
    rate: float = 1.0
    gradients: bool = False

    def is_over(self, seconds: float) -> bool:
        """Whether a worker that has trained this long begins no further step."""
        return self.time_cap_seconds is not None and seconds >= self.time_cap_seconds


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one worker did in one round.

    ``loss`` is the mean over its steps, ``images`` the records it read (repeats counted), ``lr`` the learning
    rate of its last step. ``iteration`` counts the steps its solver has made in all. ``shard`` is the one it
    read in, its own where that is not said, and ``position`` how far: a worker that takes over the shard goes
    on from there. Of its ``seconds`` it waited ``data_seconds`` for batches. ``usage`` is what it uses of its
    machine, in a report about every second. ``unused`` numbers the parameters that its loss did not depend
    on, where gradients are averaged.
    """

    member: int
    steps: int
    images: int
    loss: float
    lr: float
    iteration: int
    position: int
    seconds: float
    shard: int | None = None
    data_seconds: float = 0.0
    usage: Usage | None = None
    unused: tuple[int, ...] = ()

    @property
    def read(self) -> int:
        """The number of the shard it read in."""
        return self.member if self.shard is None else self.shard

    @property
    def header(self) -> dict[str, Any]:
        """Its fields, as what can be sent as JSON."""
        return {**vars(self), "usage": vars(self.usage) if self.usage else None}

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> Report:
        """The report of such fields. Raises TypeError if they are not a report's."""
        usage = header.get("usage")
        unused = tuple(header.get("unused", ()))
        return cls(**{**header, "usage": Usage(**usage) if usage else None, "unused": unused})


@dataclass(frozen=True, kw_only=True)
class Exchanged:
    """What one worker at its own pace brought, and what has happened since the one before it.

    ``bytes_sent`` to it and ``bytes_received`` from it are those of its weights, plan and report; ``name``
    says more of it than its number. ``lost``, ``left`` and ``joined`` are as in ``RoundResult``.
    """

    report: Report
    name: str = ""
    bytes_sent: int = 0
    bytes_received: int = 0
    lost: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class WorkerState:
    """All that a worker is besides the weights and its shard.

    ``iteration`` counts the steps its solver has made, ``position`` is its sampler's, and ``history`` float32
    (H,) its solver's memory; None where it is not known.
    """

    iteration: int = 0
    position: int = 0
    history: Vector | None = None


def mean_state(states: Iterable[WorkerState]) -> WorkerState:
    """What a worker that joins late starts from: the others' steps and mean history, its shard's start."""
    known = list(states)
    histories = [state.history for state in known if state.history is not None]
    return WorkerState(
        iteration=max((state.iteration for state in known), default=0),
        history=mean_of(histories, [1] * len(histories)) if histories else None,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class RoundResult:
    """The reports of a round, in the order of the members, and the mean of their weights, float32 (P,).

    The mean counts each worker by the steps it took: equally, unless some stopped early. ``late`` are reports
    of workers that were late for an earlier round: their progress is in this mean. ``lost`` names the
    workers whose work did not count, with the reason, ``left`` those that have gone before the round
    without any loss: their machines are taken back; ``joined`` those that have come since the round before.
    ``names`` says more of a member than its number: where it runs. ``joining_seconds`` is how long it took
    until there was a worker to begin with.
    """

    mean: Weights
    reports: tuple[Report, ...]
    late: tuple[Report, ...] = ()
    joining_seconds: float = 0.0
    bytes_sent: int = 0
    bytes_received: int = 0
    bytes_between: int = 0
    lost: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()
    names: Mapping[int, str] = field(default_factory=dict)

    @property
    def lr(self) -> float:
        """The learning rate of the first member's last step."""
        return self.reports[0].lr


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Sums over test records; adding two joins their records.

    >>> (Scores(records=2, sums={"loss": 3.0}) + Scores(records=1, sums={"loss": 0.0})).means
    {'loss': 1.0}
    """

    records: int = 0
    sums: Mapping[str, float] = field(default_factory=dict)

    def __add__(self, other: Scores) -> Scores:
        names = [*self.sums, *(name for name in other.sums if name not in self.sums)]
        sums = {name: self.sums.get(name, 0.0) + other.sums.get(name, 0.0) for name in names}
        return Scores(records=self.records + other.records, sums=sums)

    @property
    def means(self) -> dict[str, float]:
        """Each score's mean over the records."""
        return {name: value / self.records for name, value in self.sums.items()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Round:
    """One synchronisation: what went in, what came out and where the time went.

    ``seconds`` is the whole round without its test. It is ``joining_seconds`` (until there were workers),
    plus ``compute_seconds`` (the slowest worker's steps), plus ``exchange_seconds`` (everything else:
    sending, waiting for sockets, averaging, the outer optimiser). ``drained`` says that all workers go on
    from these weights, and none has begun the next round already (``overlap.py``): only then is the state of
    the workers that of the round's end.
    """

    number: int
    rounds: int
    tau: int
    outcome: Weights
    result: RoundResult
    seconds: float
    scores: Scores | None = None
    test_seconds: float = 0.0
    drained: bool = True

    @property
    def weights(self) -> Vector:
        """The weights the round ended with, float32 (P,).

        They may have to be fetched from the workers, which keep them until they have made the next: those of
        the last round are here, and whoever wants others must ask before the round after.
        """
        return fetch(self.outcome)

    @property
    def gathered(self) -> RoundResult:
        """The name of ``result`` in version 0.1."""
        return self.result

    @property
    def reports(self) -> tuple[Report, ...]:
        return self.result.reports

    @property
    def merged(self) -> tuple[Report, ...]:
        """The reports of all that is in the mean, those that were late for an earlier round first."""
        return (*self.result.late, *self.reports)

    @property
    def members(self) -> tuple[int, ...]:
        """The workers that were in time; those at their own pace may have reported twice."""
        return tuple(dict.fromkeys(report.member for report in self.reports))

    @property
    def steps(self) -> int:
        """SGD steps of all workers together."""
        return sum(report.steps for report in self.merged)

    @property
    def images(self) -> int:
        """Training records read by all workers together."""
        return sum(report.images for report in self.merged)

    @property
    def loss(self) -> float:
        """Mean training loss over all steps of all workers."""
        return sum(report.loss * report.steps for report in self.merged) / self.steps

    @property
    def lr(self) -> float:
        return self.result.lr

    @property
    def compute_seconds(self) -> float:
        """Time of the slowest worker's steps."""
        return max(report.seconds for report in self.reports)

    @property
    def data_seconds(self) -> float:
        """How long a worker waited for its batches, at most: a part of its steps' time."""
        return max(report.data_seconds for report in self.reports)

    @property
    def wait_seconds(self) -> float:
        """How long a worker waited for the slowest one, on average."""
        return self.compute_seconds - float(np.mean([report.seconds for report in self.reports]))

    @property
    def joining_seconds(self) -> float:
        return self.result.joining_seconds

    @property
    def exchange_seconds(self) -> float:
        # workers at their own pace may have computed for longer than the round
        return max(0.0, self.seconds - self.joining_seconds - self.compute_seconds)

    @property
    def bytes_sent(self) -> int:
        """Weights and plans, driver to workers."""
        return self.result.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Weights and reports, workers to driver."""
        return self.result.bytes_received

    @property
    def bytes_between(self) -> int:
        """Weights, from worker to worker, all of them together."""
        return self.result.bytes_between

    @property
    def accuracy(self) -> float | None:
        """The first score that is named an accuracy (or top-1), 0 to 1; None in a round without a test."""
        named = (v for k, v in (self.scores.means if self.scores else {}).items() if _is_accuracy(k))
        return next(named, None)


def _is_accuracy(name: str) -> bool:
    return "accuracy" in name.lower() or name.lower().endswith(("top-1", "top1"))
