"""What a round costs beyond its compute: the whole engine on Spark against the same steps in one process.

    python -m tests.bench.round_overhead [--workers 2] [--rounds 60] [--tau 1] [--models quick,googlenet]

Every executor has a JVM of its own (local-cluster). The workers really train: "compute" is the time of the
slowest worker's steps inside its task, overhead is the round's time, measured in the driver, minus that. The
rows below the first compare: the same steps on the same data in this process, and the bare bytes there and
back over loopback TCP. Timings of a busy machine mean little; compare rows of one table.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Literal

import click
import numpy as np
import torch

from sparknet.data import Examples, Transform, contiguous
from sparknet.local import LocalWorkers
from sparknet.replica import Batch
from sparknet.spark import SparkWorkers, from_examples, session
from sparknet.training import Settings, train
from sparknet.weights import Layout
from sparknet.worker import Recipe

SIZES = {"quick": 145_578, "lenet": 431_080, "googlenet": 6_998_552, "caffenet": 60_965_224}
"""Number of float32 weights."""


class Scaling:
    """A replica whose step is one pass over its weights: all cost is the engine's."""

    batches_per_step, iteration, lr, statistics = 1, 0, 1.0, ()

    def __init__(self, size: int) -> None:
        self.layout, self.weights = Layout.of({"w": (size,)}), torch.ones(size)

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        next(batches)
        self.weights.mul_(0.999)
        self.iteration += 1
        return self.weights[0].clone()

    def score(self, batch: Batch) -> dict[str, float]:
        return {"loss": 0.0}

    def history(self) -> torch.Tensor:
        return torch.empty(0)

    def restore_history(self, history: torch.Tensor) -> None:
        """There is none."""


EXCHANGES: tuple[Literal["star", "ring"], ...] = ("star", "ring")


def recipe(size: int) -> Recipe:
    return Recipe(replica=lambda: Scaling(size), batch_size=1, transform=Transform())


def line(name: str, values: list[float]) -> None:
    ordered = sorted(values)
    p90 = ordered[int(0.9 * len(ordered))]
    median = statistics.median(values)
    click.echo(
        f"    {name:<34} median {1e3 * median:9.2f} ms   min {1e3 * ordered[0]:9.2f}   p90 {1e3 * p90:9.2f}"
    )


def loopback(size: int, workers: int, rounds: int) -> list[float]:
    """The same bytes to ``workers`` threads and back, with nothing else."""
    server = socket.create_server(("127.0.0.1", 0))
    count = 4 * size

    def echo() -> None:
        with socket.create_connection(server.getsockname()) as end:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            data = memoryview(bytearray(count))
            for _ in range(rounds):
                fill(end, data)
                end.sendall(data)

    threads = [threading.Thread(target=echo) for _ in range(workers)]
    for thread in threads:
        thread.start()
    ends = [server.accept()[0] for _ in range(workers)]
    data, times = memoryview(bytearray(count)), []
    for _ in range(rounds):
        started = time.perf_counter()
        for end in ends:
            end.sendall(data)
        for end in ends:
            fill(end, data)
        times.append(time.perf_counter() - started)
    for thread in threads:
        thread.join()
    for end in [*ends, server]:
        end.close()
    return times


def fill(end: socket.socket, view: memoryview) -> None:
    while view:
        view = view[end.recv_into(view) :]


def measure(size: int, options: argparse.Namespace) -> None:
    records = Examples(
        np.zeros((options.workers * 8, 1, 1, 1), np.uint8), np.zeros(options.workers * 8, np.int64)
    )
    settings = Settings(rounds=options.rounds, tau=options.tau)
    shards = [records[part] for part in contiguous(len(records), options.workers)]
    with LocalWorkers(recipe(size), shards) as here:
        local = list(train(here, settings))
    spark = session(
        "round overhead",
        f"local-cluster[{options.workers},1,2048]",
        {"spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.executor.memory": "2048m",
         "spark.log.level": "OFF"},
    )  # fmt: skip
    data = from_examples(spark, records, options.workers)
    for exchange in EXCHANGES:
        with SparkWorkers(spark, recipe(size), data, exchange=exchange) as crew:
            remote = list(train(crew, settings))[1:]  # the first waits for the executors
        assert np.allclose(remote[-1].weights, local[-1].weights, rtol=1e-6)
        line(f"{exchange}: round - slowest worker", [done.exchange_seconds for done in remote])
        line(f"{exchange}: the round itself", [done.seconds for done in remote])
        line(f"{exchange}: its compute", [done.compute_seconds for done in remote])
        down, up = remote[-1].bytes_sent, remote[-1].bytes_received
        click.echo(f"    {exchange}: driver sends {down:,} and receives {up:,} bytes a round")
    line("the same round in one process", [one.seconds for one in local])
    line("the bytes alone, loopback", loopback(size, options.workers, options.rounds))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--tau", type=int, default=1)
    parser.add_argument("--models", default="quick,googlenet", help=f"of {', '.join(SIZES)}")
    options = parser.parse_args()
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    warnings.simplefilter("ignore", FutureWarning)
    for name in options.models.split(","):
        size = SIZES[name]
        shape = f"K = {options.workers}, tau = {options.tau}, {options.rounds} rounds"
        click.echo(f"{name}: {4 * size / 1e6:.2f} MB, {shape}")
        measure(size, options)
        sys.stdout.flush()


if __name__ == "__main__":
    main()
