"""A worker that averages with others where its weights lie, or through host memory where that cannot be.

    begin ──> [steps] ──> reduce: the mean, in memory of its own ──> commit: go on from it

The driver, which knows every member's GPU, decides how a group averages (``choose_backend``). All the vectors
of a round, float32 (P,): its start, where it ended and the mean, stay on the device; the start comes to the
host when the driver fetches it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from sparknet.distributed.averaging.device_allreduce import DeviceAllReduce, distance
from sparknet.distributed.averaging.host_averager import Averaged, HostAverager
from sparknet.distributed.comm.channel import NOTHING, raw
from sparknet.worker import Worker


class DeviceAverager:
    """Does what ``HostAverager`` does, for a worker on a GPU.

    ``make_host_averager`` makes the one for groups that NCCL cannot serve; it reads and writes
    ``worker.vector``.
    """

    def __init__(
        self, worker: Worker, allreduce: DeviceAllReduce, make_host_averager: Callable[[], HostAverager]
    ) -> None:
        self._worker, self._allreduce = worker, allreduce
        self._make_host_averager = make_host_averager
        self._host: HostAverager | None = None
        self._start = torch.empty_like(worker.replica.weights)
        self._buffer: torch.Tensor | None = None
        self._is_start = False
        self._commit: Callable[[], None] | None = None

    def arrived(self) -> None:
        """The driver has sent weights."""
        self._is_start = False

    def begin(self) -> None:
        """A round starts from the net's weights."""
        if not self._is_start:
            self._start.copy_(self._worker.replica.weights)
            self._is_start = True

    @property
    def start(self) -> memoryview:
        """The bytes of what the round started from, in host memory and for the caller alone."""
        return raw(self._start.to("cpu", copy=True).numpy()) if self._is_start else NOTHING

    def reduce(
        self,
        *,
        backend: str,
        key: str,
        rank: int,
        steps: Sequence[int],
        history: bool,
        slow: bool = False,
    ) -> Averaged:
        """Average with the group. Raises RuntimeError if it could not be done."""
        self._commit = None
        if backend == "nccl":
            sent = self._reduce_here(key, rank, steps, history)
        else:
            sent = self._reduce_on_host(key, rank, steps, history, slow)
        return Averaged(sent=sent, moved=distance(self._start, self._worker.replica.weights))

    def commit(self) -> None:
        """All have the mean: go on from it."""
        if self._commit is not None:
            self._commit()
            self._is_start, self._commit = True, None

    def _reduce_here(self, key: str, rank: int, steps: Sequence[int], history: bool) -> int:
        weights, allreduce, replica = self._worker.replica.weights, self._allreduce, self._worker.replica
        before = allreduce.sent
        # after an error the old buffer may still be written to: then this is a new one
        mean, self._buffer = self._buffer, None
        if mean is None:
            mean = torch.empty_like(weights)
        allreduce.join(key, rank, len(steps))
        allreduce.average(weights, steps, mean)
        allreduce.widen(weights, steps, mean)
        moments: torch.Tensor | None = None
        if history:
            own = replica.history()
            moments = torch.empty_like(own)
            allreduce.average(own, steps, moments)
        self._buffer = mean
        self._commit = lambda: self._take(mean, moments)
        return allreduce.sent - before

    def _take(self, mean: torch.Tensor, moments: torch.Tensor | None) -> None:
        self._worker.move_to(mean)
        self._start, self._buffer = mean, self._start
        if moments is not None:
            self._worker.replica.restore_history(moments)

    def _reduce_on_host(self, key: str, rank: int, steps: Sequence[int], history: bool, slow: bool) -> int:
        if self._host is None:
            self._host = self._make_host_averager()
        self._worker.bring()
        self._host.arrived()  # the round's start is here, not there
        averaged = self._host.reduce(key=key, rank=rank, steps=steps, history=history, slow=slow)
        self._commit = self._take_from_host
        return averaged.sent

    def _take_from_host(self) -> None:
        assert self._host is not None
        self._host.commit()
        self._worker.load(self._worker.vector)
        self._start.copy_(self._worker.replica.weights)
