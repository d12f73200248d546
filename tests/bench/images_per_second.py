"""Images per second of the whole engine: against bare processes, and against TorchDistributor with DDP.

    python -m tests.bench.images_per_second                  K = 2, one thread each; about 3 minutes
    python -m tests.bench.images_per_second --workers 1 --repeats 1 --steps 20

cifar10_quick, batch 100 for each worker, on random pictures. Taken in turns, ``--repeats`` times each:

    serial    K processes, started together, each alone with the same net, solver, batches and threads
    tau 10    SparkWorkers, 10 steps a round
    tau 1     SparkWorkers, 1 step a round: the batch of all workers, as DDP's
    sync      SparkWorkers, the mean gradient in every step, in buckets that travel while it is computed
    DDP       TorchDistributor and DistributedDataParallel with the same net in plain torch

The time to the first step runs from the call to the start of a worker's first step, in a Spark session that
is there, whose executors have run a Python job before.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import torch
import torch.distributed as dist
from pyspark.sql import SparkSession

from apps.solvers import load
from sparknet.data import Examples, Transform
from sparknet.spark import SparkWorkers, from_examples, session
from sparknet.trainer.nets import Threaded
from sparknet.training import RoundPlan, Settings, train
from sparknet.worker import Recipe
from tests.bench import torch_distributor
from tests.bench.round_overhead import CONF

BATCH, RECORDS, WARM = 100, 2_000, 10
ROOT = Path(__file__).resolve().parent.parent.parent


def pictures(workers: int) -> Examples:
    rng = np.random.default_rng(0)
    count = workers * RECORDS
    return Examples(rng.integers(0, 256, (count, 3, 32, 32), np.uint8), rng.integers(0, 10, count))


def recipe() -> Recipe:
    model = load("cifar10_quick_solver.prototxt", (3, 32, 32), batch_size=BATCH, test_batch_size=BATCH)
    return Recipe(replica=Threaded(model=model, threads=1), batch_size=BATCH, transform=Transform())


def serial(workers: int, steps: int) -> tuple[float, float]:
    """Images/s of all processes together; they begin to measure when all have warmed up."""
    command = [sys.executable, "-m", "tests.bench.images_per_second", "--child", str(steps)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    others = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
        )
        for _ in range(workers)
    ]
    for other in others:
        assert other.stdout is not None
        other.stdout.readline()
    for other in others:
        assert other.stdin is not None
        other.stdin.write("go\n")
        other.stdin.flush()
    rates = [json.loads(other.communicate()[0]) for other in others]
    return sum(rates), 0.0


def serial_child(steps: int) -> None:
    worker = recipe().worker(0, pictures(1))
    worker.train(worker.vector, RoundPlan(tau=WARM))
    click.echo("warm")
    sys.stdin.readline()
    started = time.perf_counter()
    worker.train(worker.vector, RoundPlan(tau=steps))
    click.echo(json.dumps(steps * BATCH / (time.perf_counter() - started)))


def engine(
    spark: SparkSession, workers: int, steps: int, tau: int, *, sync: bool = False
) -> tuple[float, float]:
    """Images/s in the rounds after the first; seconds until the first step."""
    data = from_examples(spark, pictures(workers), workers)
    started = time.perf_counter()
    with SparkWorkers(spark, recipe(), data, exchange="ring" if sync else "auto") as crew:
        warm = max(1, WARM // tau)
        images = 0
        for done in train(crew, Settings(rounds=warm + steps // tau, tau=tau, gradients=sync)):
            now = time.perf_counter()
            if done.number == 1:
                first = now - done.compute_seconds - started
            if done.number == warm:
                began = now
            elif done.number > warm:
                images += done.images
    return images / (now - began), first


def distributed(workers: int, steps: int) -> tuple[float, float]:
    """Images/s and seconds until the first step with TorchDistributor and DDP."""
    (first, rate), submitted = torch_distributor.distributed(workers, ddp_rate, steps)
    return rate, first - submitted


def ddp_rate(steps: int) -> tuple[float, float]:
    """What each of its processes runs; the first one's answer comes back."""
    with torch_distributor.group():
        return _ddp_rate(steps)


def _ddp_rate(steps: int) -> tuple[float, float]:
    net = torch_distributor.Net(lr=0.001)
    examples = pictures(1)
    images, labels = torch.from_numpy(examples.images), torch.from_numpy(examples.labels)

    def go(count: int) -> None:
        for _ in range(count):
            rows = torch.randint(len(labels), (BATCH,))
            net.step(images[rows].float(), labels[rows])
        dist.barrier()

    first = time.time()
    go(WARM)
    started = time.perf_counter()
    go(steps)
    rate = dist.get_world_size() * steps * BATCH / (time.perf_counter() - started)
    return first, rate


def compare(runs: dict[str, Callable[[], tuple[float, float]]], repeats: int) -> None:
    rates: dict[str, list[float]] = {name: [] for name in runs}
    starts: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            rate, start = run()
            rates[name].append(rate)
            starts[name].append(start)
    click.echo(f"\n{'':<12}{'images/s':>10}{'of each run':>24}{'first step after':>20}")
    for name in runs:
        each = ", ".join(f"{rate:.0f}" for rate in rates[name])
        start = f"{statistics.median(starts[name]):.1f} s" if any(starts[name]) else ""
        click.echo(f"{name:<12}{statistics.median(rates[name]):>10.0f}{each:>24}{start:>20}")
    _aims(rates, starts)


def _aims(rates: dict[str, list[float]], starts: dict[str, list[float]]) -> None:
    def ratio(values: dict[str, list[float]], one: str, other: str) -> float:
        """Of neighbours in time: the median over the repeats."""
        return statistics.median(a / b for a, b in zip(values[one], values[other], strict=True))

    def show(what: str, value: float, limit: str, met: bool) -> None:
        click.echo(f"{what:<36}{value:>8.3f}   aim: {limit:<16}{'met' if met else 'NOT met'}")

    for one, other, least in (
        ("tau 10", "serial", 0.95),
        ("tau 1", "DDP", 1.0),
        ("sync", "tau 1", 1.0),
        ("sync", "DDP", 1.0),
        ("tau 10", "DDP", 1.05),
    ):
        value = ratio(rates, one, other)
        show(f"images/s, {one} / {other}", value, f"at least {least:g}", value >= least)
    value = ratio(starts, "tau 10", "DDP")
    show("time to first step, ours / DDP", value, "at most 0.333", value <= 1 / 3)


def warm_session(name: str, workers: int) -> SparkSession:
    """Executors with a JVM and a core each, whose Python has run a job before."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    warnings.simplefilter("ignore", FutureWarning)
    options = {**CONF, "spark.driver.memory": "4g", "spark.executorEnv.OMP_NUM_THREADS": "1"}
    spark = session(name, f"local-cluster[{workers},1,2048]", options)
    spark.sparkContext.parallelize(range(workers), workers).map(lambda _: time.sleep(1)).collect()
    return spark


@click.command(help=__doc__)
@click.option("--workers", "-k", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--steps", type=click.IntRange(min=10), default=100, show_default=True, help="Of each worker.")
@click.option("--repeats", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--child", type=int, hidden=True)
def main(workers: int, steps: int, repeats: int, child: int | None) -> None:
    if child:
        serial_child(child)
        return
    spark = warm_session("images per second", workers)
    try:
        compare(
            {
                "serial": lambda: serial(workers, steps),
                "tau 10": lambda: engine(spark, workers, steps, 10),
                "tau 1": lambda: engine(spark, workers, steps, 1),
                "sync": lambda: engine(spark, workers, steps, 1, sync=True),
                "DDP": lambda: distributed(workers, steps),
            },
            repeats,
        )
    finally:
        spark.stop()


if __name__ == "__main__":
    main()
