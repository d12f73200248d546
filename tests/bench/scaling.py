"""A net that computes next to nothing: what its training costs is the engine's."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import torch

from sparknet.data import Transform
from sparknet.data.dataset import Batch
from sparknet.merge import Statistics
from sparknet.weights import Layout
from sparknet.worker import Recipe


class Scaling:
    """A replica whose step is one pass over its weights, float32 (size,), and ``rest`` seconds of sleep."""

    batches_per_step, iteration, lr = 1, 0, 1.0
    statistics: Sequence[Statistics] = ()

    def __init__(self, size: int, rest: float = 0.0) -> None:
        torch.set_num_threads(1)
        self._rest = rest
        self.layout, self.weights = Layout.of({"w": (size,)}), torch.ones(size)

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        next(batches)
        self.weights.mul_(0.999)
        time.sleep(self._rest)
        self.iteration += 1
        return self.weights[0].clone()

    def score(self, batch: Batch) -> dict[str, float]:
        return {"loss": 0.0}

    def history(self) -> torch.Tensor:
        return torch.empty(0)

    def restore_history(self, history: torch.Tensor) -> None:
        """There is none."""


def recipe(size: int, rest: float = 0.0) -> Recipe:
    return Recipe(replica=lambda: Scaling(size, rest), batch_size=1, transform=Transform())
