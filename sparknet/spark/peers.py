"""Averaging among the workers themselves: each makes the mean of a part of the weights and sends it to all.

In a star K vectors go into the driver and K come out of it, in every round. Here 2 (K - 1) / K vectors go in
and out of each worker, whatever K is, and none to the driver:

    1  every worker sends part j of its weights to worker j, for all j
    2  worker j makes the mean of what it has of part j, in float32 and in the order of the workers
    3  ... and sends it to all the others

It is done bucket by bucket, so that one is on its way while another is reckoned. The bytes of both steps are
those of a ring, and the mean is the star's, bit for bit. With a wire format of fewer bits both steps carry
changes since the round's start; what rounding to int8 took away is added to the next change.

Group and store are torch.distributed's (gloo), without its global state: a group lives as long as its members
do, and a new one takes its place. Gloo knows no authentication: workers must be on a network of their own, as
Spark's are. What it is told to do, and the random name under which a group's members find each other, come in
sealed frames.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from sparknet.changes import Changes
from sparknet.merge import Statistics
from sparknet.spark.buckets import Bucket, Coded, Rooms, Whole, cut
from sparknet.weights import Vector
from sparknet.wire import Codec

_dist: Any = dist  # its stubs leave out what is used here

# Numbers in a bucket: enough that waking threads costs little, few enough that some buckets overlap.
_SMALLEST_BUCKET, _LARGEST_BUCKET = 1 << 18, 1 << 22
_BUCKETS = 16
# Buckets on their way in each of the steps.
_DEPTH = 2
# As many can be under way at once.
_TURNS = 2 * _DEPTH


def new_store(host: str) -> Any:
    """Where the members of a group find each other: a TCPStore on a free port of ``host`` alone."""
    listener = socket.create_server((host, 0))
    port = listener.getsockname()[1]
    return _dist.TCPStore(
        host, port, is_master=True, wait_for_workers=False, master_listen_fd=listener.detach()
    )


class Peers:
    """One worker's way to the others.

    ``store`` is the address of the driver's, ``host`` one of this worker that the others can reach. ``sent``
    counts the bytes of weights that went to them.
    """

    def __init__(self, store: tuple[str, int], host: str, seconds: float, codec: Codec) -> None:
        self._address, self._host, self._timeout = store, host, timedelta(seconds=seconds)
        self._codec = codec
        self._store: Any = None
        self._group: Any = None
        self._key = ""
        self._told: dict[tuple[int, int], Changes] = {}
        self._rooms = Rooms()
        self.sent = 0

    def meet(self, key: str, rank: int, size: int) -> None:
        """Be number ``rank`` of ``size`` members of group ``key``. Raises RuntimeError if one is missing."""
        if self._group is None or key != self._key:
            self._group = None  # hang up on the old members first
            self._told.clear()
            self._rooms = Rooms()  # the old ones may still be written to
            options = _dist.ProcessGroupGloo._Options()
            options._timeout = self._timeout
            options._devices = [_dist.ProcessGroupGloo.create_device(hostname=self._host)]
            store = _dist.PrefixStore(key, self._connected())
            self._group, self._key = _dist.ProcessGroupGloo(store, rank, size, options), key

    def average(
        self, vector: Vector, start: Vector | None, steps: Sequence[int], rank: int, out: Vector
    ) -> None:
        """Write to ``out`` the mean of the members' vectors, float32 (P,), each counted by its steps.

        ``start`` is what all of them began from; without it the vectors themselves travel, as float32. Raises
        RuntimeError if a member is gone: ``vector`` is as it was, and a group of the others can do it again.
        """
        if len(steps) == 1:
            np.copyto(out, vector)
            return
        buckets = self._buckets(vector, start, out)
        scattered: deque[Bucket] = deque()
        gathered: deque[Bucket] = deque()

        def reduce(bucket: Bucket) -> None:
            buckets.reduce(bucket)
            gathered.append(bucket)
            if len(gathered) > _DEPTH:
                buckets.gather(gathered.popleft())

        for bucket in cut(out.size, _bucket(out.size), _TURNS, rank, steps):
            buckets.scatter(bucket)
            scattered.append(bucket)
            if len(scattered) == _DEPTH:
                reduce(scattered.popleft())
        while scattered:
            reduce(scattered.popleft())
        while gathered:
            buckets.gather(gathered.popleft())

    def widen(self, statistics: Sequence[Statistics], vector: Vector, steps: int, mean: Vector) -> None:
        """Add the spread of the members' running means to the variances in ``mean``."""
        for statistic in statistics:
            weight, spread = statistic.spread(mean, vector, steps)
            sums = torch.from_numpy(np.append(weight * spread, weight))
            if self._group is not None:
                self._group.allreduce([sums]).wait()
            statistic.widen(mean, sums[:-1].numpy(), float(sums[-1]))

    def send(self, data: NDArray[Any], peer: int, tag: int) -> Any:
        self.sent += data.nbytes
        return self._group.send([torch.from_numpy(data)], peer, tag)

    def receive(self, data: NDArray[Any], peer: int, tag: int) -> Any:
        return self._group.recv([torch.from_numpy(data)], peer, tag)

    def _buckets(self, vector: Vector, start: Vector | None, out: Vector) -> Whole | Coded:
        if start is None or self._codec.name == "float32":
            return Whole(self, self._rooms, vector, out)
        return Coded(self, self._rooms, vector, start, out, self._codec, self._told)

    def _connected(self) -> Any:
        if self._store is None:
            host, port = self._address
            self._store = _dist.TCPStore(
                host, port, is_master=False, wait_for_workers=False, timeout=self._timeout
            )
        return self._store


def _bucket(length: int) -> int:
    """Numbers in each bucket of a vector."""
    return min(max(length // _BUCKETS, _SMALLEST_BUCKET), _LARGEST_BUCKET)
