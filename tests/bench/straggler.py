"""Two workers, one of them slowed fourfold: how much of what each could do alone is done together?

    ./run bench straggler                                     about 3 minutes
    ./run bench straggler --args '--slower 8 --turns 1'

Each worker is a process with one thread that trains cifar10_quick on drawn pictures, under the engine's own
coordinator. A step of the slowed one takes four times as long: for three times what it has measured of it,
it sleeps, so that the other keeps its core. What each does alone, without any coordinator, is measured in
the same run, in turns with the others, and so are both at once that know nothing of each other: what that
is short of the sum, the machine takes. Of images only those count whose weights were merged. Exit status 0 if
easgd reaches the aim. A machine needs two idle cores.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import click
import torch

from apps.solvers import load
from sparknet.algorithms import Algorithm, algorithm
from sparknet.caffe_replica import CaffeModel, CaffeReplica
from sparknet.data import Examples, Transform, contiguous
from sparknet.data.dataset import Batch
from sparknet.data.synthetic import draw
from sparknet.distributed.coordinator import Coordinator
from sparknet.trainer.nets import with_nesterov
from sparknet.training import RoundPlan
from sparknet.worker import Recipe
from tests.bench.forked import apart, as_child
from tests.bench.team import TIMEOUTS, TOKEN, Ports, Team, serve

AIM = 0.95
HOST = "127.0.0.1"
BATCH = 100
# Before anything is counted: connections are made, memory and caches filled.
WARM_SECONDS = 1.5

Found = dict[str, float]
"""Images/s, by worker."""


class Slowed(CaffeReplica):
    """A replica whose steps take ``times`` as long."""

    times = 1.0

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        began = time.perf_counter()
        loss = super().step(batches)
        time.sleep((self.times - 1) * (time.perf_counter() - began))
        return loss


@dataclass(frozen=True, kw_only=True)
class SlowedModel:
    """Builds one in a process that computes with one thread."""

    model: CaffeModel
    times: float = 1.0

    def __call__(self) -> CaffeReplica:
        torch.set_num_threads(1)
        replica = Slowed(self.model.net, self.model.solver)
        replica.times = self.times
        return replica


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A row: an algorithm, and how rounds end."""

    name: str
    algorithm: str
    quorum: float = 1.0
    is_capped: bool = False


TRIALS = (
    Trial(name="easgd", algorithm="easgd"),
    Trial(name="easgd-lockfree", algorithm="easgd-lockfree"),
    Trial(name="eamsgd", algorithm="eamsgd"),
    Trial(name="average", algorithm="average"),
    Trial(name="average, --quorum 0.5", algorithm="average", quorum=0.5),
    Trial(name="average, --time-cap", algorithm="average", is_capped=True),
)


class Pair:
    """The two workers' recipes and shards; a step of the second takes ``slower`` times as long."""

    def __init__(self, slower: float, tau: int, seconds: float) -> None:
        self.tau, self.seconds = tau, seconds
        records = draw(train=4000, test=10).train
        self.shards: list[Examples] = [records[part] for part in contiguous(len(records), 2)]
        self.model = load(
            "cifar10_quick_solver.prototxt", (3, 32, 32), batch_size=BATCH, test_batch_size=BATCH
        )
        self.times = (1.0, slower)

    def recipe(self, number: int, model: CaffeModel | None = None) -> Recipe:
        replica = SlowedModel(model=model or self.model, times=self.times[number])
        return Recipe(replica=replica, batch_size=BATCH, transform=Transform())

    def alone(self, number: int) -> Found:
        """Images/s of one that trains by itself."""
        worker, plan = self.recipe(number).worker(number, self.shards[number]), RoundPlan(tau=self.tau)
        rates = Rates(self.seconds)
        while not rates.over:
            rates.add(number, worker.train(None, plan).images)
        return rates.found

    def strangers(self) -> Found:
        """Images/s of both at once."""
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            as_child(lambda: os.write(write, f"{self.alone(1)['1']}\n".encode()))
        os.close(write)
        found = self.alone(0)
        with os.fdopen(read) as pipe:
            return {**found, "1": float(pipe.readline())}

    def together(self, trial: Trial, cap_seconds: float) -> Found:
        chosen = algorithm(trial.algorithm).of(2)
        timeouts = replace(TIMEOUTS, quorum=trial.quorum)
        model = with_nesterov(self.model) if chosen.nesterov else self.model
        torch.set_num_threads(1)
        initial = self.recipe(0, model).build().weights.numpy().copy()
        ports, children = Ports(), list[int]()
        for number, shard in enumerate(self.shards):
            pid = os.fork()
            if pid == 0:
                recipe = self.recipe(number, model)
                as_child(partial(serve, number, shard, recipe, HOST, ports, timeouts, "float32"))
            children.append(pid)
        coordinator = Coordinator(bind=HOST, workers=2, size=initial.size, token=TOKEN, timeouts=timeouts)
        ports.tell(2, coordinator.port, None)
        try:
            return self.rates_of(chosen, Team(coordinator, initial), cap_seconds if trial.is_capped else None)
        finally:
            coordinator.close()
            for child in children:
                os.kill(child, signal.SIGKILL)

    def rates_of(self, chosen: Algorithm, team: Any, cap_seconds: float | None) -> Found:
        settings = chosen.settings(rounds=10**6, tau=self.tau, time_cap_seconds=cap_seconds)
        rates = Rates(self.seconds)
        for done in chosen.train(team, settings, chosen.outer()):
            for report in done.reports:
                rates.add(report.member, report.images)
            if rates.over:
                break
        return rates.found


class Rates:
    """Counts images, once it is warm, for so many ``seconds``: each worker's from one report of its to its
    last."""

    def __init__(self, seconds: float) -> None:
        self.begins = time.monotonic() + WARM_SECONDS
        self.ends = self.begins + seconds
        self.reported: dict[int, list[tuple[float, int]]] = defaultdict(list)

    def add(self, number: int, images: int) -> None:
        now = time.monotonic()
        if now >= self.begins:
            self.reported[number].append((now, images))

    @property
    def over(self) -> bool:
        enough = any(len(reports) > 2 for reports in self.reported.values())
        return enough and time.monotonic() >= self.ends

    @property
    def found(self) -> Found:
        """None of one that has not reported twice."""
        return {
            str(number): sum(images for _, images in reports[1:]) / (reports[-1][0] - reports[0][0])
            for number, reports in self.reported.items()
            if len(reports) > 1
        }


@click.command(help=__doc__)
@click.option("--slower", type=click.FloatRange(min=1), default=4.0, show_default=True, help="Times.")
@click.option("--tau", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--seconds", type=float, default=4.0, show_default=True, help="To measure, for each row.")
@click.option("--turns", type=click.IntRange(min=1), default=3, show_default=True)
def main(slower: float, tau: int, seconds: float, turns: int) -> None:
    pair = Pair(slower, tau, seconds)
    singles = {"one alone": 0, f"one slowed {slower:g} times, alone": 1}
    found: dict[str, list[Found]] = defaultdict(list)
    for _ in range(turns):
        for name, number in singles.items():
            found[name].append(apart(name, partial(pair.alone, number)))
        cap = tau * BATCH / found["one alone"][-1]["0"]
        found["both at once, apart"].append(apart("apart", pair.strangers))
        for trial in TRIALS:
            found[trial.name].append(apart(trial.name, partial(pair.together, trial, cap)))
    shares = table(found, list(singles))
    click.echo(f"medians of {turns}, tau {tau}, a cap of {cap:.2f} s, load {os.getloadavg()[0]:.1f}")
    met = shares["easgd"] >= AIM
    click.echo(f"easgd: {shares['easgd']:.3f} of the sum   aim: {AIM:g}   {'met' if met else 'NOT met'}")
    sys.exit(0 if met else 1)


def table(found: dict[str, list[Found]], singles: list[str]) -> dict[str, float]:
    """Show the rows; each one's share of the sum of the ``singles``."""
    rates = {
        name: [median(row.get(number, 0.0) for row in rows) for number in "01"]
        for name, rows in found.items()
    }
    whole = sum(sum(rates[name]) for name in singles)
    click.echo(f"{'':<32}{'images/s':>10}{'the one':>10}{'slowed':>10}{'of the sum':>12}")
    for name, each in rates.items():
        click.echo(f"{name:<32}{sum(each):>10.0f}{each[0]:>10.0f}{each[1]:>10.0f}{sum(each) / whole:>12.3f}")
    return {name: sum(each) / whole for name, each in rates.items()}


if __name__ == "__main__":
    main()
