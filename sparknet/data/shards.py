"""Which records a worker owns, and in which order it reads them.

A training set is cut into K contiguous shards. A worker reads its shard through a sampler, a batch at a time:

    window       SparkNet's: each round starts at a random record and reads tau batches from there on
                 (arXiv 1511.06051; the apps of the original draw the start this way)
    epoch        each record exactly once an epoch, in an order drawn anew for every epoch
    replacement  each record of each batch drawn uniformly

A sampler's whole state is its seed and one whole number, ``position``. Every draw is a function of the two,
so a worker that takes over a shard and is given the position reads on exactly where the lost one would have.
All of them also serve shards smaller than a batch or a window: they wrap around.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Protocol

import numpy as np

from sparknet.data.dataset import Indices, Selection
from sparknet.errors import DataError, UsageError


def contiguous(count: int, workers: int) -> list[slice]:
    """Cut ``count`` records into ``workers`` slices whose lengths differ by one at most.

    Raises DataError when there are fewer records than workers.

    >>> contiguous(10, 3)
    [slice(0, 4, None), slice(4, 7, None), slice(7, 10, None)]
    """
    if workers < 1:
        raise UsageError(f"{workers} workers: at least 1 is needed")
    if count < workers:
        raise DataError(f"{count} records cannot be shared out among {workers} workers: use fewer workers")
    length, longer = divmod(count, workers)
    edges = [k * length + min(k, longer) for k in range(workers + 1)]
    return [slice(start, stop) for start, stop in pairwise(edges)]


class Sampler(Protocol):
    """Chooses among the ``records`` of a shard; see the module for the three there are."""

    records: int
    position: int

    def batches(self, tau: int) -> Iterator[Selection]:
        """The batches of one round, batch_size records each; reading fewer than ``tau`` is allowed.

        Records that lie side by side come as a slice, others as int64 (batch_size,). ``position`` moves on
        as batches are taken, so a round cut short loses no records of an epoch.
        """
        ...


class _Draws:
    """A shard's size, the batch size, and a generator for every (seed, shard, position)."""

    def __init__(self, records: int, batch_size: int, seed: int, shard: int = 0) -> None:
        if records < 1:
            raise DataError(f"shard {shard} has no records: use fewer workers")
        if batch_size < 1:
            raise UsageError(f"a batch of {batch_size} records: at least 1 is needed")
        self.records, self.batch_size = records, batch_size
        self.seed, self.shard = seed, shard
        self.position = 0

    def _generator(self, draw: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.shard, draw])


class Window(_Draws):
    """``position`` counts rounds. The start is uniform over 0 to records - tau * batch_size, both included.

    A shard that is no longer than the window is read from a uniform start, round and round.
    """

    def batches(self, tau: int) -> Iterator[Selection]:
        start = self._start(tau * self.batch_size)
        self.position += 1
        for step in range(tau):
            yield self._records(start + step * self.batch_size)

    def _records(self, start: int) -> Selection:
        start %= self.records
        stop = start + self.batch_size
        return slice(start, stop) if stop <= self.records else np.arange(start, stop) % self.records

    def _start(self, length: int) -> int:
        starts = self.records - length + 1 if self.records > length else self.records
        return int(self._generator(self.position).integers(starts))


class Epoch(_Draws):
    """``position`` counts records. A batch at the end of an epoch is filled from the next one."""

    def __init__(self, records: int, batch_size: int, seed: int, shard: int = 0) -> None:
        super().__init__(records, batch_size, seed, shard)
        self._orders: dict[int, Indices] = {}

    def batches(self, tau: int) -> Iterator[Selection]:
        for _ in range(tau):
            start, self.position = self.position, self.position + self.batch_size
            yield self._records(start, self.position)

    def _records(self, start: int, stop: int) -> Indices:
        first, last = start // self.records, (stop - 1) // self.records
        # only the epochs that this batch touches are kept: one, or two where it spans the border
        self._orders = {epoch: self._order(epoch) for epoch in range(first, last + 1)}
        orders = np.concatenate([*self._orders.values()]) if last > first else self._orders[first]
        return orders[start - first * self.records : stop - first * self.records]

    def _order(self, epoch: int) -> Indices:
        kept = self._orders.get(epoch)
        return self._generator(epoch).permutation(self.records) if kept is None else kept


class Replacement(_Draws):
    """``position`` counts batches."""

    def batches(self, tau: int) -> Iterator[Selection]:
        for _ in range(tau):
            draw, self.position = self.position, self.position + 1
            yield self._generator(draw).integers(self.records, size=self.batch_size)


SAMPLERS: dict[str, type[Window] | type[Epoch] | type[Replacement]] = {
    "window": Window,
    "epoch": Epoch,
    "replacement": Replacement,
}


def check_sampling(name: str) -> None:
    """Raise UsageError for a name that no sampler has."""
    if name not in SAMPLERS:
        raise UsageError(f"sampling {name!r} is not one of {', '.join(SAMPLERS)}")


def sampler(name: str, *, records: int, batch_size: int, seed: int = 0, shard: int = 0) -> Sampler:
    """The sampler called ``name`` for shard number ``shard`` of ``records`` records.

    Under one ``seed``, shards with different numbers draw independently. Raises UsageError for another name.
    """
    check_sampling(name)
    return SAMPLERS[name](records, batch_size, seed, shard)
