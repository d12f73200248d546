"""How many training tasks a Spark cluster can run at once, and how many threads each of them may use."""

from __future__ import annotations

import logging
import os
import time

from pyspark.sql import SparkSession

from sparknet.errors import WorkersLost

log = logging.getLogger(__name__)

SETTLE_SECONDS = 5.0
DEADLINE_SECONDS = 180.0


def workers_for(
    spark: SparkSession,
    wanted: int | None = None,
    *,
    settle_seconds: float = SETTLE_SECONDS,
    deadline_seconds: float = DEADLINE_SECONDS,
) -> int:
    """``wanted`` workers, or as many as there are slots: tasks that can run at once, by cores and GPUs.

    The executors of a cluster come one after the other: waits until there are enough, or until none has come
    for ``settle_seconds``. More workers than slots are allowed: the shards of those that find none are
    assigned to the others, until slots are added. Raises WorkersLost if there is still no slot at the
    deadline.
    """
    there = _settled(spark, wanted, settle_seconds, deadline_seconds)
    if wanted is not None and wanted > there:
        log.warning(
            "%d workers are wanted, but %s has %d slots (cores, GPUs): the others will train on their shards "
            "too, until it is larger",
            wanted,
            spark.sparkContext.master,
            there,
        )
    return wanted or there


def threads_each(spark: SparkSession, workers: int) -> int:
    """An even share of the cores for each worker that runs at once; in local mode of this machine's."""
    there = slots(spark)
    cores = (os.cpu_count() or 1) if _is_local(spark) else there * _cores_a_task(spark)
    return max(1, cores // max(1, min(workers, there)))


def _settled(spark: SparkSession, wanted: int | None, settle_seconds: float, deadline_seconds: float) -> int:
    started = changed = time.monotonic()
    known = slots(spark)
    while not _is_local(spark) and (wanted is None or known < wanted):
        time.sleep(0.2)
        found, now = slots(spark), time.monotonic()
        if found != known:
            known, changed = found, now
        if known and now - changed >= settle_seconds:
            break
        if now - started > deadline_seconds:
            raise WorkersLost(
                f"no executor of {spark.sparkContext.master} came within {deadline_seconds:.0f} s: look at "
                "the master's web page for workers, and for an application that holds their cores"
            )
    return max(known, 1)


def slots(spark: SparkSession) -> int:
    """How many tasks can run at once on the executors that are here now."""
    context = spark.sparkContext._jsc.sc()  # Spark knows, but tells Python nothing
    profile = context.resourceProfileManager().defaultResourceProfile()
    return int(context.maxNumConcurrentTasks(profile))


def _is_local(spark: SparkSession) -> bool:
    master = str(spark.sparkContext.master)
    return master.startswith("local") and not master.startswith("local-cluster")


def _cores_a_task(spark: SparkSession) -> int:
    return int(spark.sparkContext.getConf().get("spark.task.cpus", "1") or 1)
