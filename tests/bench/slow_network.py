"""Training over slow links: rounds that wait for their averages, and rounds that overlap; needs root.

    ./run bench slow_network                                         10 Mbit/s, 100 ms: about 10 minutes
    ./run bench slow_network --args '--delay-ms 0 --exchange ring'
    ./run bench slow_network --args '--megabytes 244 --mbit 1000 --delay-ms 0 --exchange ring --wires float32
                                     --tau 90 --no-auto'
    ./run bench slow_network --args '--mbit 100 --delay-ms 0 --exchange ring --tau 1 --no-auto --sync --ddp
                                     --wires float32'

Each worker is a process with one thread in a network namespace of its own (``links.py``), and trains
cifar10_quick on drawn pictures, or goes over a vector of ``--megabytes``. In turns are run: the same without
a limit (what the network costs is nothing there), rounds of ``--tau`` steps that wait and that overlap, tau
auto that waits and that overlaps, with ``--sync`` steps by the mean gradient of all, which travels while it
is computed, and with ``--ddp`` DistributedDataParallel, which does the same. Images/s are those of the rounds
after tau has been chosen.

A round of ``--tau`` steps takes C, an exchange S: with rounds that wait the share of the images/s without
network cost is C / (C + S), and nothing can be more than (C + S) / C times as fast. C differs from processor
to processor; ``--batch-size`` sets it.

A worker computes on a core of its own: with more workers than idle cores the numbers mean little.
"""

from __future__ import annotations

import json
import math
import os
import signal
import time
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
# the namespaces have no names for their addresses, of which every connection would tell
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

import click
import numpy as np
import torch

from apps.solvers import load
from sparknet.auto_tau import AutoTau
from sparknet.codecs import CODECS
from sparknet.data import Examples, Transform, contiguous
from sparknet.data.synthetic import draw
from sparknet.distributed.coordinator import Coordinator
from sparknet.trainer.nets import Threaded
from sparknet.training import Settings, train
from sparknet.weights import Vector
from sparknet.worker import Recipe
from tests.bench import scaling
from tests.bench.ddp_over_links import Ddp
from tests.bench.forked import apart
from tests.bench.links import DRIVER, UPLINK, Link, Network
from tests.bench.team import TIMEOUTS, TOKEN, Ports, Team, serve

# Rounds that are not counted: connections are made, and tau is chosen.
WARM = 5


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One row: how rounds are run, and over which link."""

    name: str
    link: Link
    wire: str = "float32"
    tau: int | None = None
    overlap: bool = False
    sync: bool = False
    ddp: bool = False


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained in all rows, by whom and for how long.

    A step over ``megabytes`` sleeps for ``rest`` seconds: then there may be more workers than cores.
    """

    workers: int
    exchange: str
    megabytes: float | None = None
    rest: float = 0.0
    batch_size: int = 100
    seconds: float = 20.0


def problem(job: Job) -> tuple[Recipe, Examples]:
    """What is trained, and on what."""
    if job.megabytes is not None:
        pictures = Examples(np.zeros((64, 1, 1, 1), np.uint8), np.zeros(64, np.int64))
        return scaling.recipe(int(job.megabytes * 1e6 / 4), job.rest), pictures
    size = job.batch_size
    model = load("cifar10_quick_solver.prototxt", (3, 32, 32), batch_size=size, test_batch_size=100)
    drawn = draw(train=4000, test=10).train
    recipe = Recipe(replica=Threaded(model=model, threads=1), batch_size=size, transform=Transform())
    return recipe, drawn


def run(trial: Trial, job: Job) -> dict[str, Any]:
    """The row's numbers; in a process of its own, which has the network."""
    torch.set_num_threads(1)
    return apart(trial.name, partial(_of_ddp if trial.ddp else _driven, trial, job))


def _driven(trial: Trial, job: Job) -> dict[str, Any]:
    recipe, records = problem(job)
    initial: Vector = recipe.build().weights.numpy().copy()
    network = Network(trial.link)
    ports = Ports()
    children: list[int] = []
    for number, part in enumerate(contiguous(len(records), job.workers)):
        shard = records[part]
        work = partial(serve, number, shard, recipe, DRIVER, ports, TIMEOUTS, trial.wire)
        children += network.fork(number, work)
    coordinator = Coordinator(
        bind=DRIVER,
        workers=job.workers,
        size=initial.size,
        token=TOKEN,
        timeouts=TIMEOUTS,
        wire=trial.wire,
        ring=job.exchange == "ring",
    )
    ports.tell(job.workers, coordinator.port, coordinator.ring_port)
    try:
        return _measured(Team(coordinator, initial), trial, job.seconds)
    finally:
        coordinator.close()
        for child in children:
            os.kill(child, signal.SIGKILL)


def _measured(team: Any, trial: Trial, seconds: float) -> dict[str, Any]:
    tau = trial.tau or AutoTau(overlap=trial.overlap, tell=lambda said: click.echo(f"  {trial.name}: {said}"))
    settings = Settings(rounds=10**6, tau=tau, overlap=trial.overlap, gradients=trial.sync)
    images, took, exchanges, ends = 0, 0.0, list[float](), 0.0
    steps = list[float]()
    for done in train(team, settings):
        measuring = isinstance(tau, AutoTau) and (tau.is_measuring or done.tau != tau.tau)
        if measuring or done.number <= WARM:
            continue
        ends = ends or time.monotonic() + seconds
        images, took = images + done.images, took + done.seconds
        exchanges.append(done.exchange_seconds)
        steps += [report.seconds / report.steps for report in done.reports]
        if time.monotonic() > ends and len(exchanges) >= 3:
            break
    return {
        "images": images / took,
        "tau": done.tau,
        "exchange": median(exchanges),
        "round": took / len(exchanges),
        "step": median(steps),
    }


def _of_ddp(trial: Trial, job: Job) -> dict[str, Any]:
    """Of DistributedDataParallel over gloo; what a step waits for is in its time."""
    network = Network(trial.link)
    read, write = os.pipe()
    children: list[int] = []
    for rank in range(job.workers):
        settings = Ddp(rank=rank, world=job.workers, batch_size=job.batch_size, seconds=job.seconds)
        children += network.fork(rank, partial(settings.run, UPLINK, write))
    os.close(write)
    with os.fdopen(read) as pipe:
        steps: list[float] = json.loads(pipe.readline())
    for child in children:
        os.kill(child, signal.SIGKILL)
    step = sum(steps) / len(steps)
    return {
        "images": job.workers * job.batch_size / step,
        "tau": 1,
        "exchange": math.nan,
        "round": step,
        "step": step,
    }


def trials_of(slow: Link, tau: int, wires: list[str], auto: bool, sync: bool, ddp: bool) -> list[Trial]:
    """The rows, in their order."""
    trials = [Trial(name="no network cost", link=Link(), tau=tau)]
    for wire in wires:
        trials.append(Trial(name=f"tau {tau}, waits, {wire}", link=slow, wire=wire, tau=tau))
        trials.append(Trial(name=f"tau {tau}, overlap, {wire}", link=slow, wire=wire, tau=tau, overlap=True))
        if auto:
            trials.append(Trial(name=f"tau auto, waits, {wire}", link=slow, wire=wire))
            trials.append(Trial(name=f"tau auto, overlap, {wire}", link=slow, wire=wire, overlap=True))
        if sync:
            trials.append(Trial(name=f"sync, {wire}", link=slow, wire=wire, tau=1, sync=True))
    if ddp:
        trials.append(Trial(name="DistributedDataParallel", link=slow, ddp=True))
    return trials


def _wires(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    wires = value.split(",")
    unknown = [wire for wire in wires if wire not in CODECS]
    if unknown:
        raise click.BadParameter(f"there is no wire format {unknown[0]}: {', '.join(CODECS)}")
    return wires


@click.command(help=__doc__)
@click.option("--workers", "-k", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--mbit", type=click.FloatRange(min=0.1), default=10.0, show_default=True)
@click.option("--delay-ms", type=click.FloatRange(min=0), default=50.0, show_default=True, help="One way.")
@click.option("--tau", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--exchange", type=click.Choice(["star", "ring"]), default="star", show_default=True)
@click.option("--wires", default="float32,int8", show_default=True, callback=_wires)
@click.option("--megabytes", type=click.FloatRange(min=0.1), help="A vector, in place of cifar10_quick.")
@click.option("--batch-size", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--auto/--no-auto", default=True, show_default=True, help="Rows with tau auto.")
@click.option("--sync", is_flag=True, help="Rows with the mean gradient in every step.")
@click.option("--ddp", is_flag=True, help="A row of DistributedDataParallel.")
@click.option("--seconds", type=float, default=20.0, show_default=True, help="To measure, for each row.")
@click.option("--turns", type=click.IntRange(min=1), default=3, show_default=True)
def main(
    workers: int,
    mbit: float,
    delay_ms: float,
    tau: int,
    exchange: str,
    wires: list[str],
    megabytes: float | None,
    batch_size: int,
    auto: bool,
    sync: bool,
    ddp: bool,
    seconds: float,
    turns: int,
) -> None:
    if (ddp or sync) and megabytes is not None:
        raise click.UsageError("--ddp and --sync train cifar10_quick: not with --megabytes")
    slow = Link(mbit=mbit, delay_ms=delay_ms)
    job = Job(workers=workers, exchange=exchange, megabytes=megabytes, batch_size=batch_size, seconds=seconds)
    trials = trials_of(slow, tau, wires, auto, sync, ddp)
    found: dict[str, list[dict[str, Any]]] = {trial.name: [] for trial in trials}
    for _ in range(turns):
        for trial in trials:
            found[trial.name].append(run(trial, job))
    click.echo(f"{workers} workers, {slow}, {exchange}; medians of {turns}, load {os.getloadavg()[0]:.1f}")
    click.echo(f"{'':<30}{'tau':>6}{'images/s':>10}{'share':>8}{'round s':>9}{'waits s':>9}{'step ms':>9}")
    base = median(row["images"] for row in found["no network cost"])
    for name, rows in found.items():
        row = {key: median(each[key] for each in rows) for key in rows[0]}
        click.echo(
            f"{name:<30}{row['tau']:>6.0f}{row['images']:>10.0f}{row['images'] / base:>8.2f}"
            f"{row['round']:>9.3f}{row['exchange']:>9.3f}{1e3 * row['step']:>9.1f}"
        )


if __name__ == "__main__":
    main()
