"""How fast pictures get from a warm memory map into minibatches, and from Spark into the memory map.

    python -m tests.bench.data_rate [--records 50000] [--batch 100] [--clock wall] [--spark]

One core; CIFAR's shape, (3, 32, 32), uint8. For each way of sampling, images/s of

    indexing       plain torch: rows of the mapped tensor by index, still bytes
    and floats     the same, then float32 less the mean: what a net is fed
    feed           what a worker does (sparknet/data/feed.py): sample, gather, transform, a batch at a time
    feed, ahead    the same in a thread, rounds of ten batches, with nothing for it to be ahead of

"feed" does more than "indexing" and as much as "and floats". The goal is 90,000 images/s a core, or 0.9 of
plain indexing. On a machine with other work use --clock cpu (CPU seconds). With --spark, Spark then hands
the pictures to one task that drains them, by each of the ways there are; the cost of the job is included.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import torch

from sparknet.data import Examples, Transform, sampler
from sparknet.data.arrow import Bytes, Numbers
from sparknet.data.dataset import Selection, Shard
from sparknet.data.feed import Ahead, Feed
from sparknet.data.growable import MemoryLimit, collect
from sparknet.data.shards import SAMPLERS
from sparknet.spark.columns import ColumnSelection, Input, Part
from sparknet.spark.frames import Row, drain_batches, drain_blocks, schema_of

SHAPE = (3, 32, 32)
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
GOAL = 90_000
WHOLE = np.dtype(np.int64)
PICTURES = ColumnSelection(
    inputs=(Input("data", (Part("image", Bytes(SHAPE), SHAPE),), np.dtype(np.uint8)),),
    label=Input("label", (Part("label", Numbers(WHOLE), ()),), WHOLE),
)
"""How ``image`` and ``label`` are read."""


def mapped(records: int) -> Examples:
    """Pictures in a file on the spill volume, read once, so that they are in the page cache."""
    rng = np.random.default_rng(0)
    blocks = (
        {
            "data": rng.integers(256, size=(1000, *SHAPE), dtype=np.uint8),
            "label": rng.integers(10, size=1000),
        }
        for _ in range(records // 1000)
    )
    limit = MemoryLimit(memory_bytes=0, folder=Path(tempfile.gettempdir()))
    columns = collect(blocks, schema_of(SHAPE), limit).columns
    shard = Examples(columns["data"], columns["label"])
    shard.images.max()
    return shard


def best(run: Callable[[], int], clock: Callable[[], float], repeats: int = 5) -> float:
    """Images/s of the fastest of some runs; ``run`` returns how many it made."""
    rates = []
    for _ in range(repeats):
        started = clock()
        images = run()
        rates.append(images / (clock() - started))
    return max(rates)


def indices(which: Selection) -> torch.Tensor:
    return torch.arange(which.start, which.stop) if isinstance(which, slice) else torch.from_numpy(which)


def minibatches(shard: Examples, name: str, batch: int, steps: int, clock: Callable[[], float]) -> None:
    mean = np.full(SHAPE, 120, np.float32)
    images, labels = torch.from_numpy(shard.images), torch.from_numpy(shard.labels)
    mean_tensor = torch.from_numpy(mean)[None]
    drawn = sampler(name, records=len(shard), batch_size=batch)
    rows = [indices(which) for _ in range(steps // 10) for which in drawn.batches(10)]
    feed = Feed(shard, Transform(mean=mean), torch.device("cpu"))

    def round_of(chosen: object, steps: int) -> Iterator[object]:
        return feed.round(chosen, steps=steps, batches_per_step=1, seeds=(0, 0), first=0)  # type: ignore[arg-type]

    def plain() -> int:
        return sum(len(images[index]) + 0 * len(labels[index]) for index in rows)

    def floats() -> int:
        return sum(len(images[index].float().sub_(mean_tensor)) + 0 * len(labels[index]) for index in rows)

    def fed() -> int:
        chosen = sampler(name, records=len(shard), batch_size=batch)
        return sum(batch for _ in range(steps // 10) for _ in round_of(chosen, 10))

    def ahead() -> int:
        chosen, made = sampler(name, records=len(shard), batch_size=batch), 0
        for _ in range(steps // 10):
            with Ahead(round_of(chosen, 10), 10) as items:
                made += sum(batch for _ in items)
        return made

    rates = [best(run, clock) for run in (plain, floats, fed, ahead)]
    met = "met" if rates[2] >= GOAL or rates[2] >= 0.9 * rates[0] else "MISSED"
    columns = "  ".join(f"{rate:>11,.0f}" for rate in rates)
    click.echo(f"    {name:<12} {columns}   {rates[2] / rates[0]:5.2f} of indexing, goal {met}")


def drains(shard: Examples, clock: Callable[[], float]) -> None:
    """Into memory and onto disk, in this process: what a task does with what Spark hands it."""
    flat = [image.tobytes() for image in shard.images]
    table = pa.table({"image": pa.array(flat, pa.binary()), "label": shard.labels})
    parts = [shard[start : start + 1000] for start in range(0, len(shard), 1000)]
    rows: list[Row] = list(zip(flat, shard.labels.tolist(), strict=True))
    ways: dict[str, Callable[[MemoryLimit], Shard]] = {
        "Arrow batches": lambda limit: drain_batches(iter(table.to_batches(1000)), PICTURES, limit),
        "rows": lambda limit: drain_blocks(iter(rows), schema_of(SHAPE), limit),
        "blocks": lambda limit: drain_blocks(iter(parts), schema_of(SHAPE), limit),
    }
    for name, way in ways.items():
        rates = []
        for memory in (1 << 40, 0):
            limit = MemoryLimit(memory_bytes=memory, folder=Path(tempfile.gettempdir()))
            rates.append(best(lambda way=way, limit=limit: len(way(limit)), clock, repeats=3))  # type: ignore[misc]
        click.echo(f"    {name:<24} {rates[0]:>11,.0f} into memory  {rates[1]:>11,.0f} onto disk")


def through_spark(shard: Examples) -> None:
    from sparknet.spark import frame_of, from_examples, session

    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    options = {"spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.log.level": "OFF"}
    spark = session("data rate", "local[1]", options)
    limit = MemoryLimit(memory_bytes=1 << 40, folder=Path(tempfile.gettempdir()))

    def blocks(arriving: Iterator[Examples | Row]) -> Iterator[int]:
        yield len(drain_blocks(arriving, schema_of(SHAPE), limit))

    def batches(arriving: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        count = len(drain_batches(arriving, PICTURES, limit))
        yield pa.RecordBatch.from_pydict({"count": [count]})

    frame = frame_of(spark, shard).coalesce(1).cache()
    whole = from_examples(spark, shard, 1).cache()
    pairs = whole.flatMap(
        lambda part: zip([i.tobytes() for i in part.images], part.labels.tolist(), strict=True)
    ).cache()
    ways: dict[str, Callable[[], int]] = {
        "RDD of blocks": lambda: sum(whole.mapPartitions(blocks).collect()),
        "RDD of rows": lambda: sum(pairs.mapPartitions(blocks).collect()),
        "DataFrame over Arrow": lambda: frame.mapInArrow(batches, "count long").collect()[0][0],
        "DataFrame.rdd": lambda: sum(frame.rdd.mapPartitions(blocks).collect()),  # type: ignore[arg-type]
    }
    for name, way in ways.items():
        way()  # fills the cache, starts the worker
        click.echo(f"    {name:<24} {best(way, time.perf_counter, repeats=3):>11,.0f}")
    spark.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--spark", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", FutureWarning)
    shard, clock = mapped(options.records), CLOCKS[options.clock]
    click.echo(
        f"{len(shard):,} pictures of {SHAPE}, batches of {options.batch}, images/s by {options.clock} time"
    )
    click.echo("    sampling        indexing   and floats         feed  feed, ahead")
    for name in SAMPLERS:
        minibatches(shard, name, options.batch, options.steps, clock)
    click.echo("drained in this process, images/s")
    drains(shard[:20_000], clock)
    if options.spark:
        click.echo("drained by one Spark task, job included, images/s")
        through_spark(shard[:20_000])


if __name__ == "__main__":
    main()
