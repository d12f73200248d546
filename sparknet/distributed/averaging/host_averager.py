"""A worker that averages in host memory: into a buffer first, into its net once all have the mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparknet.distributed.averaging.host_allreduce import HostAllReduce
from sparknet.distributed.comm.channel import NOTHING, raw
from sparknet.distributed.comm.spread import AT_ONCE, Spread
from sparknet.weights import Vector
from sparknet.worker import Worker


@dataclass(frozen=True, kw_only=True)
class Averaged:
    """The bytes ``sent`` to the others, and how far the net had ``moved`` from the round's start: infinite if
    a number in it was not finite."""

    sent: int
    moved: float


class HostAverager:
    """Between rounds ``start`` float32 (P,) is the net's weights: the last mean, or what the driver sent.

    A round begins with what is in ``origin``, which is also where means go, and ``vector`` is what the worker
    gives to the average, both float32 (P,); otherwise they are the worker's own vector.
    """

    def __init__(
        self,
        worker: Worker,
        allreduce: HostAllReduce,
        *,
        origin: Vector | None = None,
        vector: Vector | None = None,
    ) -> None:
        self._worker, self._allreduce = worker, allreduce
        self._origin: Vector = worker.vector if origin is None else origin
        self._vector: Vector = worker.vector if vector is None else vector
        self._start: Vector = np.empty_like(worker.vector)
        self._mean: Vector = np.empty_like(worker.vector)
        self._is_start = self._is_mean = False
        self._history: Vector | None = None

    def arrived(self) -> None:
        """The driver has sent weights."""
        self._is_start = False

    def begin(self) -> None:
        """A round starts from what is in ``origin``."""
        if not self._is_start:
            np.copyto(self._start, self._origin)
            self._is_start = True

    @property
    def start(self) -> memoryview:
        """The bytes of what the round started from."""
        return raw(self._start) if self._is_start else NOTHING

    def reduce(
        self,
        *,
        key: str,
        rank: int,
        steps: Sequence[int],
        history: bool,
        anew: bool = False,
        spread: Mapping[str, Any] | None = None,
        slow: bool = False,
    ) -> Averaged:
        """Average with the group. Raises RuntimeError if it could not be done.

        ``moved`` is 0 if no round has begun here; ``anew`` forgets what earlier rounds left over; ``spread``
        are the values of a ``Spread`` over which the weights travel, ``slow`` says that links are.
        """
        worker, allreduce, vector = self._worker, self._allreduce, self._vector
        before = allreduce.sent
        if anew:
            allreduce.forget()
        self._is_mean, self._history = False, None
        if len(steps) > 1:
            allreduce.join(key, rank, len(steps))
        start = self._start if self._is_start else None
        over = Spread(**spread) if spread else AT_ONCE
        moved = allreduce.average(vector, start, steps, rank, self._mean, over, slow=slow)
        if len(steps) > 1:
            allreduce.widen(worker.replica.statistics, vector, steps[rank], self._mean)
        if history:
            self._history = self._mean_history(steps, rank)
        self._is_mean = True
        return Averaged(sent=allreduce.sent - before, moved=moved)

    def commit(self) -> None:
        """All have the mean: go on from it."""
        if not self._is_mean:
            return
        np.copyto(self._origin, self._mean)
        self._start, self._mean = self._mean, self._start
        self._is_start, self._is_mean = True, False
        if self._history is not None:
            self._worker.restore_history(self._history)
            self._history = None

    def _mean_history(self, steps: Sequence[int], rank: int) -> Vector | None:
        own = self._worker.state.history
        if own is None:
            return None
        mean = np.empty_like(own)
        self._allreduce.average(own, None, steps, rank, mean)
        return mean
