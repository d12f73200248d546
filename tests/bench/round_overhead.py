"""What a round costs beyond its compute: the engine on Spark against the bare bytes and SparkNet's own loop.

    python -m tests.bench.round_overhead                              all sizes, about 5 minutes
    python -m tests.bench.round_overhead --sizes 0.58 --workers 2     the smallest, under a minute
    python -m tests.bench.round_overhead --sizes 244 --wires float32,bfloat16 --exchanges ring
    python -m tests.bench.round_overhead --sizes 244 --exchanges ring --gbit 10       on a slow network; root

Every executor has a JVM of its own (local-cluster). The workers really train (one pass over the weights a
step): overhead is the round's time, measured in the driver, minus the slowest worker's steps. In the same run
are timed: the same bytes over loopback TCP, once down and once up over one connection (the floor) and over K
at once; and a straight port of SparkNet's loop (``straight_port.py``). Timings of a busy machine mean little:
compare the rows of one table, and their minima. With ``--gbit`` all of it runs on a network of its own, whose
loopback carries so much in all, both ways together.
"""

from __future__ import annotations

import os
import shlex
import statistics
import sys
import warnings
from typing import Literal, NoReturn, get_args

import click
import numpy as np
from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from sparknet.codecs import CODECS
from sparknet.data import Examples
from sparknet.spark import SparkWorkers, from_examples, session
from sparknet.training import Settings, train
from tests.bench import scaling, straight_port
from tests.bench.loopback import floor

SIZES = {"0.58": 145_578, "1.7": 431_080, "28": 6_998_552, "244": 60_965_224}
"""Number of float32 weights by their MB: cifar10_quick, LeNet, GoogLeNet and CaffeNet."""

ROUNDS = {"0.58": 300, "1.7": 200, "28": 40, "244": 12}
PORT_ROUNDS = {"0.58": 10, "1.7": 10, "28": 5, "244": 2}

Exchange = Literal["star", "ring"]


class Table:
    """The rows of one size, and the aims they are held to."""

    def __init__(self, title: str) -> None:
        self.medians: dict[str, float] = {}
        click.echo(f"\n{title}\n{'':<36}{'median':>10}{'min':>10}{'p90':>10} ms")

    def add(self, name: str, seconds: list[float]) -> None:
        ordered = sorted(seconds)
        median = self.medians[name] = 1e3 * statistics.median(ordered)
        p90 = 1e3 * ordered[int(0.9 * len(ordered))]
        click.echo(f"{name:<36}{median:>10.2f}{1e3 * ordered[0]:>10.2f}{p90:>10.2f}")

    def aim(self, what: str, name: str, limit: float, of: str | None = None) -> None:
        """The median of a row, or its ratio to that of another, must be at most ``limit``."""
        if name not in self.medians or (of and of not in self.medians):
            return
        value = self.medians[name] / (self.medians[of] if of else 1.0)
        verdict = "met" if value <= limit else "NOT met"
        click.echo(f"  {what:<60}{value:>9.3f}   aim: at most {limit:g}   {verdict}")


def overheads(
    spark: SparkSession, size: int, workers: int, rounds: int, exchange: Exchange, wire: str
) -> tuple[list[float], str]:
    """Seconds of each round but the first two, and what it sent."""
    count = workers * 8
    records = Examples(np.zeros((count, 1, 1, 1), np.uint8), np.zeros(count, np.int64))
    data = from_examples(spark, records, workers)
    times = []
    with SparkWorkers(spark, scaling.recipe(size), data, exchange=exchange, wire=wire) as crew:
        for done in train(crew, Settings(rounds=rounds + 3, tau=1)):
            if 2 < done.number < done.rounds:  # the first wait for the executors, the last fetches
                times.append(done.exchange_seconds)
                result = done.result
    traffic = (result.bytes_sent, result.bytes_received, result.bytes_between)
    weights = 4 * size
    return times, " + ".join(f"{part / weights:.3f}" for part in traffic)


def measure(
    spark: SparkSession,
    name: str,
    workers: int,
    rounds: int | None,
    port_rounds: int | None,
    exchanges: list[Exchange],
    wires: list[str],
) -> None:
    size, rounds = SIZES[name], rounds or ROUNDS[name]
    table = Table(f"{4 * size / 1e6:.2f} MB of weights, K = {workers}, {rounds} rounds")
    floors = max(5, rounds // 4)
    one, all_ = floor(4 * size, 1, floors), floor(4 * size, workers, floors)
    traffic = {}
    for wire in wires:
        for exchange in exchanges:
            row = f"{exchange}, {wire}"
            times, traffic[row] = overheads(spark, size, workers, rounds, exchange, wire)
            table.add(row, times)
    one += floor(4 * size, 1, floors)
    all_ += floor(4 * size, workers, floors)
    table.add("floor: down and up, one connection", one)
    table.add("floor: down and up, K connections", all_)
    if port_rounds != 0:
        add_port(table, spark, size, workers, port_rounds or PORT_ROUNDS[name])
    click.echo("  bytes a round, in vectors of float32: driver sends + receives + workers to each other")
    for row, parts in traffic.items():
        click.echo(f"    {row:<24}{parts}")
    tell_aims(table, name)


def add_port(table: Table, spark: SparkSession, size: int, workers: int, rounds: int) -> None:
    name = "SparkNet's loop, straight port"
    try:
        table.add(name, straight_port.overheads(spark, size, workers, rounds))
    except (PySparkException, Py4JError, OSError) as error:  # it needs several copies in the driver's JVM
        click.echo(f"{name:<36}failed: {str(error).strip().splitlines()[0][:80]}")


def tell_aims(table: Table, name: str) -> None:
    lone = "floor: down and up, one connection"
    if name == "0.58":
        table.aim("star, median ms", "star, float32", 3.0)
        table.aim("star / straight port", "star, float32", 1 / 50, "SparkNet's loop, straight port")
    if name == "244":
        table.aim("ring / floor", "ring, float32", 1.3, lone)
        table.aim("ring, bfloat16 / float32", "ring, bfloat16", 0.7, "ring, float32")
        table.aim("star, bfloat16 / float32", "star, bfloat16", 0.7, "star, float32")


@click.command(help=__doc__)
@click.option("--workers", "-k", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--sizes", default="0.58,28,244", show_default=True, help=f"MB, of {', '.join(SIZES)}")
@click.option("--exchanges", default="star,ring", show_default=True)
@click.option("--wires", default=",".join(CODECS), show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), help="By size if not given.")
@click.option("--port-rounds", type=click.IntRange(min=0), help="Of the straight port; 0 leaves it out.")
@click.option("--gbit", type=click.FloatRange(min=0.1), help="Gbit/s that loopback carries; needs root.")
def main(
    workers: int,
    sizes: str,
    exchanges: str,
    wires: str,
    rounds: int | None,
    port_rounds: int | None,
    gbit: float | None,
) -> None:
    if gbit:
        run_again_at(gbit)
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    # a session's settings come too late for the JVM's heap, which the straight port fills
    os.environ.setdefault("PYSPARK_SUBMIT_ARGS", "--driver-memory 6g pyspark-shell")
    warnings.simplefilter("ignore", FutureWarning)
    spark = session("round overhead", f"local-cluster[{workers},1,2048]", CONF)
    chosen: list[Exchange] = [one for one in get_args(Exchange) if one in exchanges.split(",")]
    try:
        for name in sizes.split(","):
            measure(spark, name, workers, rounds, port_rounds, chosen, wires.split(","))
    finally:
        spark.stop()


def run_again_at(gbit: float) -> NoReturn:
    """This command in a network namespace that ends with it."""
    given = sys.argv[1:]
    place = next(k for k, word in enumerate(given) if word.startswith("--gbit"))
    del given[place : place + (1 if "=" in given[place] else 2)]
    command = shlex.join([sys.executable, "-m", "tests.bench.round_overhead", *given])
    limit = f"tc qdisc add dev lo root tbf rate {gbit}gbit burst 2mb latency 50ms"
    os.execvp("unshare", ["unshare", "--net", "sh", "-c", f"ip link set lo up && {limit} && exec {command}"])


CONF = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.maxResultSize": "0",
    "spark.executor.memory": "2048m",
    "spark.log.level": "OFF",
}


if __name__ == "__main__":
    main()
