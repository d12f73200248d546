"""The algorithm: local SGD with periodic averaging, on whatever workers it is given.

Listing 3 of SparkNet (Moritz, Nishihara, Stoica, Jordan, https://arxiv.org/abs/1511.06051):

    w <- initial weights
    repeat
        broadcast w to the workers
        every worker: tau steps of SGD on its own shard, or as many as fit into a time cap
        every n rounds: test w
        w <- the mean of the workers' weights

``train`` below is that loop. It knows neither Spark nor Caffe: it asks a ``Workers`` for results, and an
``Outer`` for what to make of them (``outer.py``; the mean itself by default).

    with LocalWorkers(recipe, shards, test) as workers:
        for done in train(workers, Settings(rounds=100, tau=10, test_every=5)):
            print(done.number, done.loss, done.accuracy)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Protocol, runtime_checkable

from sparknet import clock
from sparknet.errors import UsageError
from sparknet.moved import moved_name
from sparknet.outer import Average, Outer, RemoteMean, Schedule, constant
from sparknet.rate_rule import RateRule
from sparknet.rounds import (
    Exchanged,
    Momentum,
    Report,
    Round,
    RoundPlan,
    RoundResult,
    Scores,
    WorkerState,
    mean_state,
)
from sparknet.weights import Vector, Weights, fetch

__all__ = [
    "Exchanged",
    "Momentum",
    "Report",
    "Round",
    "RoundPlan",
    "RoundResult",
    "Scores",
    "Settings",
    "WorkerState",
    "Workers",
    "frozen",
    "mean_state",
    "train",
]

__getattr__ = partial(
    moved_name, __name__, {"Gathered": "sparknet.rounds.RoundResult", "Order": "sparknet.rounds.RoundPlan"}
)


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
    if settings.gradients and not isinstance(outer, Average):
        raise UsageError(
            "an outer optimiser is for averages of weights: where gradients are averaged it has none"
        )
    w: Weights = frozen(workers.initial_weights() if weights is None else weights)
    ahead: RoundPlan | None = None
    for number in range(done + 1, settings.rounds + 1):
        started = clock.now()
        plan = ahead or settings.plan(number, lr)
        ahead = settings.ahead(number, lr)
        result = workers.train(w, plan, ahead) if settings.overlap else workers.train(w, plan)
        lr = result.lr
        w = _after(w, result.mean, lr, outer)
        trained = clock.now()
        scores = workers.test(w) if settings.tests_after(number) else None
        w = fetch(w) if number == settings.rounds else w  # the workers may end now
        round_ = Round(
            number=number,
            rounds=settings.rounds,
            tau=plan.tau,
            outcome=w,
            result=result,
            seconds=trained - started,
            scores=scores,
            test_seconds=clock.now() - trained if scores else 0.0,
            drained=ahead is None,
        )
        if isinstance(settings.tau, Adaptive):
            settings.tau.observe(round_)
        yield round_


def _after(weights: Weights, mean: Weights, lr: float, outer: Outer) -> Weights:
    """What a round ends with; if the mean stays on the workers, they take the step."""
    stepped = mean.stepped(outer, lr) if isinstance(mean, RemoteMean) else None
    if stepped is not None:
        return stepped
    return frozen(outer.step(fetch(weights), fetch(mean), lr))


def frozen(vector: Vector) -> Vector:
    """``vector`` as a read-only view: workers may hold it, so nobody may change it."""
    view = vector.view()
    view.flags.writeable = False
    return view


@runtime_checkable
class Adaptive(Protocol):
    """A schedule of tau that learns from the rounds. While it measures all workers wait for every average."""

    @property
    def is_measuring(self) -> bool: ...

    def observe(self, done: Round) -> None: ...

    def __call__(self, number: int, lr: float | None, /) -> int: ...


class Workers(Protocol):
    """K replicas of one net, each with its own shard, wherever they are.

    ``LocalWorkers`` keeps them in this process and is the reference; ``SparkWorkers`` keeps them in a
    cluster.
    """

    def initial_weights(self) -> Vector:
        """The weights a replica is born with, float32 (P,); the same for all of them."""
        ...

    def train(self, weights: Weights, plan: RoundPlan, ahead: RoundPlan | None = None) -> RoundResult:
        """Every worker starts from ``weights`` and does what ``plan`` says.

        With ``ahead``, the plan of the next round, workers may begin that round from where they are before
        its average is known. Whoever has done so merges ``weights``, which came of that average, where
        it ends (``overlap.py``). The next call must be for that round, or what was begun is dropped.
        Raises WorkersLost when none is left to report.
        """
        ...

    def test(self, weights: Weights) -> Scores:
        """Score ``weights`` on every record of the test set, each exactly once."""
        ...

    def states(self) -> dict[int, WorkerState]:
        """What each worker with a shard would need to go on elsewhere, by its number."""
        ...

    def restore(self, states: Mapping[int, WorkerState]) -> None:
        """Let workers go on from ``states``; one that is not in it starts from their mean history."""
        ...

    def close(self) -> None:
        """Release everything; may be called again."""
        ...


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How long to train and how often to synchronise.

    ``tau``  SGD steps per round: a number, or a schedule of them (``outer.py``)
    ``time_cap_seconds``  a worker begins no further step after this long, so that stragglers do not hold up
        a round
    ``test_every``  rounds between tests, 0 for none; the last round is always tested otherwise
    ``overlap``  averages travel while the next round is computed (``overlap.py``), but not those of rounds
        that a test follows, of the last, and of every ``drain_every``-th (0 for none of these): there all
        workers wait for the average, as they do without, and a checkpoint can be taken
    ``rate``  how the learning rate is changed through the run (``rate_rule.py``)
    ``gradients``  a round is a step, which all workers take by the mean of their gradients
        (``gradients.py``)
    """

    rounds: int
    tau: int | Schedule | Adaptive = 10
    time_cap_seconds: float | None = None
    test_every: int = 0
    momentum: Momentum = "keep"
    overlap: bool = False
    drain_every: int = 0
    rate: RateRule | None = None
    gradients: bool = False

    def __post_init__(self) -> None:
        least_values = (("rounds", 1), ("test_every", 0), ("drain_every", 0))
        for name, least in least_values:
            value = getattr(self, name)
            if value < least:
                raise UsageError(f"{name} is {value}: at least {least} is needed")
        if isinstance(self.tau, int) and self.tau < 1:
            raise UsageError(f"tau is {self.tau}: a round has at least 1 step")
        if self.time_cap_seconds is not None and not self.time_cap_seconds > 0:
            raise UsageError(f"the time cap is {self.time_cap_seconds} s: it must be positive, or None")
        if self.momentum not in ("keep", "average", "reset"):
            raise UsageError(f"momentum is {self.momentum!r}: keep, average or reset")
        if self.overlap and self.momentum == "average":
            raise UsageError(
                "momentum is averaged where all workers wait for each other, which they do not with overlap: "
                "momentum keep or reset"
            )

        if self.gradients:
            self._check_gradients()

    def plan(self, number: int, lr: float | None) -> RoundPlan:
        """What round ``number`` (from 1) asks of a worker; ``lr`` is the last round's, None in the first."""
        schedule = constant(self.tau) if isinstance(self.tau, int) else self.tau
        return RoundPlan(
            tau=schedule(number, lr),
            time_cap_seconds=self.time_cap_seconds,
            momentum=self.momentum,
            rate=self.rate.factor(number, self.rounds) if self.rate else 1.0,
            gradients=self.gradients,
        )

    order = plan  # its name in version 0.1

    def ahead(self, number: int, lr: float | None) -> RoundPlan | None:
        """What is asked after round ``number`` of workers that do not wait for its average; None if all do.

        ``lr`` is that of the round before, the last that is known when this has to be said.
        """
        return None if self.waits_after(number) or not self.overlap else self.plan(number + 1, lr)

    def waits_after(self, number: int) -> bool:
        """Whether all workers wait for the weights of round ``number``, whatever they do otherwise."""
        drains = self.drain_every > 0 and number % self.drain_every == 0
        drains = drains or (isinstance(self.tau, Adaptive) and self.tau.is_measuring)
        return drains or number == self.rounds or self.tests_after(number)

    def _check_gradients(self) -> None:
        wrong = {"tau": self.tau != 1, "momentum": self.momentum != "keep", "overlap": self.overlap}
        given = [name for name, is_wrong in wrong.items() if is_wrong]
        if given:
            raise UsageError(
                f"{given[0]} is {getattr(self, given[0])!r} where gradients are averaged in every step: then "
                "tau is 1, workers share one momentum, which is kept, and parts of the gradient overlap by "
                "themselves"
            )

    def tests_after(self, number: int) -> bool:
        return self.test_every > 0 and (number % self.test_every == 0 or number == self.rounds)
