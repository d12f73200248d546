"""Training on a real Spark with executors in JVMs of their own: equality, kills, errors, leftovers."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pyspark.sql import SparkSession

from sparknet.data import contiguous
from sparknet.data.dataset import Batch
from sparknet.data.growable import MemoryLimit
from sparknet.errors import DataError, UsageError
from sparknet.local import LocalWorkers
from sparknet.replica import TorchReplica
from sparknet.spark import Deadlines
from sparknet.spark.frames import drain_batches, frame_of, from_examples, selection_of
from sparknet.spark.workers import SparkWorkers
from sparknet.training import Round, Settings, train
from sparknet.worker import Recipe
from tests.sparknet.small import digest, momentum_sgd, pictures, small_net, small_recipe
from tests.sparknet.test_replica import caffe_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.spark,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]

EXAMPLES, TEST = pictures(), pictures(70, seed=1)
# ``lease`` is longer than a new executor takes on a busy machine: shards stay with their own workers.
DEADLINES = Deadlines(join=60, round=30, ping=1, send=10, stop=10, lease=300)


def on_spark(spark: SparkSession, recipe: Recipe, count: int, settings: Settings) -> list[Round]:
    data = from_examples(spark, EXAMPLES, count)
    with SparkWorkers(spark, recipe, data, TEST, deadlines=DEADLINES) as workers:
        return list(train(workers, settings))


def in_this_process(recipe: Recipe, count: int, settings: Settings) -> list[Round]:
    shards = [EXAMPLES[part] for part in contiguous(len(EXAMPLES), count)]
    with LocalWorkers(recipe, shards, TEST) as workers:
        return list(train(workers, settings))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("kind", ["torch", "caffe"])
def test_training_on_spark_is_training_in_one_process_bit_for_bit(
    spark: SparkSession, workers: int, kind: str
) -> None:
    recipe = small_recipe(replica=caffe_model()) if kind == "caffe" else small_recipe()
    settings = Settings(rounds=10, tau=5, test_every=5)
    done, expected = on_spark(spark, recipe, workers, settings), in_this_process(recipe, workers, settings)
    assert [digest(r.weights) for r in done] == [digest(r.weights) for r in expected]
    assert [r.scores for r in done] == [r.scores for r in expected]


def test_a_dataframe_is_drained_into_every_worker(spark: SparkSession) -> None:
    frame = frame_of(spark, EXAMPLES)
    with SparkWorkers(spark, small_recipe(), frame, TEST, workers=3, deadlines=DEADLINES) as workers:
        done = list(train(workers, Settings(rounds=20, tau=10, test_every=20)))
    assert done[-1].members == (0, 1, 2)
    assert done[-1].accuracy is not None
    assert done[-1].accuracy > 0.8


def test_a_dataframe_without_rows_in_a_partition_trains_with_the_others(spark: SparkSession) -> None:
    frame = frame_of(spark, EXAMPLES).coalesce(1).union(frame_of(spark, EXAMPLES).coalesce(1).limit(0))
    with SparkWorkers(spark, small_recipe(), frame, TEST, shape=(1, 4, 4), deadlines=DEADLINES) as workers:
        done = list(train(workers, Settings(rounds=2, tau=2, test_every=1)))
    assert len(done[-1].members) == 1
    assert done[-1].scores is not None
    assert done[-1].scores.records == len(TEST)


small_weights = 243 * 4


class Slow(TorchReplica):
    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        time.sleep(0.02)
        return super().step(batches)


def slow_replica() -> TorchReplica:
    return Slow(small_net(), momentum_sgd)


def executor_of(pid: int) -> int:
    """The JVM above a Python worker's daemon."""
    for _ in range(2):
        pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    assert "CoarseGrainedExecutorBackend" in Path(f"/proc/{pid}/cmdline").read_text()
    return pid


@pytest.mark.parametrize("victim", ["python", "executor"])
def test_a_killed_worker_costs_its_round_and_is_replaced(spark: SparkSession, victim: str) -> None:
    data = from_examples(spark, EXAMPLES, 3)
    members: list[tuple[int, ...]] = []
    longest = 0.0
    with SparkWorkers(spark, small_recipe(replica=slow_replica), data, TEST, deadlines=DEADLINES) as workers:
        for done in train(workers, Settings(rounds=2000, tau=5)):
            members.append(done.members)
            longest = max(longest, done.seconds) if done.number > 1 else 0.0
            if done.number == 3:
                pid = workers.members[1].pid
                target = pid if victim == "python" else executor_of(pid)
                threading.Timer(0.05, os.kill, (target, signal.SIGKILL)).start()
            if (0, 2) in members and done.members == (0, 1, 2):
                break
        scores = workers.test(done.weights)
    alone = members.index((0, 2))
    assert alone >= 3
    assert set(members[:alone]) == {(0, 1, 2)}
    assert set(members[alone:-1]) == {(0, 2)}
    assert longest < 5
    assert scores.records == len(TEST)
    # the replacement goes on from the steps and the place in the shard of the worker it replaces
    assert done.reports[1].iteration == 5 * (alone + 1)
    assert done.reports[1].position == 10 * 5 * (alone + 1)


def test_a_worker_killed_in_a_ring_costs_its_round_and_is_replaced(spark: SparkSession) -> None:
    data = from_examples(spark, EXAMPLES, 3)
    members: list[tuple[int, ...]] = []
    recipe = small_recipe(replica=slow_replica)
    with SparkWorkers(spark, recipe, data, TEST, exchange="ring", deadlines=DEADLINES) as workers:
        for done in train(workers, Settings(rounds=2000, tau=5)):
            members.append(done.members)
            if done.number == 3:
                os.kill(workers.members[1].pid, signal.SIGKILL)
            if (0, 2) in members and done.members == (0, 1, 2):
                break
        weights = done.weights  # the workers have them, while they are here
    assert members[:3] == [(0, 1, 2)] * 3
    assert np.isfinite(weights).all()
    assert done.bytes_sent > small_weights  # the newcomer was sent the weights, the others the word only


def test_all_workers_killed_at_once_are_waited_for(spark: SparkSession) -> None:
    data = from_examples(spark, EXAMPLES, 2)
    with SparkWorkers(spark, small_recipe(replica=slow_replica), data, deadlines=DEADLINES) as workers:
        rounds = train(workers, Settings(rounds=2000, tau=5))
        before = next(rounds)
        for who in workers.members:
            os.kill(who.pid, signal.SIGKILL)
        after = next(rounds)
    assert after.number == before.number + 1
    assert len(after.result.lost) == 2


class BreaksInTraining(TorchReplica):
    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        raise DataError("label 12 is not one of 10 classes")


def breaking_replica() -> TorchReplica:
    return BreaksInTraining(small_net(), momentum_sgd)


def test_an_error_in_a_worker_reaches_the_driver_as_one_message(spark: SparkSession) -> None:
    """And at once: ``stop`` seconds to leave are given only while all workers are well."""
    recipe, patient = small_recipe(replica=breaking_replica), replace(DEADLINES, stop=150)
    began = time.monotonic()
    with (
        SparkWorkers(spark, recipe, from_examples(spark, EXAMPLES, 2), deadlines=patient) as workers,
        pytest.raises(DataError, match=r"^label 12 is not one of 10 classes"),
    ):
        next(train(workers, Settings(rounds=1)))
    assert time.monotonic() - began < patient.stop
    nothing_is_left(spark, workers)


def test_pictures_of_the_wrong_size_reach_the_driver_as_one_message(spark: SparkSession) -> None:
    frame = frame_of(spark, EXAMPLES)
    with (
        SparkWorkers(
            spark, small_recipe(), frame, workers=2, shape=(1, 5, 5), deadlines=DEADLINES
        ) as workers,
        pytest.raises(DataError, match=r"column image, partition \d, row 0: 16 bytes, but 1 x 5 x 5 = 25 is"),
    ):
        next(train(workers, Settings(rounds=1)))
    nothing_is_left(spark, workers)


def test_an_exception_in_the_users_loop_closes_everything(spark: SparkSession) -> None:
    data = from_examples(spark, EXAMPLES, 3)
    workers = SparkWorkers(spark, small_recipe(), data, deadlines=DEADLINES)

    def careless() -> None:
        with workers:
            for done in train(workers, Settings(rounds=100)):
                assert done.loss / 0

    with pytest.raises(ZeroDivisionError):
        careless()
    nothing_is_left(spark, workers)


def nothing_is_left(spark: SparkSession, workers: SparkWorkers) -> None:
    """No thread of the workers, no task in Spark, no listener."""
    names = {thread.name for thread in threading.enumerate() if thread.name.startswith("sparknet")}
    assert names <= {"sparknet-cancelling"}  # which lives as long as the application, once it has predicted
    assert not workers._jobs.alive
    tracker = spark.sparkContext.statusTracker()
    deadline = time.monotonic() + 10
    while tracker.getActiveJobsIds() or any(
        info.numActiveTasks for stage in tracker.getActiveStageIds() if (info := tracker.getStageInfo(stage))
    ):
        assert time.monotonic() < deadline, "a task is still running"
        time.sleep(0.05)


def test_closing_twice_is_as_good_as_once(spark: SparkSession) -> None:
    workers = SparkWorkers(spark, small_recipe(), from_examples(spark, EXAMPLES, 1), deadlines=DEADLINES)
    workers.close()
    workers.close()
    nothing_is_left(spark, workers)


def test_speculation_is_refused(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = spark.sparkContext.getConf().set("spark.speculation", "true")
    monkeypatch.setattr(spark.sparkContext, "getConf", lambda: conf)
    with pytest.raises(UsageError, match=r"spark\.speculation is true"):
        SparkWorkers(spark, small_recipe(), from_examples(spark, EXAMPLES, 1))


def test_the_token_is_in_no_command_line_and_no_setting(spark: SparkSession) -> None:
    with SparkWorkers(
        spark, small_recipe(), from_examples(spark, EXAMPLES, 2), deadlines=DEADLINES
    ) as workers:
        next(train(workers, Settings(rounds=1)))
        token = workers._coordinator._listener.token
        shown = [repr(token)[2:-1], token.hex()]
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        settings = str(spark.sparkContext.getConf().getAll())
    for text in shown:
        assert not any(text.encode() in line for line in lines)
        assert text not in settings


def test_shards_of_one_array_are_contiguous_and_whole(spark: SparkSession) -> None:
    blocks = from_examples(spark, EXAMPLES, 3).collect()
    assert np.array_equal(np.concatenate([block.images for block in blocks]), EXAMPLES.images)
    assert [len(block) for block in blocks] == [80, 80, 80]


def test_a_set_in_a_dataframe_comes_back_as_it_was(spark: SparkSession, tmp_path: Path) -> None:
    batches = frame_of(spark, EXAMPLES).toArrow().to_batches()
    selection = selection_of(frame_of(spark, EXAMPLES[:1]))
    back = drain_batches(iter(batches), selection, MemoryLimit(memory_bytes=0, folder=tmp_path))
    assert np.array_equal(back.columns["data"], EXAMPLES.images)
    assert np.array_equal(back.columns["label"], EXAMPLES.labels)
