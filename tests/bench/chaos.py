"""Training while its machines are killed, stopped and slowed: it ends, in time, with the same accuracy.

    ./run bench chaos                                   ten minutes of it, then the same rounds undisturbed
    ./run bench chaos --args '--seconds 60 --seed 3'
    ./run bench chaos --args '--how kill --whom python' kill -9 of one of eight workers, nothing else
    ./run bench chaos --args '--driver 20'              kill -9 of the driver, twenty times

On a Spark standalone cluster with hosts of its own, in a fifth of the rounds one of its Python workers,
executors or whole hosts, drawn by the seed, is killed (SIGKILL), stopped for some seconds (SIGSTOP, SIGCONT)
or slowed to a fifth (the same, many times a second). Exit status 0 if no round took longer than its deadlines
allow and the accuracy is within a point of the undisturbed run; else 1, saying what was wrong. Eight hosts
take some 10 GB of memory and, on two cores, a minute to start.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click
import torch
from pyspark.sql import SparkSession

from apps.solvers import load
from sparknet.algorithms import AVERAGE, Algorithm
from sparknet.caffe_replica import CaffeModel, CaffeReplica
from sparknet.data import Dataset, Transform, contiguous
from sparknet.data.dataset import Batch
from sparknet.data.locate import locate
from sparknet.local import LocalWorkers
from sparknet.spark import Deadlines, SparkWorkers, from_examples, session
from sparknet.training import Round, Settings, train
from sparknet.worker import Recipe
from tests.bench.driver_kills import kill_drivers
from tests.bench.standalone import Cluster, Host, in_background, kill_all, slow_for, stop_for

SHARE = 0.2
"""Of the rounds, in which something happens."""

HOW = ["kill", "stop", "slow"]
WHOM = ["python", "executor", "host"]

DEADLINES = Deadlines(join=120, round=20, quorum=0.5, grace=2, ping=1, send=10, stop=15)
# Nothing may take longer: all lost at the deadline of a round, the next ones there at the last moment.
LONGEST = DEADLINES.round + DEADLINES.join
# Of a pause, in seconds: no more of the time in which a process is stopped counts.
_SLICE = 0.005


class Paced(CaffeReplica):
    """A replica whose steps last ``pause`` seconds longer: rounds long enough to be hit, at little cost.

    It stands for computing: time in which the process is stopped does not count.
    """

    pause = 0.0

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        left = self.pause
        while left > 0:
            began = time.monotonic()
            time.sleep(min(left, _SLICE))
            left -= min(time.monotonic() - began, 2 * _SLICE)
        return super().step(batches)


class PacedModel:
    """Builds one in a process that computes with one thread."""

    def __init__(self, model: CaffeModel, pause: float) -> None:
        self.model, self.pause = model, pause

    def __call__(self) -> CaffeReplica:
        torch.set_num_threads(1)
        replica = Paced(self.model.net, self.model.solver)
        replica.pause = self.pause
        return replica


class Chaos:
    """Draws what happens to whom; ``happened`` counts it."""

    def __init__(self, cluster: Cluster, seed: int, how: list[str], whom: list[str]) -> None:
        self.cluster, self.rng = cluster, random.Random(seed)
        self.how, self.whom = how, whom
        self.happened: Counter[str] = Counter()
        self.away: list[Host] = []
        self.threads: list[threading.Thread] = []

    def after(self, done: Round) -> None:
        if self.rng.random() >= SHARE:
            return
        what, whom = self.rng.choice(self.how), self.rng.choice(self.whom)
        host = self.rng.choice(self.cluster.hosts)
        pause, seconds = self.rng.uniform(0, 1), self.rng.uniform(1, 8)
        self.threads.append(in_background(self.strike, what, whom, host, pause, seconds))

    def join(self) -> None:
        """Wait until all that has been struck goes on, or has been replaced."""
        for thread in self.threads:
            thread.join()

    def strike(self, what: str, whom: str, host: Host, pause: float, seconds: float) -> None:
        time.sleep(pause)
        pids = {"python": host.pythons, "executor": host.executors, "host": host.processes}[whom]
        if not pids or host not in self.cluster.hosts or host in self.away:
            self.happened["nobody there"] += 1
            return
        self.happened[f"{what} {whom}"] += 1
        if what == "stop":
            stop_for(pids, seconds)
        elif what == "slow":
            slow_for(pids, seconds)
        elif whom == "host":
            self.away.append(host)
            host.kill()
            time.sleep(seconds)
            self.cluster.replace(host)
        else:
            kill_all(pids)


def recipe(options: argparse.Namespace, dataset: Dataset, pause: float) -> Recipe:
    model = load("lenet_solver.prototxt", dataset.train.shape, batch_size=16, test_batch_size=100)
    return Recipe(
        replica=PacedModel(model, pause),
        batch_size=16,
        transform=Transform(scale=1 / 256),
        test_batch_size=100,
        sampling="epoch",
        seed=options.seed,
    )


def run(
    options: argparse.Namespace, dataset: Dataset, rounds: int | None, disturbed: bool
) -> tuple[list[Round], Counter[str]]:
    """``rounds`` rounds, or as many as there is time for; the last one is tested."""
    done: list[Round] = []
    with cluster_and_session(options.hosts) as (cluster, spark):
        chaos = Chaos(cluster, options.seed, options.how, options.whom)
        data = from_examples(spark, dataset.train, options.hosts)
        made = recipe(options, dataset, options.pause if disturbed else 0.0)
        with SparkWorkers(spark, made, data, dataset.test, deadlines=DEADLINES) as crew:
            ends = math.inf
            for one in train(crew, Settings(rounds=rounds or 10**6, tau=options.tau)):
                done.append(one)
                ends = min(ends, time.monotonic() + options.seconds)  # the clock starts with the first round
                if rounds is None and time.monotonic() > ends:
                    break
                if disturbed:
                    chaos.after(one)
            chaos.join()
            scores = crew.test(done[-1].weights)
    click.echo(summary("disturbed" if disturbed else "undisturbed", done, scores.means["accuracy"]))
    return [*done[:-1], replace(done[-1], scores=scores)], chaos.happened


def undisturbed(options: argparse.Namespace, dataset: Dataset, rounds: int) -> list[Round]:
    return run(options, dataset, rounds, disturbed=False)[0]


def here(
    options: argparse.Namespace, dataset: Dataset, rounds: int, chosen: Algorithm = AVERAGE
) -> list[Round]:
    """The undisturbed run in this process: the same weights, bit for bit, without another cluster."""
    shards = [dataset.train[part] for part in contiguous(len(dataset.train), options.hosts)]
    settings = chosen.settings(rounds=rounds, tau=options.tau, test_every=rounds)
    with LocalWorkers(recipe(options, dataset, 0.0), shards, dataset.test) as workers:
        done = list(chosen.train(workers, settings, chosen.outer()))
    click.echo(summary("undisturbed", done, done[-1].accuracy or 0))
    return done


@contextmanager
def cluster_and_session(hosts: int) -> Iterator[tuple[Cluster, SparkSession]]:
    with (
        tempfile.TemporaryDirectory(prefix="sparknet-chaos-", ignore_cleanup_errors=True) as folder,
        Cluster(Path(folder), hosts) as cluster,
    ):
        options = {
            "spark.ui.enabled": "false",
            "spark.driver.host": "127.0.0.1",
            "spark.log.level": "OFF",
            "spark.driver.memory": "512m",
            "spark.executor.memory": "512m",  # the least that Spark takes is 450 MB
            "spark.executor.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
            "spark.local.dir": folder,
        }
        spark = session("chaos", cluster.url, options)
        try:
            yield cluster, spark
        finally:
            spark.stop()


def summary(name: str, done: list[Round], accuracy: float) -> str:
    later = sorted(one.seconds for one in done[1:]) or [0.0]
    losses = sum(len(one.result.lost) for one in done)
    members = sum(len(one.members) for one in done) / len(done)
    return (
        f"{name}: {len(done)} rounds, accuracy {100 * accuracy:.2f} %, {losses} losses, "
        f"{members:.2f} members on average; seconds of a round: median {later[len(later) // 2]:.2f}, "
        f"longest {later[-1]:.2f}"
    )


def machines(options: argparse.Namespace) -> str | None:
    """What was wrong, or None."""
    dataset = locate("mnist", options.data).dataset
    disturbed, happened = run(options, dataset, None, disturbed=True)
    click.echo("what happened: " + ", ".join(f"{name} {count}" for name, count in sorted(happened.items())))
    again = here if options.here else undisturbed
    plain = again(options, dataset, len(disturbed))
    longest = max(one.seconds for one in disturbed[1:])
    if longest > LONGEST:
        return f"a round took {longest:.1f} s, more than {LONGEST:g} s"
    lost = (plain[-1].accuracy or 0) - (disturbed[-1].accuracy or 0)
    if 100 * lost > options.points:
        return f"chaos cost {100 * lost:.2f} points of accuracy"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600, help="how long to disturb (600)")
    parser.add_argument("--hosts", type=int, default=8, help="with a worker each (8)")
    parser.add_argument("--how", nargs="+", choices=HOW, default=HOW, help="what happens (all of it)")
    parser.add_argument("--whom", nargs="+", choices=WHOM, default=WHOM, help="to whom (all of them)")
    parser.add_argument("--tau", type=int, default=20)
    parser.add_argument(
        "--pause", type=float, default=0.05, help="seconds added to each step of a disturbed run"
    )
    parser.add_argument("--points", type=float, default=1, help="of accuracy that may be lost (1)")
    parser.add_argument("--here", action="store_true", help="make the undisturbed run in this process")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", default="auto", help="MNIST: a folder, auto or synthetic")
    parser.add_argument("--driver", type=int, default=0, metavar="TIMES", help="kill the driver instead")
    options = parser.parse_args()
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    warnings.simplefilter("ignore", FutureWarning)
    wrong = kill_drivers(options.driver, options.seed) if options.driver else machines(options)
    click.echo(f"FAILED: {wrong}" if wrong else "passed")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
