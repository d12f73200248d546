"""Averaging among the workers themselves: gloo's ring instead of a star through the driver.

In a star K vectors go into the driver and K come out of it, in every round. In a ring about two go in and
out of each worker, whatever K is, and one goes to the driver. Group and store are torch.distributed's,
without its global state: a group lives as long as its members do, and a new one with a new epoch takes its
place.

Gloo knows no authentication: workers must be on a network of their own, as Spark's are.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from sparknet.merge import Statistics
from sparknet.spark.exchange import NOTHING, raw
from sparknet.weights import Vector
from sparknet.worker import Worker

_dist: Any = dist  # its stubs leave out what is used here


def new_store(host: str) -> Any:
    """Where the members of a group find each other: a TCPStore on a free port of ``host``."""
    return _dist.TCPStore(host, 0, is_master=True, wait_for_workers=False)


class Peers:
    """One worker's place in the ring.

    ``store`` is the address of the driver's, ``host`` one of this worker that the others can reach.
    """

    def __init__(self, store: tuple[str, int], host: str, seconds: float) -> None:
        self._address, self._host, self._timeout = store, host, timedelta(seconds=seconds)
        self._store: Any = None
        self._group: Any = None
        self._epoch = -1

    def mean(
        self,
        vector: Vector,
        share: float,
        statistics: Sequence[Statistics],
        *,
        epoch: int,
        rank: int,
        size: int,
    ) -> Vector:
        """The sum over the group of share * vector, float32 (P,); ``vector`` is left alone.

        The shares of the group add up to 1. Raises RuntimeError if a member is gone: nothing is lost then,
        and a group of the others can do it again.
        """
        if size == 1:
            return vector.copy()
        group = self._in_group(epoch, rank, size)
        mean = torch.from_numpy(vector) * share
        group.allreduce([mean]).wait()
        result: Vector = mean.numpy()
        for statistic in statistics:
            weight, spread = statistic.spread(result, vector, share)
            sums = torch.from_numpy(np.append(weight * spread, weight))
            group.allreduce([sums]).wait()
            statistic.widen(result, sums[:-1].numpy(), float(sums[-1]))
        return result

    def _in_group(self, epoch: int, rank: int, size: int) -> Any:
        if self._group is None or epoch != self._epoch:
            self._group = None  # hang up on the old members first
            options = _dist.ProcessGroupGloo._Options()
            options._timeout = self._timeout
            options._devices = [_dist.ProcessGroupGloo.create_device(hostname=self._host)]
            store = _dist.PrefixStore(f"epoch-{epoch}", self._connected())
            self._group, self._epoch = _dist.ProcessGroupGloo(store, rank, size, options), epoch
        return self._group

    def _connected(self) -> Any:
        if self._store is None:
            host, port = self._address
            self._store = _dist.TCPStore(
                host, port, is_master=False, wait_for_workers=False, timeout=self._timeout
            )
        return self._store


class Averager:
    """A worker that averages with its peers: in memory of its own first, in its net once all have it."""

    def __init__(self, worker: Worker, peers: Peers) -> None:
        self._worker, self._peers = worker, peers
        self._mean: Vector | None = None
        self._history: Vector | None = None

    def reduce(
        self, *, epoch: int, rank: int, size: int, share: float, history: bool, send: bool
    ) -> memoryview:
        """Average with the group; returns the bytes of the mean if they are to be sent.

        Raises RuntimeError if it could not be done.
        """
        worker, place = self._worker, {"epoch": epoch, "rank": rank, "size": size}
        self._mean = self._history = None
        mean = self._peers.mean(worker.vector, share, worker.replica.statistics, **place)
        own = worker.state.history if history else None
        self._history = None if own is None else self._peers.mean(own, share, (), **place)
        self._mean = mean
        return raw(mean) if send else NOTHING

    def commit(self) -> None:
        """All have the mean: go on from it."""
        if self._mean is not None:
            np.copyto(self._worker.vector, self._mean)
        if self._history is not None:
            self._worker.restore_history(self._history)
        self._mean = self._history = None
