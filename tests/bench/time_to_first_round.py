"""How long until training starts, and until a lost worker is back, with this package's daemon and without.

    python -m tests.bench.time_to_first_round [--workers 2] [--kills 3]

Every executor has a JVM of its own (local-cluster); the net is cifar10_quick, the records are drawn. In
seconds of wall time, so on a machine with nothing else to do:

    submit to first step    from the making of SparkWorkers to the end of the first round, of one step
    again                   the same on the same session: Spark's Python workers are there
    killed worker back      from kill -9 of a Python worker to the first round that it is in again
    killed executor back    from kill -9 of an executor's JVM to that; Spark starts a new JVM
    ... with torch imported by every worker       without this package's daemon (spark.python.daemon.module)

The goal is a lost worker back in under 5 s.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import click
from pyspark.sql import SparkSession

from apps.solvers import load
from sparknet.data import Examples, Transform
from sparknet.data.synthetic import draw
from sparknet.spark import Deadlines, SparkWorkers, from_examples, session
from sparknet.training import Round, Settings, train
from sparknet.worker import Recipe

GOAL_SECONDS = 5.0


def recipe() -> Recipe:
    model = load("cifar10_quick_solver.prototxt", (3, 32, 32), batch_size=100, test_batch_size=100)
    return Recipe(replica=model, batch_size=100, transform=Transform(), sampling="epoch")


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])


def first_round(spark: SparkSession, examples: Examples, workers: int) -> float:
    data = from_examples(spark, examples, workers)
    started = time.monotonic()
    with SparkWorkers(spark, recipe(), data, deadlines=Deadlines(join=300)) as crew:
        next(train(crew, Settings(rounds=1, tau=1)))
        return time.monotonic() - started


def back(crew: SparkWorkers, rounds: Iterator[Round], workers: int, *, executor: bool) -> float:
    """Kill a worker, or the JVM above it, and train until all are members again."""
    victim = crew.members[-1].pid
    target = parent(parent(victim)) if executor else victim
    os.kill(target, signal.SIGKILL)
    killed = time.monotonic()
    alone = False
    for done in rounds:
        alone = alone or len(done.members) < workers
        if alone and len(done.members) == workers:
            break
    return time.monotonic() - killed


def measure(name: str, options: dict[str, str], arguments: argparse.Namespace, examples: Examples) -> None:
    workers = arguments.workers
    started = time.monotonic()
    spark = session("time to first round", f"local-cluster[{workers},1,1024]", options)
    click.echo(f"{name} (session in {time.monotonic() - started:.1f} s)")
    for label in ("submit to first step", "again"):
        click.echo(f"    {label:<24} {first_round(spark, examples, workers):6.1f} s")
    data = from_examples(spark, examples, workers)
    with SparkWorkers(spark, recipe(), data, deadlines=Deadlines(join=300)) as crew:
        rounds = train(crew, Settings(rounds=10**6, tau=1))
        next(rounds)
        for label, executor in (("killed worker back", False), ("killed executor back", True)):
            times = [back(crew, rounds, workers, executor=executor) for _ in range(arguments.kills)]
            median = statistics.median(times)
            met = "met" if median < GOAL_SECONDS else "MISSED"
            click.echo(
                f"    {label:<24} {median:6.1f} s   best {min(times):.1f}, worst {max(times):.1f}, goal {met}"
            )
    spark.stop()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=3)
    arguments = parser.parse_args()
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    warnings.simplefilter("ignore", FutureWarning)
    plain = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.executor.memory": "1024m",
        "spark.log.level": "OFF",
    }
    examples = draw(seed=0).train[:2000]
    measure("with torch imported before the fork", plain, arguments, examples)
    own = {**plain, "spark.python.daemon.module": "pyspark.daemon"}
    measure("with torch imported by every worker", own, arguments, examples)


if __name__ == "__main__":
    main()
