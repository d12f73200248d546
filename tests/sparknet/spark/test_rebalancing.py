"""Rebalancing on a real Spark: fewer slots than shards, a machine gone for good, and one that returns."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession

from sparknet.data import Examples
from sparknet.data.dataset import Batch
from sparknet.replica import TorchReplica
from sparknet.spark.frames import frame_of, from_examples
from sparknet.spark.workers import SparkWorkers
from sparknet.training import Round, Settings, train
from tests.sparknet.small import momentum_sgd, pictures, small_net, small_recipe
from tests.sparknet.spark.test_workers import DEADLINES, nothing_is_left, slow_replica

pytestmark = [
    pytest.mark.slow,
    pytest.mark.spark,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]

TEST = pictures(70, seed=1)
SHARDS, SHARD = 5, 48
IMPATIENT = replace(DEADLINES, lease=3.0, join=300, round=120)


class Recording(TorchReplica):
    """Writes down which records it is given; their first pixel and their shape tell them apart."""

    def __init__(self, folder: Path) -> None:
        super().__init__(small_net(), momentum_sgd)
        self.folder = folder

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        batch = next(batches)
        numbers = (batch["data"][:, 0, 0, :2] * 256).round().int()
        with (self.folder / str(os.getpid())).open("a") as log:
            log.writelines(f"{int(high) * 256 + int(low)}\n" for high, low in numbers)
        return super().step(iter([batch]))


def recorded(folder: Path) -> Counter[int]:
    return Counter(int(line) for path in folder.iterdir() for line in path.read_text().split())


def numbered(count: int) -> Examples:
    """Each record holds its number in its first two pixels."""
    images = np.zeros((count, 1, 4, 4), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(count), 256)
    return Examples(images, np.arange(count) % 3)


@pytest.mark.parametrize("kind", ["rdd", "dataframe"])
def test_fewer_slots_than_shards_train_on_all_data(spark: SparkSession, tmp_path: Path, kind: str) -> None:
    """Five shards in three slots. A round of a worker is an epoch of one shard."""
    examples = numbered(SHARDS * SHARD)
    recipe = small_recipe(8, replica=partial(Recording, tmp_path))
    data = from_examples(spark, examples, SHARDS)
    if kind == "dataframe":
        data = frame_of(spark, examples).repartition(SHARDS)
    with SparkWorkers(spark, recipe, data, TEST, shape=(1, 4, 4), deadlines=IMPATIENT) as workers:
        rounds = list(train(workers, Settings(rounds=4, tau=SHARD // 8, test_every=4)))
    assert all(len(done.members) == 3 for done in rounds)
    assert {report.read for done in rounds for report in done.reports} == set(range(SHARDS))
    read = recorded(tmp_path)
    assert sorted(read) == list(range(SHARDS * SHARD))  # no record goes untrained ...
    if kind == "rdd":
        for shard in range(SHARDS):  # ... and all of a shard are read equally often
            counts = {read[record] for record in range(shard * SHARD, (shard + 1) * SHARD)}
            assert len(counts) == 1
    assert rounds[-1].scores is not None
    assert rounds[-1].scores.records == len(TEST)
    nothing_is_left(spark, workers)


def test_the_shard_of_a_machine_that_is_gone_is_taken_up_and_given_back(spark: SparkSession) -> None:
    context = spark.sparkContext._jsc.sc()
    data = from_examples(spark, pictures(), 3)
    recipe = small_recipe(replica=slow_replica)
    with SparkWorkers(spark, recipe, data, TEST, deadlines=IMPATIENT) as workers:
        rounds = train(workers, Settings(rounds=100_000, tau=5))
        assert next(rounds).members == (0, 1, 2)
        before = executors(spark)
        assert context.killExecutor(before[0])  # and Spark is not to replace it
        done = until(rounds, lambda done: len(done.members) == 2)
        read: set[int] = set()
        while read != {0, 1, 2}:
            done = until(rounds, lambda done: len(done.members) <= 2)
            read = {report.read for report in done.reports} | (read if len(done.members) == 2 else set())
        assert workers.test(done.weights).records == len(TEST)
        assert context.requestExecutors(3)  # in all
        done = until(rounds, lambda done: done.members == (0, 1, 2) and own_shards(done))
        again = [next(rounds) for _ in range(4)]
        assert all(own_shards(done) for done in again)
        assert workers.test(done.weights).records == len(TEST)
    nothing_is_left(spark, workers)


def own_shards(done: Round) -> bool:
    return all(report.read == report.member for report in done.reports)


def until(rounds: Iterator[Round], true: object, seconds: float = 300) -> Round:
    deadline = time.monotonic() + seconds
    for done in rounds:
        if true(done):  # type: ignore[operator]
            return done
        assert time.monotonic() < deadline, f"it never came true: members {done.members}"
    raise AssertionError("training ended")


def executors(spark: SparkSession) -> list[str]:
    ids = spark.sparkContext._jsc.sc().getExecutorIds()
    return [ids.apply(k) for k in range(ids.size())]
