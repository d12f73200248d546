"""A net that adds a known number to each weight in every step, and records that say which they are."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from sparknet.data import Examples, Transform
from sparknet.gradients import OnFinal
from sparknet.merge import Statistics
from sparknet.replica import Batch
from sparknet.weights import Layout, Vector
from sparknet.worker import Recipe
from tests.sparknet.distributed.faults.strikes import come_to

SIZE = 515
"""Weights: two blocks of int8 and a bit."""

RECORDS, TEST_RECORDS, BATCH = 24, 30, 4
_SHARD = 1000


def increment(member: int, iteration: int, shard: int) -> Vector:
    """What the net of a worker adds in its ``iteration``-th step, from 0, on a shard; float32 (P,)."""
    rng = np.random.default_rng((member, iteration, shard))
    return (rng.uniform(0.5, 1.0, SIZE) * rng.choice((-1.0, 1.0), SIZE)).astype(np.float32)


class Adding:
    """A replica, of the worker of shard ``member``. Its history counts the steps since it was reset."""

    batches_per_step = 1
    statistics: Sequence[Statistics] = ()
    moving: Sequence[slice] = ()
    trained: Sequence[slice] = (slice(0, SIZE),)
    loss_scale = None
    unused: tuple[int, ...] = ()
    lr = 0.5

    def __init__(self, member: int, pause: float) -> None:
        self.member, self.pause = member, pause
        self.layout = Layout.of({"numbers": (SIZE,)})
        self.weights, self.gradients = torch.zeros(SIZE), torch.zeros(SIZE)
        self.iteration = 0
        self._history = torch.zeros(4)

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        loss = self.compute(batches, lambda _: None)
        self.apply()
        return loss

    def compute(self, batches: Iterator[Batch], on_final: OnFinal) -> torch.Tensor:
        """Something happens to it where half of the gradient has been given."""
        time.sleep(self.pause)
        labels = next(batches)["label"]
        shard = int(labels[0]) // _SHARD
        self.gradients.copy_(torch.from_numpy(increment(self.member, self.iteration, shard)))
        on_final(SIZE // 2)
        come_to("step")
        on_final(0)
        return torch.tensor(1.0)

    def apply(self, unused: Sequence[int] = ()) -> None:
        assert not unused
        self.weights += self.gradients
        self.iteration += 1
        self._history += 1

    def score(self, batch: Batch) -> dict[str, float]:
        """The sum of the records' numbers, and the first weight for each record."""
        come_to("score")
        labels = batch["label"]
        return {"numbers": float(labels.sum()), "weight": float(self.weights[0]) * len(labels)}

    def history(self) -> torch.Tensor:
        return self._history.clone()

    def restore_history(self, history: torch.Tensor) -> None:
        self._history = history.clone() if history.numel() else torch.zeros(4)


class AddingModel:
    """Builds one; pickles."""

    def __init__(self, member: int = 0, pause: float = 0.0) -> None:
        self.member, self.pause = member, pause

    def __call__(self) -> Adding:
        return Adding(self.member, self.pause)


def recipe(member: int, sampling: str, pause: float) -> Recipe:
    return Recipe(
        replica=AddingModel(member, pause),
        batch_size=BATCH,
        transform=Transform(),
        test_batch_size=BATCH,
        sampling=sampling,
        seed=1,
    )


def shard(number: int) -> Examples:
    labels = np.arange(RECORDS) + _SHARD * number
    return Examples(np.zeros((RECORDS, 1, 1, 1), np.uint8), labels)


def test_set() -> Examples:
    return Examples(np.zeros((TEST_RECORDS, 1, 1, 1), np.uint8), np.arange(TEST_RECORDS))
