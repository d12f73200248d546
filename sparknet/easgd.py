"""Asynchronous elastic averaging: DeepSpark (arXiv 1602.08191), after EASGD (arXiv 1412.6651).

Nobody waits for anybody. Whenever a worker has made its tau steps, it and the centre are pulled together:

    d = a (x_i - x~);   x_i <- x_i - d;   x~ <- x~ + d

The same d on both sides, so x~ + sum x_i never changes by an exchange. a = 0.9 / K, as in the EASGD paper,
with K the workers there are at that moment. DeepSpark's own server lets exchanges overlap without a lock and
loses some of them (``LockFree``): otherwise a block of the centre is locked while it moves.

    elastic = Elastic()
    for done in train(workers, Settings(rounds=100, tau=10), elastic):
        ...                                  # done.weights is the centre
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from itertools import chain
from typing import Protocol

import numpy as np

from sparknet import clock
from sparknet.errors import TrainingError, UsageError
from sparknet.merge import distance
from sparknet.training import Exchanged, Round, RoundPlan, RoundResult, Settings, Workers, frozen
from sparknet.weights import Vector

# The EASGD paper's beta: a times the number of workers.
BETA = 0.9

# DeepSpark's moving_rate (script/deepspark_param_imagenet.prototxt).
DEEPSPARK_RATE = 0.1

_BLOCK = 1 << 16
_REPLICA = "replica-"


Exchanges = Generator[Exchanged, None, None]
"""What workers at their own pace bring, one after the other; closed when no more is wanted."""


class Exchanger(Protocol):
    """Where a worker gets the weights of its next round, in exchange for those of its last."""

    def start_of(self, member: int) -> Vector:
        """The weights the worker goes on from, float32 (P,)."""
        ...

    def exchange(self, member: int, vector: Vector, members: int) -> None:
        """Take the weights a worker ends a round with; ``members`` take part now. ``vector`` is not kept."""
        ...


class AsynchronousWorkers(Workers, Protocol):
    """Workers that can also run at their own pace."""

    def exchanges(self, exchanger: Exchanger, plan: Callable[[], RoundPlan]) -> Exchanges:
        """Let every worker train again and again, from what ``exchanger`` gives it; what each time brought.

        ``plan`` is asked before each. When closed, waits for those that are on their way: their work is
        exchanged, but not reported.
        """
        ...


class Elastic:
    """The centre and the workers' own weights. ``moving_rate`` is a; 0.9 / K by default.

    Without ``center`` it is what training begins with. Any thread may call ``exchange`` for its own worker.
    """

    def __init__(self, center: Vector | None = None, moving_rate: float | None = None) -> None:
        if moving_rate is not None and not 0 <= moving_rate < 1:
            raise UsageError(f"the moving rate is {moving_rate}: it must be at least 0 and below 1")
        self.moving_rate = moving_rate
        self.replicas: dict[int, Vector] = {}
        self.center: Vector = np.empty(0, np.float32)
        self._locks: list[threading.Lock] = []
        if center is not None:
            self.begin(center)

    def begin(self, center: Vector) -> None:
        """The centre is ``center``, float32 (P,), of which a copy is kept."""
        self.center = np.array(center, np.float32)
        self._locks = [threading.Lock() for _ in range(0, max(1, self.center.size), _BLOCK)]

    @property
    def state(self) -> Mapping[str, Vector]:
        """Every worker's own weights: with the centre, all that must be kept to go on later."""
        return {f"{_REPLICA}{member}": vector for member, vector in sorted(self.replicas.items())}

    def resume(self, state: Mapping[str, Vector]) -> None:
        self.replicas = {
            int(name.removeprefix(_REPLICA)): np.array(vector, np.float32) for name, vector in state.items()
        }

    def start_of(self, member: int) -> Vector:
        return self.replicas.setdefault(member, self.center.copy())

    def exchange(self, member: int, vector: Vector, members: int) -> None:
        own = self.start_of(member)
        self._check(member, vector)
        rate = np.float32(BETA / members if self.moving_rate is None else self.moving_rate)
        for number, lock in enumerate(self._locks):
            block = slice(number * _BLOCK, (number + 1) * _BLOCK)
            with lock:
                pull = rate * (vector[block] - self.center[block])
                self.center[block] += pull
            np.subtract(vector[block], pull, out=own[block])

    def _check(self, member: int, vector: Vector) -> None:
        if not np.isfinite(distance(self.center, vector)):
            raise TrainingError(
                f"training diverged: the weights of worker {member} have overflowed or are not numbers. "
                "Lower base_lr, or clip gradients"
            )


class LockFree(Elastic):
    """DeepSpark's own server: it sends the centre, takes the worker's weights, and locks nothing.

        x_i <- (1 - a) x_i + a x~;   x~ <- (1 - a) x~ + a x_i

    Of exchanges at the same time some are lost. a is 0.1 by default, as in its configuration.
    """

    def __init__(self, center: Vector | None = None, moving_rate: float | None = None) -> None:
        super().__init__(center, DEEPSPARK_RATE if moving_rate is None else moving_rate)

    def exchange(self, member: int, vector: Vector, members: int) -> None:  # noqa: ARG002 - a is fixed
        self._check(member, vector)
        sent, rate = self.center.copy(), np.float32(self.moving_rate)
        moved = (1 - rate) * sent + rate * vector
        time.sleep(0)  # where its threads change places, as they do between its two calls
        self.center = moved
        self.replicas[member] = (1 - rate) * vector + rate * sent


def train(
    workers: AsynchronousWorkers,
    settings: Settings,
    elastic: Elastic,
    *,
    weights: Vector | None = None,
    done: int = 0,
    lr: float | None = None,
) -> Iterator[Round]:
    """As ``training.train``; a round is as many exchanges as there are workers, and its weights are the
    centre.

    Workers are waited for only before a test, after every ``settings.drain_every``-th round, where a
    checkpoint can be taken, and at the end.
    """
    if weights is not None or not elastic.center.size:
        elastic.begin(workers.initial_weights() if weights is None else weights)
    plan = settings.plan(done + 1, lr)
    exchanges = workers.exchanges(elastic, lambda: plan)
    try:
        for number in range(done + 1, settings.rounds + 1):
            started = clock.now()
            made = [next(exchanges)]
            while len(made) < len(elastic.replicas):
                made.append(next(exchanges))
            tau, plan = plan.tau, settings.plan(number + 1, made[-1].report.lr)
            seconds = clock.now() - started
            tested, waited = settings.tests_after(number), settings.waits_after(number)
            if waited:
                exchanges.close()
                exchanges = workers.exchanges(elastic, lambda: plan)  # noqa: B023 - the plan of the moment
            center = frozen(elastic.center.copy())
            scores = workers.test(center) if tested else None
            yield Round(
                number=number,
                rounds=settings.rounds,
                tau=tau,
                outcome=center,
                result=_together(center, made),
                seconds=seconds,
                scores=scores,
                test_seconds=clock.now() - started - seconds if tested else 0.0,
                drained=waited,
            )
    finally:
        exchanges.close()


def _together(center: Vector, made: Sequence[Exchanged]) -> RoundResult:
    """Exchanges as a round whose mean is the centre."""
    return RoundResult(
        mean=center,
        reports=tuple(each.report for each in made),
        bytes_sent=sum(each.bytes_sent for each in made),
        bytes_received=sum(each.bytes_received for each in made),
        lost=tuple(chain.from_iterable(each.lost for each in made)),
        left=tuple(chain.from_iterable(each.left for each in made)),
        joined=tuple(chain.from_iterable(each.joined for each in made)),
        names={each.report.member: each.name for each in made if each.name},
    )
