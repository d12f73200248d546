"""``SparkWorkers``: replicas in the executors of a Spark cluster, held by one long-lived job.

    driver                                    executors
    train() ── Coordinator ── Door ═══════╗
                                          ╠══ task.work: one for each partition of the data
    job thread ── rdd.mapPartitions ──────╝

The job is an ordinary one: Spark places the tasks, ships the data and replaces the dead. Rounds cost no
Spark job: weights go over the coordinator's own sockets.
"""

from __future__ import annotations

import logging
import secrets
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark import RDD, InheritableThread
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from sparknet.data import Examples
from sparknet.easgd import Exchanger
from sparknet.errors import DataError, UsageError
from sparknet.spark.coordinator import Coordinator
from sparknet.spark.frames import Shape, drain_batches, drain_blocks, shape_of
from sparknet.spark.handshake import Identity
from sparknet.spark.members import Deadlines
from sparknet.spark.profile import Profile
from sparknet.spark.session import check
from sparknet.spark.task import Assignment, work
from sparknet.training import Gathered, Order, Report, Scores, WorkerState
from sparknet.weights import Vector, Weights
from sparknet.worker import Recipe

if TYPE_CHECKING:
    from types import TracebackType

    from pyspark import Broadcast

log = logging.getLogger(__name__)


Exchange = Literal["auto", "star", "ring"]

# Bytes of weights from which on workers average among themselves: what a star through the driver would cost
# grows with the workers, and below this it is lost beside the waking of a thread.
_LARGE = 16 << 20
# How long executors are waited for that are to forget the test set.
_FORGET_SECONDS = 2.0
# How long the others' traces are waited for where a worker is missing.
_TRACES_SECONDS = 2.0


class SparkWorkers:
    """One worker for each partition of ``data``; leave it with ``close``, or use it in a ``with``.

    ``data`` is a DataFrame of ``image`` (binary, c * h * w bytes) and ``label``, or an RDD of ``Examples``
    (``frames.from_examples``). ``workers`` repartitions it first. ``test`` goes
    to every executor as a broadcast. ``wire`` is how weights travel: float32, or their changes as bfloat16
    or int8 (``sparknet.wire``); ``exchange`` whether through the driver (star), among the workers (ring), or
    by the size of the weights (auto: a ring from 16 MiB on). Up to ``memory_bytes`` of its shard a worker
    holds in memory, else in a file where Spark spills to (SPARK_LOCAL_DIRS); None leaves it to the worker,
    by what its machine has left. ``profile`` rounds of each worker are traced: see ``traces``.

    Raises UsageError for a session whose settings break training (make it with ``session.session``).
    """

    def __init__(
        self,
        spark: SparkSession,
        recipe: Recipe,
        data: DataFrame | RDD[Examples],
        test: Examples | None = None,
        *,
        workers: int | None = None,
        shape: Shape | None = None,
        deadlines: Deadlines | None = None,
        wire: str = "float32",
        exchange: Exchange = "auto",
        memory_bytes: int | None = None,
        profile: int = 0,
    ) -> None:
        check(spark)
        self._spark, self._recipe, self._deadlines = spark, recipe, deadlines or Deadlines()
        replica = recipe.build()
        self._initial: Vector = replica.weights.detach().cpu().numpy().copy()
        data, count = _partitioned(data, workers)
        conf = spark.sparkContext.getConf()
        host = conf.get("spark.driver.host", "localhost") or "localhost"
        self._slices = recipe.slices(len(test)) if test else []
        token = secrets.token_bytes(32)
        ring = _uses_ring(exchange, self._initial, count)
        self._coordinator = Coordinator(
            bind=conf.get("spark.driver.bindAddress", None) or host,
            workers=count,
            size=self._initial.size,
            token=token,
            deadlines=self._deadlines,
            statistics=replica.statistics,
            wire=wire,
            ring_host=host if ring else None,
        )
        self._broadcast = spark.sparkContext.broadcast(test) if test else None
        self._profile = Profile(spark.sparkContext, profile) if profile else None
        assignment = Assignment(
            address=(host, self._coordinator.port),
            token=token,
            recipe=recipe,
            test=self._broadcast,
            deadlines=self._deadlines,
            wire=wire,
            memory_bytes=memory_bytes,
            ring=(host, self._coordinator.ring_port) if self._coordinator.ring_port else None,
            profile=self._profile,
        )
        self._group = f"sparknet-{uuid.uuid4()}"
        self._closed = False
        self._job = InheritableThread(target=self._run, args=(_job(data, assignment, shape),), daemon=True)
        self._job.start()

    def __enter__(self) -> SparkWorkers:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    @property
    def members(self) -> tuple[Identity, ...]:
        """The workers that are here now."""
        return self._coordinator.members

    @property
    def traces(self) -> dict[str, bytes]:
        """What ``profile`` asked for, by worker, once closed: Chrome's JSON with gzip."""
        return self._profile.traces if self._profile else {}

    def initial_weights(self) -> Vector:
        return self._initial.copy()

    def train(self, weights: Weights, order: Order) -> Gathered:
        return self._coordinator.train(weights, order)

    def exchanges(self, exchanger: Exchanger, order: Callable[[], Order]) -> Generator[Report, None, None]:
        return self._coordinator.exchanges(exchanger, order)

    def test(self, weights: Weights) -> Scores:
        if not self._slices:
            raise DataError("there is no test set: give one, or set test_every to 0")
        return self._coordinator.test(weights, self._slices)

    def states(self) -> dict[int, WorkerState]:
        return self._coordinator.states()

    def restore(self, states: Mapping[int, WorkerState]) -> None:
        self._coordinator.restore(states)

    def close(self) -> None:
        """Send the workers home, end the job, drop the test set; a stopped SparkContext is no hindrance."""
        if self._closed:
            return
        self._closed = True
        complete = self._coordinator.close()
        # a partition without its worker would be tried again and again, and find the door shut
        for_traces = _TRACES_SECONDS if self._profile else 0
        self._job.join(self._deadlines.stop if complete else for_traces)
        deadline = time.monotonic() + self._deadlines.stop
        while self._job.is_alive() and time.monotonic() < deadline:
            # again and again: a job that was on its way to Spark is not there to be cancelled
            self._on_spark(lambda: self._spark.sparkContext.cancelJobGroup(self._group))
            self._job.join(0.5)
        if self._broadcast is not None:
            self._forget(self._broadcast)

    def _run(self, job: Callable[[], Any]) -> None:
        """The job's thread."""
        try:
            self._spark.sparkContext.setJobGroup(self._group, "SparkNet workers", interruptOnCancel=True)
            job()
        except Exception as error:  # noqa: BLE001 - whoever waits for the workers is told, whatever it was
            self._coordinator.job_ended(_first_line(error))
        else:
            self._coordinator.job_ended("all tasks finished")

    def _forget(self, test: Broadcast[Examples]) -> None:
        """Drop the test set everywhere, and wait for the executors' word, though not for one that is gone.

        If it came when Spark has stopped, Java would print a page for each.
        """
        drop = partial(self._on_spark, partial(test.unpersist, blocking=True))
        forgetting = InheritableThread(target=drop, daemon=True)
        forgetting.start()
        forgetting.join(_FORGET_SECONDS)

    def _on_spark(self, action: Callable[[], object]) -> None:
        try:
            action()
        except (PySparkException, Py4JError, OSError, AttributeError) as error:
            log.debug("the SparkContext is gone: %s", error)


def _uses_ring(exchange: Exchange, weights: Vector, workers: int) -> bool:
    large = weights.nbytes >= _LARGE and workers > 1
    return exchange == "ring" or (exchange == "auto" and large)


def _partitioned(
    data: DataFrame | RDD[Examples], workers: int | None
) -> tuple[DataFrame | RDD[Examples], int]:
    """The data in as many partitions as there are workers, and that number."""
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers: at least 1 is needed")
    count = data.rdd.getNumPartitions() if isinstance(data, DataFrame) else data.getNumPartitions()
    if workers is None or workers == count:
        return data, count
    return data.repartition(workers), workers


def _job(data: DataFrame | RDD[Examples], assignment: Assignment, shape: Shape | None) -> Callable[[], Any]:
    """The action that holds the workers; its functions travel to the executors."""
    if isinstance(data, DataFrame):
        size = shape or shape_of(data)

        def serve_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            work(assignment, lambda room: drain_batches(batches, size, room))
            return iter(())

        return data.select("image", "label").mapInArrow(serve_batches, "done boolean").collect
    size = shape or (1, 1, 1)

    def serve_blocks(blocks: Iterable[Examples]) -> Iterable[int]:
        work(assignment, lambda room: drain_blocks(blocks, size, room))
        return ()

    return data.mapPartitions(serve_blocks).collect


def _first_line(error: Exception) -> str:
    """What an error says, without Java's stack, and without py4j's first line, which says nothing."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    says_nothing = len(lines) > 1 and lines[0].startswith("An error occurred while calling")
    return lines[1 if says_nothing else 0].removeprefix(": ")
