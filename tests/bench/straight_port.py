"""SparkNet's loop as it was: broadcast the layers, train in a Spark job a round, reduce in the driver.

What the engine is measured against. Every round is a job, weights travel as a dictionary of arrays in
pickles, and the driver adds them up (``CifarApp.scala``: ``workers.map(...).reduce(...)``).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from pyspark.sql import SparkSession

Layers = dict[int, np.ndarray]

# About as many arrays as a net of this size has; what they are matters little.
_ARRAYS = 16


def overheads(spark: SparkSession, size: int, workers: int, rounds: int) -> list[float]:
    """Seconds of each round without the slowest worker's steps; not of the first, in which Python starts."""
    context = spark.sparkContext
    shards = context.parallelize(range(workers), workers).cache()
    layers: Layers = dict(enumerate(np.array_split(np.ones(size, np.float32), _ARRAYS)))
    times = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        sent = context.broadcast(layers)

        def trained(records: Iterable[int], sent=sent) -> Iterator[tuple[Layers, float]]:  # type: ignore[no-untyped-def]
            list(records)
            net = {number: torch.from_numpy(np.array(layer)) for number, layer in sent.value.items()}
            began = time.perf_counter()
            for layer in net.values():
                layer.mul_(0.999)
            yield {number: layer.numpy() for number, layer in net.items()}, time.perf_counter() - began

        total, compute = shards.mapPartitions(trained).reduce(
            lambda a, b: ({number: a[0][number] + b[0][number] for number in a[0]}, max(a[1], b[1]))
        )
        layers = {number: layer / np.float32(workers) for number, layer in total.items()}
        sent.unpersist()
        times.append(time.perf_counter() - started - compute)
    shards.unpersist()
    return times[1:]
