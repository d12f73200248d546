"""How much memory the driver needs when the workers average among themselves: it must not grow with them.

    python -m tests.bench.driver_memory                     244 MB of weights, K = 2 and K = 6, 2 minutes
    python -m tests.bench.driver_memory --size-mb 28 --exchange star

Each K has a driver process of its own, executors in their own JVMs, and a few rounds. The peak is that of the
driver's Python process (VmHWM) over what it was before the workers were asked for. In a ring the difference
between two K must be below one copy of the weights; a star needs a buffer for each worker.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import click
import numpy as np

from sparknet.data import Examples
from sparknet.spark import SparkWorkers, from_examples, session
from sparknet.training import Settings, train
from tests.bench.round_overhead import CONF
from tests.bench.scaling import recipe

ROUNDS = 4


def one_run(size: int, workers: int, exchange: str) -> dict[str, float]:
    """Peak MiB of the driver's Python, and of its JVM, in a process of its own."""
    task = json.dumps([size, workers, exchange])
    command = [sys.executable, "-m", "tests.bench.driver_memory", "--child", task]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    peaks: dict[str, float] = json.loads(text.splitlines()[-1])
    return peaks


def child(size: int, workers: int, exchange: str) -> None:
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    warnings.simplefilter("ignore", FutureWarning)
    options = {**CONF, "spark.executor.memory": "1024m"}
    spark = session("driver memory", f"local-cluster[{workers},1,1024]", options)
    count = workers * 8
    records = Examples(np.zeros((count, 1, 1, 1), np.uint8), np.zeros(count, np.int64))
    data = from_examples(spark, records, workers)
    before = resident(os.getpid(), "VmRSS")
    with SparkWorkers(spark, recipe(size), data, exchange=exchange) as crew:  # type: ignore[arg-type]
        for done in train(crew, Settings(rounds=ROUNDS, tau=1)):
            members = len(done.members)
    jvm = spark.sparkContext._gateway.proc.pid  # type: ignore[union-attr]
    python, java = resident(os.getpid(), "VmHWM") - before, resident(jvm, "VmHWM")
    spark.stop()
    click.echo(json.dumps({"python": python, "jvm": java, "members": members}))


def resident(pid: int, field: str) -> float:
    """MiB, from /proc."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


@click.command(help=__doc__)
@click.option("--size-mb", type=click.FloatRange(min=0.1), default=243.86, show_default=True)
@click.option("--workers", "-k", type=click.IntRange(min=1), multiple=True, default=(2, 6), show_default=True)
@click.option("--exchange", type=click.Choice(["ring", "star"]), default="ring", show_default=True)
@click.option("--child", "task", hidden=True)
def main(size_mb: float, workers: tuple[int, ...], exchange: str, task: str | None) -> None:
    if task:
        child(*json.loads(task))
        return
    copy = size_mb * 1e6 / (1 << 20)
    click.echo(f"{exchange}, {size_mb:g} MB of weights: one copy is {copy:.0f} MiB")
    click.echo(f"{'K':>4}{'Python':>12}{'JVM':>12}  peak MiB")
    peaks = {}
    for count in workers:
        found = one_run(round(size_mb * 1e6 / 4), count, exchange)
        peaks[count] = found["python"]
        members = f"({found['members']} members in the last round)"
        click.echo(f"{count:>4}{found['python']:>12.0f}{found['jvm']:>12.0f}  {members}")
    if len(peaks) > 1:
        spread = max(peaks.values()) - min(peaks.values())
        verdict = "met" if spread < copy else "NOT met"
        text = f"difference {spread:.0f} MiB, {spread / copy:.2f} copies"
        click.echo(f"{text}   aim: below 1 copy (ring)   {verdict}")


if __name__ == "__main__":
    main()
