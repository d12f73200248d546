"""A worker that averages with its peers: in memory of its own first, in its net once all have it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparknet.merge import distance
from sparknet.spark.exchange import NOTHING, raw
from sparknet.spark.peers import Peers
from sparknet.weights import Vector
from sparknet.worker import Worker


class Averager:
    """Between the rounds ``start`` is what the net holds: the last mean, or what the driver has sent."""

    def __init__(self, worker: Worker, peers: Peers) -> None:
        self._worker, self._peers = worker, peers
        self._start: Vector = np.empty_like(worker.vector)
        self._mean: Vector = np.empty_like(worker.vector)
        self._is_start = self._is_mean = False
        self._history: Vector | None = None

    def arrived(self) -> None:
        """The driver has sent weights."""
        self._is_start = False

    def begin(self) -> None:
        """A round starts from what the net holds."""
        if not self._is_start:
            np.copyto(self._start, self._worker.vector)
            self._is_start = True

    @property
    def moved(self) -> float:
        """How far the net is from the round's start; not finite if a number in it is not."""
        return distance(self._start, self._worker.vector)

    @property
    def start(self) -> memoryview:
        """The bytes of what the round started from."""
        return raw(self._start) if self._is_start else NOTHING

    def reduce(self, *, key: str, rank: int, steps: Sequence[int], history: bool) -> int:
        """Average with the group; the bytes sent for it. Raises RuntimeError if it could not be done."""
        worker, peers = self._worker, self._peers
        before = peers.sent
        self._is_mean, self._history = False, None
        if len(steps) > 1:
            peers.meet(key, rank, len(steps))
        peers.average(worker.vector, self._start, steps, rank, self._mean)
        if len(steps) > 1:
            peers.widen(worker.replica.statistics, worker.vector, steps[rank], self._mean)
        if history:
            self._history = self._mean_history(steps, rank)
        self._is_mean = True
        return peers.sent - before

    def commit(self) -> None:
        """All have the mean: go on from it."""
        if not self._is_mean:
            return
        np.copyto(self._worker.vector, self._mean)
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
        self._peers.average(own, None, steps, rank, mean)
        return mean
