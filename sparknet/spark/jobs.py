"""The Spark jobs that hold the workers: one for all partitions, and further ones for partitions done again.

A task ends early when its worker yields its slot to another (``shard_assignment.py``). Its partition is then
submitted in a job of its own, whose task waits in Spark's queue until a slot is free.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark import RDD, InheritableThread
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.util import _load_from_socket

from sparknet.data.dataset import Shard
from sparknet.data.growable import MemoryLimit
from sparknet.distributed.rebalancing import TaskStatus
from sparknet.distributed.worker_service import Assignment
from sparknet.spark.columns import ColumnSelection
from sparknet.spark.frames import Row, Shape, drain_batches, drain_blocks, schema_of, selection_of
from sparknet.spark.profile import Profile
from sparknet.spark.task import partition_id, work

log = logging.getLogger(__name__)

Source = DataFrame | RDD[Shard] | RDD[Row]


class Jobs:
    """For the partitions of ``data``; ``ended`` gets the reason when a job fails or all are over."""

    def __init__(
        self,
        spark: SparkSession,
        data: Source,
        assignment: Assignment,
        shape: Shape | None,
        *,
        selection: ColumnSelection | None = None,
        profile: Profile | None,
        ended: Callable[[str], None],
    ) -> None:
        self._context = spark.sparkContext
        self._run = _runner(data, partial(work, assignment, profile=profile), shape, selection)
        self._ended = ended
        self._jobs: list[Job] = []
        self._preparing = threading.Lock()

    def submit(self, partitions: Sequence[int]) -> None:
        """Start a task for each of these partitions, as soon as there is a slot for it."""
        job = Job(group=f"sparknet-{uuid.uuid4()}", partitions=frozenset(partitions))
        job.thread = InheritableThread(target=self._hold, args=(job,), daemon=True)
        self._jobs.append(job)
        job.thread.start()

    def withdraw(self, here: Collection[int]) -> None:
        """Cancel the jobs that wait for a slot, none of their workers being ``here``."""
        for job in self._jobs:
            if job.alive and job.partitions.isdisjoint(here):
                quietly(partial(self._context.cancelJobGroup, job.group))

    def tasks(self) -> dict[int, TaskStatus]:
        """By partition, the task that has not ended: it runs, or waits for a slot. Nothing if Spark does not
        tell."""
        found: dict[int, TaskStatus] = {}
        for job in self._jobs:
            if job.alive:
                quietly(partial(self._look, job, found))
        return found

    def end_task(self, attempt: int) -> None:
        """Kill the attempt, its Python process too, even if that is stopped; Spark starts the task again."""
        spark = self._context._jsc.sc()
        quietly(partial(spark.killTaskAttempt, attempt, True, "its worker does not answer"))

    def _look(self, job: Job, found: dict[int, TaskStatus]) -> None:
        """See what Spark's tracker and its store of states, which is its web page's, say of a job's tasks."""
        tracker, store = self._context.statusTracker(), self._context._jsc.sc().statusStore()
        stages = [
            stage
            for number in tracker.getJobIdsForGroup(job.group)
            if (info := tracker.getJobInfo(number)) is not None
            for stage in info.stageIds
        ]
        if not stages:
            return  # it is on its way to Spark
        stage = max(stages)  # the last one is that of the workers
        attempts = [
            store.taskList(stage, attempt, 1 << 20)
            for attempt in range(store.lastStageAttempt(stage).attemptId() + 1)
        ]
        found |= dict.fromkeys(job.partitions, TaskStatus())
        for task in (tasks.apply(place) for tasks in attempts for place in range(tasks.size())):
            partition, state = task.partitionId(), task.status()
            if state == "RUNNING":
                seconds = time.time() - task.launchTime().getTime() / 1000
                found[partition] = TaskStatus(attempt=task.taskId(), seconds=seconds)
            elif state == "SUCCESS":
                found.pop(partition, None)

    @property
    def alive(self) -> bool:
        return any(job.alive for job in self._jobs)

    def join(self, seconds: float) -> None:
        """Wait for all jobs to end by themselves."""
        deadline = time.monotonic() + seconds
        for job in self._jobs:
            if job.thread:
                job.thread.join(max(0.0, deadline - time.monotonic()))

    def cancel(self, seconds: float) -> None:
        """End all jobs; works with a stopped SparkContext too."""
        deadline = time.monotonic() + seconds
        while self.alive and time.monotonic() < deadline:
            # again and again: a job that was on its way to Spark is not there to be cancelled
            for job in self._jobs:
                if job.alive:
                    quietly(partial(self._context.cancelJobGroup, job.group))
            self.join(0.5)

    def _hold(self, job: Job) -> None:
        """A job's thread."""
        try:
            self._context.setJobGroup(job.group, "SparkNet workers", interruptOnCancel=True)
            with self._preparing:  # the stages before the last are run by whoever comes first
                run = self._run()
            run(sorted(job.partitions))
        except Exception as error:  # noqa: BLE001 - whoever waits for the workers is told, whatever it was
            self._ended(_first_line(error))
        else:
            if not any(other.alive for other in self._jobs if other is not job):
                self._ended("all tasks finished")


@dataclass(kw_only=True, eq=False)
class Job:
    """One Spark job and the thread that waits for its end."""

    group: str
    partitions: frozenset[int]
    thread: InheritableThread | None = None

    @property
    def alive(self) -> bool:
        return self.thread is not None and bool(self.thread.is_alive())


def quietly(action: Callable[[], object]) -> None:
    """Do it if the SparkContext is still there."""
    try:
        action()
    except (PySparkException, Py4JError, OSError, AttributeError) as error:
        log.debug("the SparkContext is gone: %s", error)


Run = Callable[[list[int]], object]
Work = Callable[[Callable[[MemoryLimit], Shard]], None]


def _runner(
    data: Source, work: Work, shape: Shape | None, selection: ColumnSelection | None
) -> Callable[[], Run]:
    """What runs tasks of the data's partitions; its functions travel to the executors."""
    if isinstance(data, DataFrame):
        return _arrow_runner(data, work, selection or selection_of(data, shape))
    schema = schema_of(shape or (1, 1, 1))

    def serve(blocks: Iterable[Any]) -> Iterable[int]:
        work(lambda limit: drain_blocks(blocks, schema, limit))
        return ()

    return lambda: lambda partitions: data.context.runJob(data, serve, partitions)


def _arrow_runner(frame: DataFrame, work: Work, selection: ColumnSelection) -> Callable[[], Run]:
    """The frame's plan is made once: its partitions are then the same in every job."""

    def serve(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        work(lambda limit: drain_batches(batches, selection, limit, partition_id()))
        return iter(())

    served = frame.select(*selection.columns).mapInArrow(serve, "done boolean")
    context = frame.sparkSession.sparkContext

    def prepared() -> Run:
        rows = served.rdd  # cached by the frame

        def run(partitions: list[int]) -> object:
            spark: Any = context  # runJob without a Python function of its own after Arrow's
            answer = spark._jvm.PythonRDD.runJob(spark._jsc.sc(), rows._jrdd, partitions)
            stream: Any = _load_from_socket(answer, rows._jrdd_deserializer)
            with stream if hasattr(stream, "__enter__") else nullcontext(stream) as results:
                return list(results)

        return run

    return prepared


def _first_line(error: Exception) -> str:
    """What an error says, without Java's stack, and without first lines that say nothing."""
    lines = (str(error).strip() or type(error).__name__).splitlines()
    if "from the Python worker" in lines[0]:
        said = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Exception|Exit)\b", line)]
        return said[-1] if said else lines[-1]
    says_nothing = len(lines) > 1 and lines[0].startswith("An error occurred while calling")
    return lines[1 if says_nothing else 0].removeprefix(": ")
