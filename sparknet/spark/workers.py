"""``SparkWorkers``: replicas in the executors of a Spark cluster, held by one long-lived job.

    driver                                    executors
    train() ── Coordinator ── Listener ═══╗
                                          ╠══ task.work: one for each partition of the data
    a thread for each job (jobs.py) ──────╝

The job is an ordinary one: Spark places the tasks, ships the data and replaces the dead. Rounds cost no
Spark job: weights go over the coordinator's own sockets.
"""

from __future__ import annotations

import logging
import secrets
import uuid
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Literal

from pyspark import InheritableThread
from pyspark.sql import DataFrame, SparkSession

from sparknet.data.dataset import Shard
from sparknet.distributed.averaging import COPY_EVERY, Exchange
from sparknet.distributed.comm.handshake import Identity
from sparknet.distributed.coordinator import Coordinator
from sparknet.distributed.timeouts import Timeouts
from sparknet.distributed.worker_service import Assignment
from sparknet.easgd import Exchanger, Exchanges
from sparknet.errors import DataError, UsageError
from sparknet.spark.columns import ColumnSelection
from sparknet.spark.frames import Shape
from sparknet.spark.jobs import Jobs, Source, quietly
from sparknet.spark.profile import Profile
from sparknet.spark.session import check
from sparknet.spark.slots import slots, workers_for
from sparknet.training import RoundPlan, RoundResult, Scores, WorkerState
from sparknet.weights import Vector, Weights
from sparknet.worker import Recipe

if TYPE_CHECKING:
    from types import TracebackType

    from pyspark import Broadcast

log = logging.getLogger(__name__)


# From how many bytes of weights on workers average among themselves. Overhead of a round by MB of weights,
# star and ring, K = 2 on one machine of two cores, median ms: 0.58: 2.3, 3.4; 1.7: 4.9, 3.8; 4.2: 11, 8.0;
# 8.4: 22, 13; 17: 39, 21 (tests/bench/round_overhead.py). They cross between 1 and 2 MB; up to 4 MiB the star
# is chosen nevertheless, because the driver then has the weights of every round. What a star costs grows with
# K, and what a ring costs does not.
RING_FROM_BYTES = 4 << 20
# How long executors are waited for that are to drop the test set.
_FORGET_SECONDS = 2.0
# How long the others' traces are waited for where a worker is missing.
_TRACES_SECONDS = 2.0


class SparkWorkers:
    """One worker for each partition of ``data``; leave it with ``close``, or use it in a ``with``.

    ``data`` is a DataFrame, of which ``selection`` says what is read (``columns.py``; ``image``, binary, c *
    h * w bytes, and ``label`` by default), or an RDD of ``Examples`` (``frames.from_examples``) or
    ``Records``. ``workers`` repartitions it first; "slots" stands for as many as can run at
    once. With more workers than slots the shards of those that wait are assigned to the others
    (``shard_assignment.py``) until slots are added; with fewer the further slots stand by. ``test`` goes to
    every executor as a broadcast. ``wire`` is how weights travel: float32, or their changes as bfloat16 or
    int8 (``sparknet.codecs``); ``exchange`` whether through the driver (star), among the workers (ring), or
    by the size of the weights (auto: a ring from ``ring_from_bytes`` on). In a ring the driver fetches a copy
    every ``copy_every`` rounds: if all workers are lost at once, no more have to be done again. Averages that
    overlap with a round travel in ``fragments`` through it. Up to
    ``memory_bytes`` of its shard a worker holds in memory, else in a file where Spark spills to
    (SPARK_LOCAL_DIRS); None leaves it to the worker, by what its machine has left. ``profile`` rounds of each
    worker are traced: see ``traces``.

    Raises UsageError for a session whose settings break training (make it with ``session.session``).
    """

    def __init__(
        self,
        spark: SparkSession,
        recipe: Recipe,
        data: Source,
        test: Shard | None = None,
        *,
        workers: int | Literal["slots"] | None = None,
        shape: Shape | None = None,
        selection: ColumnSelection | None = None,
        deadlines: Timeouts | None = None,
        wire: str = "float32",
        exchange: Exchange = "auto",
        ring_from_bytes: int = RING_FROM_BYTES,
        copy_every: int = COPY_EVERY,
        fragments: int = 1,
        memory_bytes: int | None = None,
        profile: int = 0,
    ) -> None:
        check(spark)
        self._spark, self._recipe, self._timeouts = spark, recipe, deadlines or Timeouts()
        replica = recipe.build()
        self._initial: Vector = replica.weights.detach().cpu().numpy().copy()
        data, count = _partitioned(data, workers_for(spark) if workers == "slots" else workers)
        _warn_of_spares(slots(spark) - count, count)
        conf = spark.sparkContext.getConf()
        host = conf.get("spark.driver.host", "localhost") or "localhost"
        self._slices = recipe.slices(len(test)) if test else []
        token = secrets.token_bytes(32)
        large = self._initial.nbytes >= ring_from_bytes and count > 1
        ring = exchange == "ring" or (exchange == "auto" and large)
        self._coordinator = Coordinator(
            bind=conf.get("spark.driver.bindAddress", None) or host,
            workers=count,
            size=self._initial.size,
            token=token,
            timeouts=self._timeouts,
            statistics=replica.statistics,
            moving=getattr(replica, "moving", ()),  # a replica that gives gradients says so
            wire=wire,
            ring=ring,
            copy_every=copy_every,
            fragments=fragments,
            submit=lambda shards: self._jobs.submit(shards),
            slots=lambda: slots(spark),
            tasks=lambda: self._jobs.tasks(),
            end_task=lambda attempt: self._jobs.end_task(attempt),
        )
        self._broadcast = spark.sparkContext.broadcast(test) if test else None
        self._profile = Profile(spark.sparkContext, profile) if profile else None
        assignment = Assignment(
            address=(host, self._coordinator.port),
            token=token,
            recipe=recipe,
            test=self._broadcast,
            timeouts=self._timeouts,
            wire=wire,
            memory_bytes=memory_bytes,
            job=uuid.uuid4().hex,
            ring=(host, self._coordinator.ring_port) if self._coordinator.ring_port else None,
            trace_rounds=profile,
        )
        self._closed = False
        self._jobs = Jobs(
            spark,
            data,
            assignment,
            shape,
            selection=selection,
            profile=self._profile,
            ended=self._coordinator.job_ended,
        )
        self._jobs.submit(range(count))

    def __enter__(self) -> SparkWorkers:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    @property
    def exchange(self) -> Literal["star", "ring"]:
        """How weights travel, where ``exchange`` left that open."""
        return "star" if self._coordinator.ring_port is None else "ring"

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

    def train(self, weights: Weights, plan: RoundPlan, ahead: RoundPlan | None = None) -> RoundResult:
        return self._coordinator.train(weights, plan, ahead)

    def exchanges(self, exchanger: Exchanger, plan: Callable[[], RoundPlan]) -> Exchanges:
        return self._coordinator.exchanges(exchanger, plan)

    def test(self, weights: Weights) -> Scores:
        if not self._slices:
            raise DataError("there is no test set: give one, or set test_every to 0")
        return self._coordinator.test(weights, self._slices)

    def states(self) -> dict[int, WorkerState]:
        return self._coordinator.states()

    def restore(self, states: Mapping[int, WorkerState]) -> None:
        self._coordinator.restore(states)

    def close(self) -> None:
        """Stop the workers, end the job, drop the test set; works with a stopped SparkContext too."""
        if self._closed:
            return
        self._closed = True
        self._jobs.withdraw(self._coordinator.numbers)  # or they would take the slots that become free now
        complete = self._coordinator.close()
        # a partition without its worker would be tried again and again, and find nobody listening
        for_traces = _TRACES_SECONDS if self._profile else 0
        self._jobs.join(self._timeouts.stop if complete else for_traces)
        self._jobs.cancel(self._timeouts.stop)
        if self._broadcast is not None:
            self._forget(self._broadcast)

    def _forget(self, test: Broadcast[Shard]) -> None:
        """Drop the test set everywhere, and wait for the executors' word, though not for one that is gone.

        If it came when Spark has stopped, Java would print a page for each.
        """
        drop = partial(quietly, partial(test.unpersist, blocking=True))
        forgetting = InheritableThread(target=drop, daemon=True)
        forgetting.start()
        forgetting.join(_FORGET_SECONDS)


def _warn_of_spares(idle: int, shards: int) -> None:
    if idle > 0:
        log.warning(
            "%d slots have no shard of their own, for there are %d: they stand by for those that are lost. "
            'workers="slots" cuts the data for all of them',
            idle,
            shards,
        )


def _partitioned(data: Source, workers: int | None) -> tuple[Source, int]:
    """The data in as many partitions as there are workers, and that number."""
    if workers is not None and workers < 1:
        raise UsageError(f"{workers} workers: at least 1 is needed")
    count = data.rdd.getNumPartitions() if isinstance(data, DataFrame) else data.getNumPartitions()
    if workers is None or workers == count:
        return data, count
    return data.repartition(workers), workers
