"""A worker: one replica of a net, the shard it learns from, and the order it reads it in.

    Recipe ── builds ──> Worker ── drives ──> Replica     a net and its optimiser: Caffe's, or any nn.Module
                           └── reads ───────> Examples    its shard, through a sampler and a transform

A recipe is what travels to an executor; workers never do. Every random number a worker draws is a function
of (seed, shard, step): where a worker runs, and after whom, changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from sparknet.data import Examples, Sampler, Transform, sampler
from sparknet.errors import DataError, ModelError, UsageError
from sparknet.replica import Batch, Replica
from sparknet.training import Order, Report, Scores, WorkerState
from sparknet.weights import Vector

# Test slices handed out at most: enough to share out evenly, few enough that handing out costs nothing.
_SLICES = 64


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to build workers that differ in their shard alone; must pickle if it is to go to a cluster.

    ``replica`` builds the net and its optimiser; it is called with torch seeded by ``seed``, so all start
    alike.
    """

    replica: Callable[[], Replica]
    batch_size: int
    transform: Transform
    test_batch_size: int = 0
    test_transform: Transform | None = None
    sampling: str = "window"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"the batch size is {self.batch_size}: at least 1 is needed")

    def build(self) -> Replica:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self.replica()

    def worker(self, number: int, shard: Examples) -> Worker:
        """The worker of shard ``number``; one without records can only test."""
        return Worker(self.build(), shard, self, number)

    def slices(self, records: int) -> list[slice]:
        """Cut a test set into whole test batches, the same whoever scores them."""
        batch = self.test_batch_size or self.batch_size
        size = batch * max(1, -(-records // (batch * _SLICES)))
        return [slice(start, min(start + size, records)) for start in range(0, records, size)]


class Worker:
    """Trains and tests one replica.

    ``vector`` float32 (P,) is where weights arrive and leave: the net's own memory on a CPU, a staging copy
    of it on a GPU. Whoever receives weights from elsewhere writes them there and passes it to ``train`` or
    ``test``.
    """

    def __init__(self, replica: Replica, shard: Examples, recipe: Recipe, number: int = 0) -> None:
        self.replica, self.shard, self.recipe, self.number = replica, shard, recipe, number
        self._draws = np.random.default_rng(recipe.seed)

    @cached_property
    def sampler(self) -> Sampler:
        return sampler(
            self.recipe.sampling,
            records=len(self.shard),
            batch_size=self.recipe.batch_size,
            seed=self.recipe.seed,
            shard=self.number,
        )

    @cached_property
    def vector(self) -> Vector:
        # on a CPU neither cpu() nor numpy() copies
        vector: Vector = self.replica.weights.detach().cpu().numpy()
        return vector

    def train(self, weights: Vector, order: Order) -> Report:
        """``order.tau`` steps from ``weights``, fewer if the time cap comes first, never less than one.

        Afterwards ``vector`` holds the new weights.
        """
        if not len(self.shard):
            raise DataError(f"worker {self.number} has no records to train on: use fewer workers")
        started = time.perf_counter()
        self._load(weights)
        if order.momentum == "reset":
            self.replica.restore_history(torch.empty(0))
        with _own_random_numbers():
            losses = list(self._steps(order, started))
        loss = float(torch.stack(losses).mean())
        self._store()
        return Report(
            member=self.number,
            steps=len(losses),
            images=len(losses) * self.replica.batches_per_step * self.recipe.batch_size,
            loss=loss,
            lr=self.replica.lr,
            iteration=self.replica.iteration,
            position=self.sampler.position,
            seconds=time.perf_counter() - started,
        )

    def test(self, weights: Vector, examples: Examples) -> Scores:
        """Sums of the scores over ``examples``, every record once, the last batch as short as it is."""
        self._load(weights)
        batch = self.recipe.test_batch_size or self.recipe.batch_size
        with torch.no_grad(), _own_random_numbers():
            scores = (
                self._score(examples[start : start + batch]) for start in range(0, len(examples), batch)
            )
            return sum(scores, Scores())

    @property
    def state(self) -> WorkerState:
        """All that another worker of this shard would need to go on, besides the weights."""
        return WorkerState(
            iteration=self.replica.iteration,
            position=self.sampler.position,
            history=self.replica.history().cpu().numpy(),
        )

    def restore(self, state: WorkerState) -> None:
        """Go on where another worker of this shard was."""
        self.replica.iteration, self.sampler.position = state.iteration, state.position
        if state.history is not None:
            self.restore_history(state.history)

    def restore_history(self, history: Vector) -> None:
        """Give the solver another memory, float32 (H,). Raises ModelError if it is another solver's."""
        due = self.replica.history().numel()
        if history.size != due:
            raise ModelError(f"a history of {history.size:,} numbers is given to a solver that has {due:,}")
        self.replica.restore_history(torch.from_numpy(history.copy()))

    def _steps(self, order: Order, started: float) -> Iterator[torch.Tensor]:
        batches = self._batches(order.tau * self.replica.batches_per_step)
        for step in range(order.tau):
            if step and order.time_cap_seconds and time.perf_counter() - started >= order.time_cap_seconds:
                return
            self._draws = np.random.default_rng([self.recipe.seed, self.number, self.replica.iteration])
            torch.manual_seed(int(self._draws.integers(1 << 62)))
            yield self.replica.step(batches).detach()

    def _batches(self, count: int) -> Iterator[Batch]:
        transform = self.recipe.transform
        for indices in self.sampler.batches(count):
            examples = self.shard[indices]
            images = torch.from_numpy(examples.images).to(self.replica.weights.device)
            yield self._batch(transform(images, train=True, rng=self._draws), examples)

    def _score(self, examples: Examples) -> Scores:
        transform = self.recipe.test_transform or self.recipe.transform
        images = torch.from_numpy(examples.images).to(self.replica.weights.device)
        data = transform(images, train=False, rng=np.random.default_rng(self.recipe.seed))
        return Scores(records=len(examples), sums=self.replica.score(self._batch(data, examples)))

    def _batch(self, data: torch.Tensor, examples: Examples) -> Batch:
        return {"data": data, "label": torch.from_numpy(examples.labels).to(data.device)}

    def _load(self, weights: Vector) -> None:
        if weights is not self.vector:
            self.replica.layout.check(weights.size)
            np.copyto(self.vector, weights)
        if self.replica.weights.device.type != "cpu":
            self.replica.weights.copy_(torch.from_numpy(self.vector))

    def _store(self) -> None:
        if self.replica.weights.device.type != "cpu":
            torch.from_numpy(self.vector).copy_(self.replica.weights)


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Leave torch's generator as it was found."""
    state = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(state)
