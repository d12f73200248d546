"""Averaging among the workers themselves: each makes the mean of a part of the weights and sends it to all.

In a star K vectors go into the driver and K come out of it, in every round. Here 2 (K - 1) / K vectors go in
and out of each worker, whatever K is, and none to the driver:

    1  every worker sends part j of its weights to worker j, for all j
    2  worker j makes the mean of what it has of part j, in float32 and in the order of the workers
    3  ... and sends it to all the others

It is done bucket by bucket, so that one is on its way while another is averaged. The bytes of both steps are
those of a ring, and the mean is the star's, bit for bit. With a wire format of fewer bits both steps carry
deltas from the round's start; a codec that keeps its residual adds what rounding took away to the next delta.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sparknet.codecs import Codec
from sparknet.deltas import DeltaEncoder
from sparknet.distributed.averaging.buckets import (
    Bucket,
    BufferPool,
    CompressedBuckets,
    PlainBuckets,
    bucket_of,
    cut,
)
from sparknet.distributed.averaging.pipeline import delayed
from sparknet.distributed.averaging.rendezvous import Rendezvous
from sparknet.distributed.comm.spread import AT_ONCE, Spread
from sparknet.merge import Statistics, distance, norm
from sparknet.weights import Vector

# Numbers in a bucket: enough that waking threads costs little, few enough that some buckets overlap.
_SMALLEST_BUCKET, _LARGEST_BUCKET = 1 << 18, 1 << 22
_BUCKETS = 16
# Where links are slow the second step of a bucket must not wait for the first of a large one.
_LEAST_BUCKET = 1 << 13
# Buckets on their way in each of the steps; all of them where links are slow, for these may be long as well.
_DEPTH, _SLOW_DEPTH = 2, _BUCKETS
# Of a message that nobody sends.
_UNUSED_TAG = (1 << 31) - 1


class Making(Protocol):
    """A vector that comes into being part by part."""

    def is_final(self, number: int, /) -> bool: ...

    def wait_for(self, number: int, /) -> None:
        """Raises RuntimeError if part ``number`` will not come."""
        ...


class HostAllReduce:
    """One worker's part in all-reduces with others, whom it finds by the ``rendezvous``.

    ``sent`` counts the bytes of weights that went to them. It is not the average that has a deadline but each
    part of it, by the ``rendezvous``; ``moves`` is called when one has been sent or received.
    """

    def __init__(
        self, rendezvous: Rendezvous, codec: Codec, moves: Callable[[], None] = lambda: None
    ) -> None:
        self._rendezvous, self._codec, self._moves = rendezvous, codec, moves
        self._group: Any = None
        self._key = ""
        self._encoders: dict[tuple[int, int], DeltaEncoder] = {}
        self._pool = BufferPool()
        self.sent = 0

    def join(self, key: str, rank: int, size: int) -> None:
        """Be number ``rank`` of ``size`` members of group ``key``. Raises RuntimeError if one is missing."""
        if self._group is None or key != self._key:
            self._group = None  # leave the old group first
            self._encoders.clear()
            self._pool = BufferPool()  # the old ones may still be written to
            self._group, self._key = self._rendezvous.gloo(key, rank, size), key

    def leave(self) -> None:
        """Give up the group: what is under way in it, here and at the others, fails at once.

        Gloo's own abort wakes nobody. A wait that is too late does: it closes all connections of the group.
        """
        group, self._group = self._group, None
        if group is not None:
            other = (group.rank() + 1) % group.size()
            with suppress(RuntimeError):
                group.recv([torch.empty(1)], other, _UNUSED_TAG).wait(timedelta(milliseconds=1))

    def forget(self) -> None:
        """Drop what rounding took away in earlier rounds."""
        self._encoders.clear()

    def average(
        self,
        vector: Vector,
        start: Vector | None,
        steps: Sequence[int],
        rank: int,
        out: Vector,
        spread: Spread = AT_ONCE,
        *,
        slow: bool = False,
    ) -> float:
        """Write to ``out`` the mean of the members' vectors, float32 (P,), each counted by its steps.

        ``start`` is what all of them began from; without it the vectors themselves travel, as float32.
        Returns how far ``vector`` is from ``start``, by ``distance``; 0 without. Raises RuntimeError if a
        member is gone: ``vector`` is as it was, and a group of the others can do it again. ``spread`` is how
        long the vector may take; ``slow`` says that links are, which changes no bit.
        """
        if len(steps) == 1:
            np.copyto(out, vector)
            return 0.0 if start is None else distance(start, vector)
        buckets = self._buckets(vector, start, out)
        # rounding depends on where buckets are cut: not on how fast a link was
        slow = slow and isinstance(buckets, PlainBuckets)
        begins = spread.cut(out.size, bucket_numbers(out.size, slow=slow))
        depth = _SLOW_DEPTH if slow else _DEPTH
        # in both steps as many can be under way at once, each in buffers of its own
        cuts = spread.paced(cut(out.size, begins, 2 * depth, rank, steps), len(begins))
        scattered = delayed(map(buckets.scatter, cuts), depth)
        for bucket in delayed(map(buckets.reduce, scattered), depth + 1):
            buckets.gather(bucket)
        return norm(buckets.moved)

    def follow(
        self,
        vector: Vector,
        start: Vector | None,
        parts: Sequence[slice],
        steps: Sequence[int],
        rank: int,
        out: Vector,
        made: Making,
    ) -> None:
        """As ``average``, of a vector that is still being ``made``, part by part, each a bucket.

        Nothing is waited for from the others as long as there is something to send to them.
        """
        buckets = self._buckets(vector, start, out)
        scattered, reduced = deque[Bucket](), list[Bucket]()
        for number, part in enumerate(parts):
            while scattered and not made.is_final(number):
                reduced.append(buckets.reduce(scattered.popleft()))
            made.wait_for(number)
            scattered.append(buckets.scatter(bucket_of(part, number, number, rank, steps)))
        reduced += map(buckets.reduce, scattered)
        for bucket in reduced:
            buckets.gather(bucket)

    def widen(self, statistics: Sequence[Statistics], vector: Vector, steps: int, mean: Vector) -> None:
        """Add the spread of the members' running means to the variances in ``mean``."""
        for statistic in statistics:
            weight, spread = statistic.spread(mean, vector, steps)
            sums = torch.from_numpy(np.append(weight * spread, weight))
            if self._group is not None:
                self._group.allreduce([sums]).wait()
            statistic.widen(mean, sums[:-1].numpy(), float(sums[-1]))

    def send(self, data: NDArray[Any], peer: int, tag: int) -> Transfer:
        self.sent += data.nbytes
        what = f"worker {peer} of the group did not take {data.nbytes:,} bytes"
        return self._transfer(self._group.send([torch.from_numpy(data)], peer, tag), what)

    def receive(self, data: NDArray[Any], peer: int, tag: int) -> Transfer:
        what = f"worker {peer} of the group did not send {data.nbytes:,} bytes"
        return self._transfer(self._group.recv([torch.from_numpy(data)], peer, tag), what)

    def _transfer(self, work: Any, what: str) -> Transfer:
        return Transfer(work, f"{what} within {self._rendezvous.seconds:g} s", self._moves)

    def _buckets(self, vector: Vector, start: Vector | None, out: Vector) -> PlainBuckets | CompressedBuckets:
        if start is None or self._codec.is_lossless:
            return PlainBuckets(self, self._pool, vector, start, out)
        return CompressedBuckets(self, self._pool, vector, start, out, self._codec, self._encoders)


@dataclass(frozen=True)
class Transfer:
    """A part under way: ``work`` of gloo, what to say when it is ``late``, and who hears that it is over."""

    work: Any
    late: str
    moves: Callable[[], None]

    def wait(self) -> None:
        """Raises RuntimeError if it fails, or takes too long."""
        try:
            self.work.wait()
        except RuntimeError as error:
            if "Timed out" not in str(error):
                raise
            raise RuntimeError(self.late) from error
        self.moves()


def bucket_numbers(length: int, *, slow: bool = False) -> int:
    """Numbers in each bucket of a vector; fewer where links are ``slow``."""
    least = _LEAST_BUCKET if slow else _SMALLEST_BUCKET
    return min(max(length // _BUCKETS, least), _LARGEST_BUCKET)
