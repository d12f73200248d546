"""Independent pieces of work done by the tasks of a cluster, outcomes given as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from pyspark.sql import SparkSession

Unit = TypeVar("Unit")
Outcome = TypeVar("Outcome")

ROUNDS = 4
"""So many units for each slot are one job: the outcomes of a job come together."""


def done_on(
    spark: SparkSession, function: Callable[[Unit], Outcome], units: Sequence[Unit]
) -> Iterator[Outcome]:
    """``function`` of each unit, each a task of its own. Raises what Spark raises for a task that fails."""
    context = spark.sparkContext
    step = ROUNDS * max(1, context.defaultParallelism)
    for first in range(0, len(units), step):
        some = units[first : first + step]
        yield from context.parallelize(some, len(some)).map(function).collect()
