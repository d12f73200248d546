"""A worker with several shards reads all of its shards, each in its own order, and tests each record once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from sparknet.data import Examples, sampler
from sparknet.data.dataset import Batch
from sparknet.replica import TorchReplica
from sparknet.training import RoundPlan
from sparknet.worker import Worker
from tests.sparknet.small import momentum_sgd, small_net, small_recipe


class Notes(TorchReplica):
    """Notes which records it is given; records are told apart by their first pixel."""

    def __init__(self) -> None:
        super().__init__(small_net(), momentum_sgd)
        self.read: list[int] = []

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        batch = next(batches)
        self.read.extend((batch["data"][:, 0, 0, 0] * 256).round().int().tolist())
        return super().step(iter([batch]))


def numbered(first: int, count: int) -> Examples:
    images = np.zeros((count, 1, 4, 4), np.uint8)
    images[:, 0, 0, 0] = np.arange(first, first + count)
    return Examples(images, np.zeros(count, np.int64))


def noting(shard: Examples, number: int = 0) -> tuple[Worker, Notes]:
    replica = Notes()
    return small_recipe(replica=lambda: replica).worker(number, shard), replica


def test_two_shards_are_read_in_turn_and_every_record_once_an_epoch() -> None:
    worker, replica = noting(numbered(0, 60))
    worker.add_shard(1, numbered(100, 60))
    reports = [worker.train(worker.vector, RoundPlan(tau=2)) for _ in range(6)]
    assert [report.read for report in reports] == [1, 0, 1, 0, 1, 0]
    assert [report.position for report in reports] == [20, 20, 40, 40, 60, 60]
    assert Counter(replica.read) == Counter([*range(60), *range(100, 160)])


def test_shards_of_different_sizes_are_passed_through_equally_often() -> None:
    worker, _ = noting(numbered(0, 40))
    worker.add_shard(1, numbered(100, 120))
    reports = [worker.train(worker.vector, RoundPlan(tau=1)) for _ in range(48)]
    read = Counter(report.read for report in reports)
    assert read == {0: 12, 1: 36}


def test_a_shard_that_is_taken_up_goes_on_where_it_was_and_is_next_in_turn() -> None:
    worker, replica = noting(numbered(0, 60))
    for _ in range(5):
        worker.train(worker.vector, RoundPlan(tau=4))
    worker.add_shard(7, numbered(100, 60), position=30)
    before = len(replica.read)
    report = worker.train(worker.vector, RoundPlan(tau=3))
    assert (report.read, report.position) == (7, 60)
    expected = sampler("epoch", records=60, batch_size=10, seed=3, shard=7)
    expected.position = 30
    order = np.concatenate([np.arange(100, 160)[batch] for batch in expected.batches(3)])
    assert replica.read[before:] == order.tolist()


def test_a_shard_that_is_dropped_is_read_no_more() -> None:
    worker, replica = noting(numbered(0, 60))
    worker.add_shard(1, numbered(100, 60))
    worker.train(worker.vector, RoundPlan(tau=1))
    worker.train(worker.vector, RoundPlan(tau=1))
    assert worker.positions == {0: 10, 1: 10}
    worker.drop_shard(1)
    replica.read.clear()
    worker.train(worker.vector, RoundPlan(tau=3))
    assert max(replica.read) < 60
    assert worker.records == 60


def test_a_shard_without_records_is_left_out() -> None:
    worker, _ = noting(numbered(0, 0))
    assert not worker.readers
    worker.add_shard(3, numbered(0, 10))
    assert worker.records == 10


@pytest.mark.parametrize("batch", [1, 7, 64, 100], ids=["ones", "uneven", "whole", "larger than the set"])
def test_scores_are_exact_means_over_every_record(batch: int) -> None:
    """Against one pass over the whole set, where the last batch is not a full one."""
    rng = np.random.default_rng(0)
    test = Examples(rng.integers(256, size=(64, 1, 4, 4), dtype=np.uint8), rng.integers(3, size=64))
    worker = small_recipe(test_batch_size=batch).worker(0, numbered(0, 10))
    scores = worker.test(worker.vector, test)
    with torch.no_grad():
        output = worker.replica.module(torch.from_numpy(test.images) / 256)  # type: ignore[attr-defined]
        label = torch.from_numpy(test.labels)
        loss = float(torch.nn.functional.cross_entropy(output.double(), label))
    assert scores.records == 64
    assert scores.means["loss"] == pytest.approx(loss, rel=1e-5)
    assert scores.means["accuracy"] == float((output.argmax(1) == label).double().mean())


def test_deterministic_recipes_make_torch_so() -> None:
    try:
        small_recipe(deterministic=True).build()
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
    small_recipe().build()
    assert not torch.are_deterministic_algorithms_enabled()
