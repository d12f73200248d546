"""A thousand rounds: does anything grow? Memory, threads, sockets and files of driver and workers.

    ./run bench leaks
    ./run bench leaks --args '--rounds 5000 --size 60965224'
    ./run bench leaks --args '--rounds 5000 --kill-every 50'    while workers are killed (SIGKILL)

Two executors in JVMs of their own and nets that compute nothing: all that happens is the engine's, tests
and checkpoints included. After a warm-up of a third, a line is fitted to each figure: what it says a thousand
rounds add is shown, and must be less than the limit.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import click
import numpy as np
from pyspark.sql import SparkSession

from sparknet.checkpoint import Checkpoints
from sparknet.data import Examples
from sparknet.outer import Average
from sparknet.spark import SparkWorkers, from_examples, session
from sparknet.training import Settings, train
from tests.bench import scaling
from tests.bench.standalone import command_of, descendants, parent_of

MEMORY, THREADS, SOCKETS, FILES = "memory, MiB", "threads", "sockets", "files"

Limits = dict[str, float]

LIMITS: Limits = {MEMORY: 4.0, THREADS: 1.0, SOCKETS: 1.0, FILES: 1.0}
"""What a thousand rounds may add: less than one thread or file, and no copy of the weights a round by far."""

JVM_LIMITS: Limits = {MEMORY: 24.0, THREADS: 8.0, SOCKETS: 2.0, FILES: 8.0}
"""A JVM compiles, loads classes and starts pool threads at its leisure."""


@dataclass
class Series:
    """What one process had of one thing after some rounds."""

    who: str
    what: str
    limit: float
    rounds: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    @property
    def growth(self) -> float:
        """Per thousand rounds, by the line through the values after the first third."""
        warm = len(self.rounds) // 3
        return float(1000 * np.polyfit(self.rounds[warm:], self.values[warm:], 1)[0])

    @property
    def leaks(self) -> bool:
        return self.growth > self.limit

    def __str__(self) -> str:
        return (
            f"{self.who:<20}{self.what:<14}{self.values[0]:10.1f}{self.values[-1]:10.1f}{self.growth:12.2f}"
            f"{self.limit:8.0f}  {'LEAKS' if self.leaks else ''}"
        )


class Watched:
    """The processes of a run, sampled."""

    def __init__(self, processes: dict[str, int]) -> None:
        self.processes = processes
        self.series: dict[tuple[str, str], Series] = {}

    def sample(self, number: int) -> None:
        for who, pid in self.processes.items():
            limits = JVM_LIMITS if "JVM" in who else LIMITS
            for what, value in measured(pid).items():
                series = self.series.setdefault((who, what), Series(who, what, limits[what]))
                series.rounds.append(number)
                series.values.append(value)


def measured(pid: int) -> dict[str, float]:
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
    )
    opened = list(links(pid))
    sockets = sum(target.startswith("socket:") for target in opened)
    return {
        MEMORY: int(status["VmRSS"].split()[0]) / 1024,
        THREADS: int(status["Threads"]),
        SOCKETS: sockets,
        FILES: len(opened) - sockets,
    }


def links(pid: int) -> Iterator[str]:
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            yield str(entry.readlink())


def processes(crew: SparkWorkers, *, lasting: bool) -> dict[str, int]:
    """Driver, its JVM, the workers and theirs; only those that no worker takes along if ``lasting``."""
    jvm = next(pid for pid in descendants(os.getpid()) if "java" in command_of(pid).split(" ")[0])
    workers = {f"worker {who.partition}": who.pid for who in crew.members}
    executors = {f"{name}'s JVM": parent_of(parent_of(pid)) for name, pid in workers.items()}
    return {"driver": os.getpid(), "driver's JVM": jvm, **({} if lasting else workers), **executors}


def run(
    spark: SparkSession,
    exchange: Literal["star", "ring"],
    *,
    workers: int,
    rounds: int,
    size: int,
    kill_every: int = 0,
) -> list[Series]:
    """What was seen in ``rounds`` rounds of ``workers`` workers with ``size`` weights, one of which is killed
    every ``kill_every`` rounds: then it is of the processes that live on."""
    rng, killed = random.Random(1), 0
    records = Examples(np.zeros((workers * 8, 1, 1, 1), np.uint8), np.zeros(workers * 8, np.int64))
    recipe = scaling.recipe(size)
    data, outer, every = from_examples(spark, records, workers), Average(), max(1, rounds // 40)
    with (
        tempfile.TemporaryDirectory(prefix="sparknet-leaks-") as folder,
        SparkWorkers(spark, recipe, data, records, exchange=exchange) as crew,
    ):
        checkpoints = Checkpoints(folder, every=5 * every)
        watched: Watched | None = None
        for done in train(crew, Settings(rounds=rounds, tau=1, test_every=every), outer):
            checkpoints.after(done, crew, outer)
            if kill_every and done.number % kill_every == 0 and len(crew.members) == workers:
                os.kill(rng.choice(crew.members).pid, signal.SIGKILL)
                killed += 1
            if done.number % every == 0:
                watched = watched or Watched(processes(crew, lasting=kill_every > 0))
                watched.sample(done.number)
    if kill_every:
        click.echo(f"{killed} workers killed")
    assert watched
    return list(watched.series.values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--size", type=int, default=145_578, help="number of weights (cifar10_quick's)")
    parser.add_argument("--kill-every", type=int, default=0, help="rounds after which a worker is killed")
    options = parser.parse_args()
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    os.environ.setdefault("PYSPARK_SUBMIT_ARGS", "--driver-memory 512m pyspark-shell")
    warnings.simplefilter("ignore", FutureWarning)
    spark = session(
        "leaks",
        f"local-cluster[{options.workers},1,512]",
        {"spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.executor.memory": "512m",
         "spark.log.level": "OFF"},
    )  # fmt: skip
    leaks = 0
    for exchange in ("star", "ring"):
        click.echo(
            f"{exchange}, {options.rounds} rounds of {options.workers} workers, {4e-6 * options.size:.2f} MB"
        )
        click.echo(f"{'who':<20}{'what':<14}{'first':>10}{'last':>10}{'per 1,000':>12}{'limit':>8}")
        found = run(
            spark,
            exchange,
            workers=options.workers,
            rounds=options.rounds,
            size=options.size,
            kill_every=options.kill_every,
        )
        for series in found:
            click.echo(str(series))
        leaks += sum(series.leaks for series in found)
    spark.stop()
    click.echo(f"FAILED: {leaks} of them grow" if leaks else "nothing grows")
    sys.exit(1 if leaks else 0)


if __name__ == "__main__":
    main()
