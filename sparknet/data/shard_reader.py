"""A worker's reader of one shard: its records, its sampler, and how far it has read.

Every worker begins with the reader of its own shard. It has more where there are fewer workers than shards,
and then reads, round by round, in the shard it has read least of: all of them are trained on alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

import torch

from sparknet.data.dataset import Shard
from sparknet.data.feed import Feed, Ready, Transforms
from sparknet.data.shards import Sampler, sampler


class ShardReader:
    """Of shard ``number``, which is ``examples``; ``images`` counts the records read, repeats included."""

    def __init__(self, number: int, examples: Shard, *, sampling: str, batch_size: int, seed: int) -> None:
        self.number, self.examples = number, examples
        self.sampling, self.batch_size, self.seed = sampling, batch_size, seed
        self.images = 0
        self._feed: Feed | None = None

    @property
    def records(self) -> int:
        return len(self.examples)

    @property
    def passes(self) -> float:
        """How often the shard has been read through."""
        return self.images / self.records

    @cached_property
    def sampler(self) -> Sampler:
        return sampler(
            self.sampling,
            records=self.records,
            batch_size=self.batch_size,
            seed=self.seed,
            shard=self.number,
        )

    def batches(
        self,
        transforms: Transforms,
        device: torch.device,
        *,
        steps: int,
        batches_per_step: int,
        worker: int,
        iteration: int,
    ) -> Iterator[Ready]:
        """The batches of a round of ``worker``, whose next step is its ``iteration``-th."""
        self._feed = self._feed or Feed(self.examples, transforms, device)
        return self._feed.round(
            self.sampler,
            steps=steps,
            batches_per_step=batches_per_step,
            seeds=(self.seed, worker),
            first=iteration,
        )


def least_read(readers: Iterable[ShardReader]) -> ShardReader:
    """The reader whose shard has been read least; of equals the one that was added last."""
    return min(reversed(list(readers)), key=lambda reader: reader.passes)
