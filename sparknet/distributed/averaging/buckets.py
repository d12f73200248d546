"""Chunks of the weights on their way among the workers, and what a worker does with each.

scatter   send every other worker its part of mine, begin to receive my part of theirs
reduce    make the mean of my part, send it to all others, begin to receive the means of theirs
gather    have the means of the other parts
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sparknet.codecs import CHUNK, Bytes, Codec, chunks
from sparknet.deltas import DeltaEncoder, apply_delta
from sparknet.merge import squared_distance
from sparknet.weights import Vector, mean_of, squares


class Bucket:
    """Number ``number`` of the buckets, cut into a part for each member. Empty parts do not travel.

    ``turn`` numbers the buffers it may use, which later buckets use again.
    """

    def __init__(self, number: int, turn: int, rank: int, parts: list[slice], steps: Sequence[int]) -> None:
        self.turn, self.rank, self.parts, self.steps = turn, rank, parts, steps
        self.scatter_tag, self.gather_tag = 2 * number, 2 * number + 1
        self.mine = parts[rank]
        others = [peer for peer in range(len(parts)) if peer != rank]
        self.others = [peer for peer in others if parts[peer].stop > parts[peer].start]
        self.tellers = others if self.mine.stop > self.mine.start else []
        self.waits: list[Any] = []

    def wait(self) -> None:
        """Wait until all sends and receives have completed."""
        for wait in self.waits:
            wait.wait()
        self.waits.clear()


def cut(length: int, begins: Sequence[int], turns: int, rank: int, steps: Sequence[int]) -> Iterator[Bucket]:
    """A vector of ``length`` numbers in buckets that begin at ``begins``, for as many members as there are
    ``steps``."""
    for number, (begin, end) in enumerate(pairwise([*begins, length])):
        yield bucket_of(slice(begin, end), number, number % turns, rank, steps)


def bucket_of(whole: slice, number: int, turn: int, rank: int, steps: Sequence[int]) -> Bucket:
    """The bucket of these elements, cut into parts of equal length."""
    size = whole.stop - whole.start
    bounds = [whole.start + size * k // len(steps) for k in range(len(steps) + 1)]
    return Bucket(number, turn, rank, [slice(low, high) for low, high in pairwise(bounds)], steps)


class Transport(Protocol):
    """Sends to the other members and receives from them; what is sent must stay as it is until the answer's
    ``wait()`` is over.
    """

    def send(self, data: NDArray[Any], peer: int, tag: int) -> Any: ...

    def receive(self, data: NDArray[Any], peer: int, tag: int) -> Any: ...


class BufferPool:
    """Buffers by name, used again and again: their pages have been touched already."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[object, ...], Bytes] = {}

    def bytes(self, size: int, *name: object) -> Bytes:
        """``size`` bytes under this name."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[name] = np.empty(size, np.uint8)
        return buffer[:size]

    def numbers(self, length: int, *name: object) -> Vector:
        """float32 (length,)"""
        return self.bytes(4 * length, *name).view(np.float32)


class PlainBuckets:
    """Buckets that travel as they are. The mean of all members' vectors goes to ``out``; float32 (P,).

    ``moved`` is the sum of the squares of ``vector - start`` over the parts so far.
    """

    def __init__(
        self, transport: Transport, pool: BufferPool, vector: Vector, start: Vector | None, out: Vector
    ) -> None:
        self._transport, self._pool = transport, pool
        self._vector, self._start, self._out = vector, start, out
        self.moved = 0.0

    def scatter(self, bucket: Bucket) -> Bucket:
        for peer in bucket.others:
            part = bucket.parts[peer]
            bucket.waits.append(self._transport.send(self._vector[part], peer, bucket.scatter_tag))
        for peer in bucket.tellers:
            bucket.waits.append(self._transport.receive(self._theirs(bucket, peer), peer, bucket.scatter_tag))
        if self._start is not None:  # while they are on their way
            whole = slice(bucket.parts[0].start, bucket.parts[-1].stop)
            self.moved += squared_distance(self._start[whole], self._vector[whole])
        return bucket

    def reduce(self, bucket: Bucket) -> Bucket:
        bucket.wait()
        mine = self._out[bucket.mine]
        if bucket.tellers:
            parts = {peer: self._theirs(bucket, peer) for peer in bucket.tellers}
            parts[bucket.rank] = self._vector[bucket.mine]
            mean_of([parts[peer] for peer in sorted(parts)], bucket.steps, out=mine)
        for peer in bucket.tellers:
            bucket.waits.append(self._transport.send(mine, peer, bucket.gather_tag))
        for peer in bucket.others:
            theirs = self._out[bucket.parts[peer]]
            bucket.waits.append(self._transport.receive(theirs, peer, bucket.gather_tag))
        return bucket

    def gather(self, bucket: Bucket) -> None:
        bucket.wait()

    def _theirs(self, bucket: Bucket, peer: int) -> Vector:
        return self._pool.numbers(bucket.mine.stop - bucket.mine.start, "theirs", bucket.turn, peer)


class CompressedBuckets:
    """Buckets that travel as deltas from ``start``, in fewer bits; vectors are float32 (P,).

    ``encoders`` keep what rounding took away in earlier rounds, by part; ``moved`` is as in ``PlainBuckets``.
    """

    def __init__(
        self,
        transport: Transport,
        pool: BufferPool,
        vector: Vector,
        start: Vector,
        out: Vector,
        codec: Codec,
        encoders: dict[tuple[int, int], DeltaEncoder],
    ) -> None:
        self._transport, self._pool, self._codec, self._encoders = transport, pool, codec, encoders
        self._vector, self._start, self._out = vector, start, out
        self.moved = 0.0

    def scatter(self, bucket: Bucket) -> Bucket:
        for peer in bucket.others:
            part, delta = bucket.parts[peer], self._part(bucket, peer)
            self.moved += self._encoder(part).encode(self._vector[part], self._start[part], delta)
            bucket.waits.append(self._transport.send(delta, peer, bucket.scatter_tag))
        for peer in bucket.tellers:
            bucket.waits.append(self._transport.receive(self._theirs(bucket, peer), peer, bucket.scatter_tag))
        return bucket

    def reduce(self, bucket: Bucket) -> Bucket:
        bucket.wait()
        if bucket.tellers:
            mean = self._mean(bucket)
            for peer in bucket.tellers:
                bucket.waits.append(self._transport.send(mean, peer, bucket.gather_tag))
        for peer in bucket.others:  # into the buffer of my delta
            bucket.waits.append(self._transport.receive(self._part(bucket, peer), peer, bucket.gather_tag))
        if bucket.tellers:
            self._settle(bucket, bucket.rank)
        return bucket

    def gather(self, bucket: Bucket) -> None:
        bucket.wait()
        for peer in bucket.others:
            self._settle(bucket, peer)

    def _mean(self, bucket: Bucket) -> Bytes:
        """The mean delta of my part, uint8 (bytes,), as the others are sent it."""
        part, mean = bucket.mine, self._part(bucket, bucket.rank)
        encoder, vector, start = self._encoder(part), self._vector[part], self._start[part]
        theirs = {peer: self._theirs(bucket, peer) for peer in bucket.tellers}
        for where, at in chunks(self._codec, vector.size):
            length = where.stop - where.start
            parts = [self._pool.numbers(CHUNK, "part", peer)[:length] for peer in range(len(bucket.parts))]
            for peer, data in theirs.items():
                self._codec.read(data[at], parts[peer])
            self.moved += squares(np.subtract(vector[where], start[where], out=parts[bucket.rank]))
            encoder.write(where, mean_of(parts, bucket.steps, out=parts[0]), mean[at])
        return mean

    def _settle(self, bucket: Bucket, peer: int) -> None:
        """Apply the mean delta to the start: the same bytes give all members the same numbers."""
        part = bucket.parts[peer]
        apply_delta(self._codec, self._part(bucket, peer), self._start[part], self._out[part])

    def _encoder(self, part: slice) -> DeltaEncoder:
        key = part.start, part.stop
        if key not in self._encoders:
            length = part.stop - part.start
            self._encoders[key] = DeltaEncoder(self._codec, length, feedback=self._codec.keeps_residual)
        return self._encoders[key]

    def _part(self, bucket: Bucket, peer: int) -> Bytes:
        """Where the delta of this peer's part is: mine to it, later the mean."""
        part = bucket.parts[peer]
        return self._pool.bytes(self._codec.size(part.stop - part.start), "delta", bucket.turn, peer)

    def _theirs(self, bucket: Bucket, peer: int) -> Bytes:
        size = self._codec.size(bucket.mine.stop - bucket.mine.start)
        return self._pool.bytes(size, "theirs", bucket.turn, peer)
