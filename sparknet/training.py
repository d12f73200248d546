"""The algorithm: local SGD with periodic averaging, on whatever workers it is given.

Listing 3 of SparkNet (Moritz, Nishihara, Stoica, Jordan, https://arxiv.org/abs/1511.06051):

    w <- initial weights
    repeat
        broadcast w to the workers
        every worker: tau steps of SGD on its own shard, or as many as fit into a time cap
        every n rounds: test w
        w <- the mean of the workers' weights

``train`` below is that loop. It knows neither Spark nor Caffe: it asks a ``Workers`` for results, and an
``Outer`` for what to make of them (``outer.py``; the mean itself unless told otherwise).

    with LocalWorkers(recipe, shards, test) as workers:
        for done in train(workers, Settings(rounds=100, tau=10, test_every=5)):
            print(done.number, done.loss, done.accuracy)
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from sparknet.errors import UsageError
from sparknet.outer import Average, Outer, Schedule, constant
from sparknet.weights import Vector, mean_of

Momentum = Literal["keep", "average", "reset"]


def train(
    workers: Workers,
    settings: Settings,
    outer: Outer | None = None,
    *,
    weights: Vector | None = None,
    done: int = 0,
    lr: float | None = None,
) -> Iterator[Round]:
    """Train for ``settings.rounds`` rounds and yield what each one brought, its new weights included.

    Starts from ``weights``, float32 (P,), or else from the workers' own; ``done`` rounds have been run
    before, the last at the rate ``lr``. Scores of a round are those of the weights it ended with. Raises
    TrainingError when the workers cannot go on.
    """
    outer = outer or Average()
    w = frozen(workers.initial_weights() if weights is None else weights)
    for number in range(done + 1, settings.rounds + 1):
        started = time.perf_counter()
        order = settings.order(number, lr)
        gathered = workers.train(w, order)
        lr = gathered.lr
        w = frozen(outer.step(w, gathered.mean, lr))
        trained = time.perf_counter()
        scores = workers.test(w) if settings.tests_after(number) else None
        yield Round(
            number=number,
            rounds=settings.rounds,
            tau=order.tau,
            weights=w,
            gathered=gathered,
            seconds=trained - started,
            scores=scores,
            test_seconds=time.perf_counter() - trained if scores else 0.0,
        )


def frozen(vector: Vector) -> Vector:
    """``vector`` as a read-only view: workers may hold it, so nobody may change it behind their backs."""
    view = vector.view()
    view.flags.writeable = False
    return view


class Workers(Protocol):
    """K replicas of one net, each with its own shard, wherever they are.

    ``LocalWorkers`` keeps them in this process and is the reference; ``SparkWorkers`` keeps them in a
    cluster.
    """

    def initial_weights(self) -> Vector:
        """The weights a replica is born with, float32 (P,); the same for all of them."""
        ...

    def train(self, weights: Vector, order: Order) -> Gathered:
        """Every worker starts from ``weights`` and does what ``order`` says.

        Raises WorkersLost when none is left to report.
        """
        ...

    def test(self, weights: Vector) -> Scores:
        """Score ``weights`` on every record of the test set, each exactly once."""
        ...

    def states(self) -> dict[int, WorkerState]:
        """What each worker with a shard would need to go on elsewhere, by its number."""
        ...

    def restore(self, states: Mapping[int, WorkerState]) -> None:
        """Let workers go on from ``states``; one that is not in it starts from their mean history."""
        ...

    def close(self) -> None:
        """Let go of everything; may be called again."""
        ...


@dataclass(frozen=True, kw_only=True)
class Order:
    """What every worker does in one round.

    ``momentum`` says what becomes of the solver's history when new weights arrive: each worker keeps its
    own (as SparkNet does), all get the mean of theirs, or it starts from zero.
    """

    tau: int
    time_cap_seconds: float | None = None
    momentum: Momentum = "keep"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How long to train and how often to synchronise.

    ``tau``  SGD steps per round: a number, or a schedule of them (``outer.py``)
    ``time_cap_seconds``  a worker begins no further step after this long, so that stragglers do not hold up
        a round
    ``test_every``  rounds between tests, 0 for none; the last round is always tested otherwise
    """

    rounds: int
    tau: int | Schedule = 10
    time_cap_seconds: float | None = None
    test_every: int = 0
    momentum: Momentum = "keep"

    def __post_init__(self) -> None:
        for name, value, least in (("rounds", self.rounds, 1), ("test_every", self.test_every, 0)):
            if value < least:
                raise UsageError(f"{name} is {value}: at least {least} is needed")
        if isinstance(self.tau, int) and self.tau < 1:
            raise UsageError(f"tau is {self.tau}: a round has at least 1 step")
        if self.time_cap_seconds is not None and not self.time_cap_seconds > 0:
            raise UsageError(f"the time cap is {self.time_cap_seconds} s: it must be positive, or None")
        if self.momentum not in ("keep", "average", "reset"):
            raise UsageError(f"momentum is {self.momentum!r}: keep, average or reset")

    def order(self, number: int, lr: float | None) -> Order:
        """What round ``number`` (from 1) asks of a worker; ``lr`` is the last round's, None in the first."""
        schedule = constant(self.tau) if isinstance(self.tau, int) else self.tau
        return Order(tau=schedule(number, lr), time_cap_seconds=self.time_cap_seconds, momentum=self.momentum)

    def tests_after(self, number: int) -> bool:
        return self.test_every > 0 and (number % self.test_every == 0 or number == self.rounds)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What one worker did in one round.

    ``loss`` is the mean over its steps, ``images`` the records it read (repeats counted), ``lr`` the
    learning rate of its last step. ``iteration`` counts the steps its solver has made in all and
    ``position`` is its sampler's: a worker that takes over the shard goes on from there.
    """

    member: int
    steps: int
    images: int
    loss: float
    lr: float
    iteration: int
    position: int
    seconds: float


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
class Gathered:
    """The reports of a round, in the order of the members, and the mean of their weights, float32 (P,).

    The mean counts each worker by the steps it took: equally, unless some stopped early. ``lost`` names the
    workers whose work did not count, with the reason. ``seconds`` runs from the order to the last report.
    """

    mean: Vector
    reports: tuple[Report, ...]
    seconds: float
    bytes_sent: int = 0
    bytes_received: int = 0
    lost: tuple[str, ...] = ()

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

    ``seconds`` is the whole round without its test. It is ``compute_seconds`` (the slowest worker's
    steps) plus ``exchange_seconds`` (everything else: sending, waiting for sockets, averaging, the
    outer optimiser).
    """

    number: int
    rounds: int
    tau: int
    weights: Vector
    gathered: Gathered
    seconds: float
    scores: Scores | None = None
    test_seconds: float = 0.0

    @property
    def reports(self) -> tuple[Report, ...]:
        return self.gathered.reports

    @property
    def members(self) -> tuple[int, ...]:
        """The workers whose weights are in the mean."""
        return tuple(report.member for report in self.reports)

    @property
    def steps(self) -> int:
        """SGD steps of all workers together."""
        return sum(report.steps for report in self.reports)

    @property
    def images(self) -> int:
        """Training records read by all workers together."""
        return sum(report.images for report in self.reports)

    @property
    def loss(self) -> float:
        """Mean training loss over all steps of all workers."""
        return sum(report.loss * report.steps for report in self.reports) / self.steps

    @property
    def lr(self) -> float:
        return self.gathered.lr

    @property
    def compute_seconds(self) -> float:
        """Time of the slowest worker's steps."""
        return max(report.seconds for report in self.reports)

    @property
    def wait_seconds(self) -> float:
        """How long a worker waited for the slowest one, on average."""
        return self.compute_seconds - float(np.mean([report.seconds for report in self.reports]))

    @property
    def exchange_seconds(self) -> float:
        return self.seconds - self.compute_seconds

    @property
    def bytes_sent(self) -> int:
        """Weights and orders, driver to workers."""
        return self.gathered.bytes_sent

    @property
    def bytes_received(self) -> int:
        """Weights and reports, workers to driver."""
        return self.gathered.bytes_received

    @property
    def accuracy(self) -> float | None:
        """The first score that is named an accuracy (or top-1), 0 to 1; None in a round without a test."""
        named = (v for k, v in (self.scores.means if self.scores else {}).items() if _is_accuracy(k))
        return next(named, None)


def _is_accuracy(name: str) -> bool:
    return "accuracy" in name.lower() or name.lower().endswith(("top-1", "top1"))
