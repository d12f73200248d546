"""Asynchronous elastic averaging: DeepSpark (arXiv 1602.08191), after EASGD (arXiv 1412.6651).

Nobody waits for anybody. Whenever a worker has made its tau steps, it and the centre are pulled together:

    d = a (x_i - x~);   x_i <- x_i - d;   x~ <- x~ + d

The same d on both sides, so x~ + sum x_i never changes by an exchange. a = 0.9 / K, as in the EASGD paper,
with K the workers there are at that moment. DeepSpark's own server lets exchanges overlap without a lock and
loses some of them: here a block of the centre is locked while it moves.

    elastic = Elastic()
    for done in train(workers, Settings(rounds=100, tau=10), elastic):
        ...                                  # done.weights is the centre
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from typing import Protocol

import numpy as np

from sparknet.errors import TrainingError, UsageError
from sparknet.merge import distance
from sparknet.training import Report, Round, RoundPlan, RoundResult, Settings, Workers, frozen
from sparknet.weights import Vector

# The EASGD paper's beta: a times the number of workers.
BETA = 0.9

_BLOCK = 1 << 16


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

    def exchanges(self, exchanger: Exchanger, plan: Callable[[], RoundPlan]) -> Generator[Report, None, None]:
        """Let every worker train again and again, from what ``exchanger`` gives it; a report for each time.

        ``plan`` is asked before each. When closed, waits for those that are on their way: their work is
        exchanged, but not reported.
        """
        ...


class Elastic:
    """The centre and the workers' own weights. ``moving_rate`` is a; 0.9 / K by default.

    Any thread may call ``exchange`` for its own worker.
    """

    def __init__(self, center: Vector, moving_rate: float | None = None) -> None:
        if moving_rate is not None and not 0 <= moving_rate < 1:
            raise UsageError(f"the moving rate is {moving_rate}: it must be at least 0 and below 1")
        self.center: Vector = np.array(center, np.float32)
        self.moving_rate = moving_rate
        self.replicas: dict[int, Vector] = {}
        self._locks = [threading.Lock() for _ in range(0, max(1, self.center.size), _BLOCK)]

    def start_of(self, member: int) -> Vector:
        return self.replicas.setdefault(member, self.center.copy())

    def exchange(self, member: int, vector: Vector, members: int) -> None:
        own = self.start_of(member)
        if not np.isfinite(distance(self.center, vector)):
            raise TrainingError(
                f"training diverged: the weights of worker {member} have overflowed or are not numbers. "
                "Lower base_lr, or clip gradients"
            )
        rate = np.float32(BETA / members if self.moving_rate is None else self.moving_rate)
        for number, lock in enumerate(self._locks):
            block = slice(number * _BLOCK, (number + 1) * _BLOCK)
            with lock:
                pull = rate * (vector[block] - self.center[block])
                self.center[block] += pull
            np.subtract(vector[block], pull, out=own[block])


def train(workers: AsynchronousWorkers, settings: Settings, elastic: Elastic) -> Iterator[Round]:
    """As ``training.train``; a round is as many exchanges as there are workers, and its weights are the
    centre.

    Workers are waited for only before a test and at the end.
    """
    plan = settings.plan(1, None)
    reports = workers.exchanges(elastic, lambda: plan)
    try:
        for number in range(1, settings.rounds + 1):
            started = time.perf_counter()
            done = [next(reports)]
            while len(done) < len(elastic.replicas):
                done.append(next(reports))
            plan = settings.plan(number + 1, done[-1].lr)
            seconds = time.perf_counter() - started
            tested = settings.tests_after(number)
            if tested:
                reports.close()
                reports = workers.exchanges(elastic, lambda: plan)  # noqa: B023 - the plan of the moment
            center = frozen(elastic.center.copy())
            scores = workers.test(center) if tested else None
            yield Round(
                number=number,
                rounds=settings.rounds,
                tau=plan.tau,
                outcome=center,
                result=RoundResult(mean=center, reports=tuple(done)),
                seconds=seconds,
                scores=scores,
                test_seconds=time.perf_counter() - started - seconds if tested else 0.0,
            )
    finally:
        reports.close()
