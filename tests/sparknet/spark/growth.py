"""A job with three shards on a standalone cluster of one slot, which gets a second host and loses it again.

    python -m tests.sparknet.spark.growth

Prints a line of JSON for each of the three states of the cluster, once every record has been trained on in
it: who trained, which processes they are, and how many seconds that took. Each wait has a deadline.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch

from sparknet.data import Examples
from sparknet.data.dataset import Batch
from sparknet.replica import TorchReplica
from sparknet.spark import Deadlines, SparkWorkers, from_examples, session
from sparknet.training import Round, Settings, train
from tests.bench.standalone import Cluster, Host
from tests.sparknet.small import momentum_sgd, small_net, small_recipe

SHARDS, SHARD, BATCH = 3, 40, 8
RECORDS = frozenset(range(SHARDS * SHARD))
DEADLINES = Deadlines(join=60, round=20, ping=1, send=10, stop=10, lease=2)
SECONDS = 100.0


class Recording(TorchReplica):
    """Writes down the records it is given, by the number in their first two pixels, in a file of its own."""

    def __init__(self, folder: str) -> None:
        super().__init__(small_net(), momentum_sgd)
        self.log = Path(folder) / f"read-by-{os.getpid()}"

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        time.sleep(0.01)
        batch = next(batches)
        pairs = (batch["data"][:, 0, 0, :2] * 256).round().int().tolist()
        with self.log.open("a") as file:
            file.write("".join(f"{high * 256 + low}\n" for high, low in pairs))
        return super().step(iter([batch]))


@dataclass(frozen=True)
class Noting:
    folder: str

    def __call__(self) -> Recording:
        return Recording(self.folder)


def numbered() -> Examples:
    """Blank pictures that say in two pixels which they are."""
    images = np.zeros((len(RECORDS), 1, 4, 4), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(len(RECORDS)), 256)
    return Examples(images, np.arange(len(RECORDS)) % 3)


def read_so_far(folder: str) -> dict[str, list[int]]:
    """By log; a last line that is being written is left out."""
    return {
        path.name: [int(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        for path in Path(folder).glob("read-by-*")
    }


class Watched:
    """The rounds of a job, and what has been read in them."""

    def __init__(self, rounds: Iterator[Round], workers: SparkWorkers, cluster: Cluster, folder: str) -> None:
        self.rounds, self.workers, self.cluster, self.folder = rounds, workers, cluster, folder

    def until_all_is_read(self, members: int) -> None:
        """Train with so many members, in one go, until each record has been read; and say so."""
        started = joined = time.monotonic()
        before: dict[str, list[int]] = {}
        since = -1
        for done in self.rounds:  # there are more than enough of them
            if time.monotonic() - started > SECONDS:
                sys.exit(f"not {members} members on all records in {SECONDS:g} s: {self.workers.members}")
            if len(done.members) != members:
                since = -1
                continue
            if since < 0:
                since, before, joined = done.number, read_so_far(self.folder), time.monotonic()
            elif self.read_since(before) == RECORDS:
                break
        found = {
            "members": len(done.members),
            "hosts": [self.host_of(who.pid) for who in self.workers.members],
            "seconds_to_join": round(joined - started, 1),
            "rounds": done.number - since + 1,
            "shards": sorted({report.read for report in done.reports}),
        }
        click.echo(json.dumps(found))

    def read_since(self, before: dict[str, list[int]]) -> set[int]:
        found = read_so_far(self.folder)
        return {record for name, numbers in found.items() for record in numbers[len(before.get(name, [])) :]}

    def host_of(self, pid: int) -> int:
        """Which of the cluster's hosts the process runs on, -1 for none."""
        return next((n for n, host in enumerate(self.cluster.hosts) if pid in host.pythons), -1)


def main() -> None:
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    warnings.simplefilter("ignore")
    with (
        tempfile.TemporaryDirectory(prefix="sparknet-growth-", ignore_cleanup_errors=True) as folder,
        Cluster(Path(folder), 1) as cluster,
    ):
        options = {
            "spark.ui.enabled": "false",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.memory": "512m",
            "spark.executor.memory": "512m",
            "spark.log.level": "OFF",
            "spark.local.dir": folder,
        }
        spark = session("growth", cluster.url, options)
        recipe = small_recipe(BATCH, replica=Noting(folder))
        try:
            with SparkWorkers(
                spark, recipe, from_examples(spark, numbered(), SHARDS), deadlines=DEADLINES
            ) as workers:
                grow_and_shrink(workers, cluster, folder)
        finally:
            spark.stop()


def grow_and_shrink(workers: SparkWorkers, cluster: Cluster, folder: str) -> None:
    watched = Watched(train(workers, Settings(rounds=10**6, tau=SHARD // BATCH)), workers, cluster, folder)
    watched.until_all_is_read(members=1)
    newcomer: Host = cluster.add()
    watched.until_all_is_read(members=2)
    newcomer.kill()
    watched.until_all_is_read(members=1)


if __name__ == "__main__":
    main()
