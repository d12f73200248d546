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
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from sparknet.merge import Statistics
from sparknet.weights import Vector, mean_of
from sparknet.wire import Bytes, Changes, Codec

_dist: Any = dist  # its stubs leave out what is used here

# Elements in a bucket: 4 MB of float32.
_BUCKET = 1 << 20
# Buckets on their way in each of the steps.
_DEPTH = 2


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
        self._changes: dict[tuple[int, int], Changes] = {}
        self.sent = 0

    def meet(self, key: str, rank: int, size: int) -> None:
        """Be number ``rank`` of ``size`` members of group ``key``. Raises RuntimeError if one is missing."""
        if self._group is None or key != self._key:
            self._group = None  # hang up on the old members first
            self._changes.clear()
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
        buckets = _Whole(self, vector, out) if start is None else self._buckets(vector, start, out)
        scattered: deque[_Bucket] = deque()
        gathered: deque[_Bucket] = deque()
        for bucket in self._cut(out.size, len(steps), rank, steps):
            buckets.scatter(bucket)
            scattered.append(bucket)
            if len(scattered) == _DEPTH:
                gathered.append(buckets.reduce(scattered.popleft()))
            if len(gathered) > _DEPTH:
                buckets.gather(gathered.popleft())
        while scattered:
            gathered.append(buckets.reduce(scattered.popleft()))
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

    def send(self, data: torch.Tensor, peer: int, tag: int) -> Any:
        self.sent += data.nbytes
        return self._group.send([data], peer, tag)

    def receive(self, data: torch.Tensor, peer: int, tag: int) -> Any:
        return self._group.recv([data], peer, tag)

    def _buckets(self, vector: Vector, start: Vector, out: Vector) -> _Whole | _Coded:
        if self._codec.name == "float32":
            return _Whole(self, vector, out)
        return _Coded(self, vector, start, out, self._codec, self._changes)

    def _cut(self, length: int, size: int, rank: int, steps: Sequence[int]) -> Iterator[_Bucket]:
        for begin in range(0, length, _BUCKET):
            end = min(begin + _BUCKET, length)
            bounds = [begin + (end - begin) * k // size for k in range(size + 1)]
            parts = [slice(low, high) for low, high in pairwise(bounds)]
            yield _Bucket(begin // _BUCKET, rank, parts, steps)

    def _connected(self) -> Any:
        if self._store is None:
            host, port = self._address
            self._store = _dist.TCPStore(
                host, port, is_master=False, wait_for_workers=False, timeout=self._timeout
            )
        return self._store


class _Bucket:
    """A stretch of the vector, cut into a part for each member. Empty parts do not travel."""

    def __init__(self, number: int, rank: int, parts: list[slice], steps: Sequence[int]) -> None:
        self.rank, self.parts, self.steps = rank, parts, steps
        self.scatter_tag, self.gather_tag = 2 * number, 2 * number + 1
        self.mine = parts[rank]
        others = [peer for peer in range(len(parts)) if peer != rank]
        self.others = [peer for peer in others if parts[peer].stop > parts[peer].start]
        self.tellers = others if self.mine.stop > self.mine.start else []
        self.arrivals: dict[int, torch.Tensor] = {}
        self.waits: list[Any] = []
        self.kept: list[torch.Tensor] = []

    def wait(self) -> None:
        for wait in self.waits:
            wait.wait()
        self.waits.clear()


class _Whole:
    """Buckets that travel as they are."""

    def __init__(self, peers: Peers, vector: Vector, out: Vector) -> None:
        self._peers, self._vector, self._out = peers, vector, out

    def scatter(self, bucket: _Bucket) -> None:
        """Send the others their parts of my vector, and begin to receive my part of theirs."""
        for peer in bucket.others:
            part = torch.from_numpy(self._vector[bucket.parts[peer]])
            bucket.waits.append(self._peers.send(part, peer, bucket.scatter_tag))
        for peer in bucket.tellers:
            room = bucket.arrivals[peer] = torch.empty(bucket.mine.stop - bucket.mine.start)
            bucket.waits.append(self._peers.receive(room, peer, bucket.scatter_tag))

    def reduce(self, bucket: _Bucket) -> _Bucket:
        """Make the mean of my part, send it to the others, and begin to receive the means of theirs."""
        bucket.wait()
        mine = self._out[bucket.mine]
        if bucket.tellers:
            parts = {peer: data.numpy() for peer, data in bucket.arrivals.items()}
            parts[bucket.rank] = self._vector[bucket.mine]
            mean_of([parts[peer] for peer in sorted(parts)], bucket.steps, out=mine)
        for peer in bucket.tellers:
            bucket.waits.append(self._peers.send(torch.from_numpy(mine), peer, bucket.gather_tag))
        for peer in bucket.others:
            theirs = torch.from_numpy(self._out[bucket.parts[peer]])
            bucket.waits.append(self._peers.receive(theirs, peer, bucket.gather_tag))
        return bucket

    def gather(self, bucket: _Bucket) -> None:
        bucket.wait()


class _Coded:
    """Buckets that travel as changes from ``start``, in fewer bits."""

    def __init__(
        self,
        peers: Peers,
        vector: Vector,
        start: Vector,
        out: Vector,
        codec: Codec,
        changes: dict[tuple[int, int], Changes],
    ) -> None:
        self._peers, self._vector, self._start, self._out = peers, vector, start, out
        self._codec, self._changes = codec, changes

    def scatter(self, bucket: _Bucket) -> None:
        for peer in bucket.others:
            part = bucket.parts[peer]
            data = self._encoded(part, self._vector[part] - self._start[part])
            bucket.kept.append(data)
            bucket.waits.append(self._peers.send(data, peer, bucket.scatter_tag))
        for peer in bucket.tellers:
            room = bucket.arrivals[peer] = self._room(bucket.mine)
            bucket.waits.append(self._peers.receive(room, peer, bucket.scatter_tag))

    def reduce(self, bucket: _Bucket) -> _Bucket:
        bucket.wait()
        if bucket.tellers:
            length = bucket.mine.stop - bucket.mine.start
            parts = {peer: self._codec.decode(data.numpy(), length) for peer, data in bucket.arrivals.items()}
            parts[bucket.rank] = self._vector[bucket.mine] - self._start[bucket.mine]
            mean = self._encoded(bucket.mine, mean_of([parts[peer] for peer in sorted(parts)], bucket.steps))
            self._settle(bucket.mine, mean)
            bucket.kept.append(mean)
            for peer in bucket.tellers:
                bucket.waits.append(self._peers.send(mean, peer, bucket.gather_tag))
        for peer in bucket.others:
            room = bucket.arrivals[peer] = self._room(bucket.parts[peer])
            bucket.waits.append(self._peers.receive(room, peer, bucket.gather_tag))
        return bucket

    def gather(self, bucket: _Bucket) -> None:
        bucket.wait()
        for peer in bucket.others:
            self._settle(bucket.parts[peer], bucket.arrivals[peer])

    def _encoded(self, part: slice, change: Vector) -> torch.Tensor:
        if self._codec.name != "int8":
            return torch.from_numpy(self._codec.encode(change))
        key = part.start, part.stop
        if key not in self._changes:
            self._changes[key] = Changes(self._codec)
        return torch.from_numpy(self._changes[key].encode(change))

    def _settle(self, part: slice, change: torch.Tensor) -> None:
        """All members make the same of the same bytes."""
        data: Bytes = change.numpy()
        np.add(self._start[part], self._codec.decode(data, part.stop - part.start), out=self._out[part])

    def _room(self, part: slice) -> torch.Tensor:
        return torch.empty(self._codec.size(part.stop - part.start), dtype=torch.uint8)
