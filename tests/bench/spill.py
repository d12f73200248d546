"""Training on a shard four times as large as the memory allowed for it, against one that has room in memory.

    python -m tests.bench.spill                       one core; about 2 minutes
    python -m tests.bench.spill --records 5000 --epochs 1

cifar10_quick, batch 100, records of 3,072 bytes in an order drawn anew in each epoch:

    in memory       the shard has room
    spilled         it lies in a file on the spill volume, which the kernel has in its cache
    spilled, cold   the same, forgotten by the kernel before the epoch begins (needs root)

Goal: spilled at 0.8 of the rate in memory at least.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch

from sparknet.data import Records
from sparknet.data.growable import MemoryLimit, collect, spill_folder
from sparknet.spark.frames import schema_of
from sparknet.training import RoundPlan
from tests.bench.data_rate import SHAPE
from tests.bench.images_per_second import BATCH, recipe

GOAL, TIMES_TOO_LARGE = 0.8, 4
ROUND = 10


def shard(records: int, *, spilled: bool) -> Records:
    """Random pictures, as a task collects them."""
    size = records * int(np.prod(SHAPE))
    memory = size // TIMES_TOO_LARGE if spilled else 2 * size
    limit = MemoryLimit(memory_bytes=memory, folder=spill_folder())
    return collect(_blocks(records), schema_of(SHAPE), limit)


def _blocks(records: int) -> Iterator[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    for start in range(0, records, 1000):
        count = min(1000, records - start)
        pixels = rng.integers(256, size=(count, *SHAPE), dtype=np.uint8)
        yield {"data": pixels, "label": rng.integers(10, size=count)}


def forget(records: Records) -> None:
    """Have the kernel drop what it has of the file from its cache; nobody may have read it yet."""
    address = records.columns["data"].ctypes.data
    for line in Path("/proc/self/maps").read_text().splitlines():
        first, last = (int(word, 16) for word in re.match(r"(\w+)-(\w+)", line).groups())  # type: ignore[union-attr]
        if first <= address < last:
            file = os.open(f"/proc/self/map_files/{first:x}-{last:x}", os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def epoch(shards: Mapping[str, Records]) -> dict[str, float]:
    """Images/s of an epoch on each, in turns, a round each: other programs slow all of them alike."""
    how = replace(recipe(), sampling="epoch")
    workers = {name: how.worker(0, records) for name, records in shards.items()}
    seconds = dict.fromkeys(shards, 0.0)
    rounds = max(1, len(next(iter(shards.values()))) // (BATCH * ROUND))
    for _ in range(rounds):
        for name, worker in workers.items():
            started = time.perf_counter()
            worker.train(worker.vector, RoundPlan(tau=ROUND))
            seconds[name] += time.perf_counter() - started
    return {name: rounds * ROUND * BATCH / spent for name, spent in seconds.items()}


@click.command()
@click.option("--records", default=20_000, show_default=True)
@click.option("--epochs", default=2, show_default=True)
def main(records: int, epochs: int) -> None:
    """Compare the rates of training."""
    torch.set_num_threads(1)
    click.echo(
        f"{records:,} records; load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    for number in range(1, epochs + 1):
        shards = {
            "in memory": shard(records, spilled=False),
            "spilled": shard(records, spilled=True),
            "spilled, cold": shard(records, spilled=True),
        }
        forget(shards["spilled, cold"])
        rates = epoch(shards)
        click.echo(f"epoch {number}")
        for name, images in rates.items():
            share = images / rates["in memory"]
            met = "" if name == "in memory" else f", goal {GOAL:g}: {'met' if share >= GOAL else 'MISSED'}"
            click.echo(f"    {name:<14} {images:>9,.0f} images/s   {share:.2f}{met}")
    click.echo(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
