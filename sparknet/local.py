"""All workers in this process, one after the other: the reference for every other ``Workers``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from sparknet.data import Examples
from sparknet.errors import DataError, WorkersLost
from sparknet.training import Gathered, Order, Scores
from sparknet.weights import Vector, mean_of
from sparknet.worker import Recipe


class LocalWorkers:
    """One worker for each shard; ``test`` is the test set, needed only for testing."""

    def __init__(self, recipe: Recipe, shards: Sequence[Examples], test: Examples | None = None) -> None:
        self.recipe, self.examples = recipe, test
        self.workers = [recipe.worker(number, shard) for number, shard in enumerate(shards)]
        if not any(len(worker.shard) for worker in self.workers):
            raise WorkersLost("no worker has records to train on: every shard is empty")

    def __enter__(self) -> LocalWorkers:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def initial_weights(self) -> Vector:
        return self.workers[0].vector.copy()

    def train(self, weights: Vector, order: Order) -> Gathered:
        started = time.perf_counter()
        busy = [worker for worker in self.workers if len(worker.shard)]
        reports = tuple(worker.train(weights, order) for worker in busy)
        mean = mean_of([worker.vector for worker in busy], [report.steps for report in reports])
        return Gathered(mean=mean, reports=reports, seconds=time.perf_counter() - started)

    def test(self, weights: Vector) -> Scores:
        if self.examples is None:
            raise DataError("there is no test set: give one, or set test_every to 0")
        worker, examples = self.workers[0], self.examples
        parts = (worker.test(weights, examples[part]) for part in self.recipe.slices(len(examples)))
        return sum(parts, Scores())

    def close(self) -> None:
        self.workers.clear()
