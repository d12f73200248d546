"""Seconds from the call to an accuracy on CIFAR-10's test set: the engine against TorchDistributor with DDP.

    SPARKNET_DATA=... ./run bench time_to_accuracy                         3 seeds: about 9 minutes
    ./run bench time_to_accuracy --args '--precision bf16'
    ./run bench time_to_accuracy --args "--rule '' --grid 0.001,0.002,0.004 --seeds 0"
    ./run bench time_to_accuracy --args "--app '--algorithm auto --overlap' --rule ''"

cifar10_quick, K = 2, batch 100 of each worker, one thread each, the same precision, real Spark for both
(local-cluster, executors that have run a Python job before), from the same initial weights, mean image and
shards. Taken in turns, with ``--seeds`` seeds. Both test after every ``--test-images`` images of all workers
together, each worker a part of the set, and end at the first test that reaches ``--goal``.

Ours is what an app makes of ``--app``, its options, and of ``--base-lr``. DDP's data lie in files as arrays.
``--rule SCALE:WARM_UP:HOLD`` is how both change the rate on the way to ``--images`` (``RateRule``); without
one DDP's stays as it is, and ours is the algorithm's affair.
With ``--grid`` each side first trains once with each of these rates, and takes the one that needed the fewest
images: how busy the machine is makes no difference to that.
"""

from __future__ import annotations

import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
from pyspark.sql import SparkSession

from apps.options import Options, training_options
from apps.solvers import load
from apps.training import TrainingData, trainer_of
from sparknet.algorithms import algorithm
from sparknet.caffe.schema import SolverParameter
from sparknet.caffe_replica import CaffeModel
from sparknet.data import Transform
from sparknet.data.locate import Located, locate
from sparknet.rate_rule import RateRule
from sparknet.reporting.metrics import Record
from sparknet.training import Round
from sparknet.worker import Recipe
from tests.bench import torch_distributor
from tests.bench.images_per_second import warm_session

WORKERS, BATCH, SOLVER = 2, 100, "cifar10_quick_solver.prototxt"
AIM = 0.6


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Tests as (images, seconds since the call, accuracy), and where the time went until the last.

    ``first`` is when the first step began, ``exchange`` what rounds took beyond the slowest worker's steps.
    """

    tests: tuple[tuple[int, float, float], ...]
    first: float
    testing: float
    exchange: float = 0.0

    def reached(self, goal: float) -> bool:
        return self.tests[-1][2] >= goal

    @property
    def images(self) -> int:
        return self.tests[-1][0]

    @property
    def seconds(self) -> float:
        return self.tests[-1][1]

    def __str__(self) -> str:
        accuracies = ", ".join(f"{100 * accuracy:.1f}" for *_, accuracy in self.tests)
        return (
            f"{self.seconds:.1f} s (first step {self.first:.1f}, tests {self.testing:.1f}, exchanges "
            f"{self.exchange:.1f}), {self.images // (WORKERS * BATCH)} steps of {self.images:,} images; "
            f"{accuracies} %"
        )


@dataclass(frozen=True, kw_only=True)
class Contest:
    """What both sides have in common."""

    located: Located
    goal: float
    images: int
    test_images: int
    rate: RateRule | None = None
    precision: str = "float32"

    @property
    def transform(self) -> Transform:
        return Transform(mean=self.located.dataset.train.mean_image())


class Goal:
    """Writes down the tests of a run, and ends it at the goal or when enough images have been read."""

    def __init__(self, contest: Contest, started: float) -> None:
        self._contest, self._started = contest, started
        self._tests: list[tuple[int, float, float]] = []
        self._images, self._first, self._testing, self._exchange = 0, 0.0, 0.0, 0.0

    def on_round(self, record: Record, done: Round) -> bool:
        now = time.time() - self._started
        self._images += done.images
        self._testing += done.test_seconds
        self._exchange += done.exchange_seconds if self._first else 0.0
        self._first = self._first or now - done.test_seconds - done.compute_seconds
        if done.accuracy is None:
            return False
        self._tests.append((self._images, now, done.accuracy))
        return done.accuracy >= self._contest.goal or self._images >= self._contest.images

    @property
    def curve(self) -> Curve:
        return Curve(
            tests=tuple(self._tests), first=self._first, testing=self._testing, exchange=self._exchange
        )


def ours(spark: SparkSession, contest: Contest, options: Options, base_lr: float) -> Curve:
    """Trained as an app does it, the call being ``Trainer.fit``."""
    data = TrainingData.of(contest.located, contest.transform)
    model = with_base_lr(_model(options.solver, data, contest.precision), base_lr)
    started = time.time()
    goal = Goal(contest, started)
    trainer = replace(
        trainer_of(data, options, model), callbacks=[goal], output=None, report=False, tensorboard=None
    )
    if contest.rate:
        chosen = algorithm(trainer.algorithm).of(WORKERS)
        trainer = replace(trainer, algorithm=replace(chosen, rate=contest.rate))
    trainer.fit(data, data.test, spark=spark)
    return goal.curve


def theirs(contest: Contest, lr: float, seed: int) -> Curve:
    """DDP's, from the same weights; the call is that of ``TorchDistributor.run``."""
    dataset = contest.located.dataset
    data = TrainingData.of(contest.located, contest.transform)
    model = _model(SOLVER, data, contest.precision)
    weights = Recipe(replica=model, batch_size=BATCH, transform=data.transform, seed=seed).build().weights
    with tempfile.TemporaryDirectory() as folder:
        torch_distributor.save(
            Path(folder),
            images=dataset.train.images,
            labels=dataset.train.labels.astype(np.int64),
            test_images=dataset.test.images,
            test_labels=dataset.test.labels.astype(np.int64),
            mean=dataset.train.mean_image(),
            weights=weights.numpy(),
        )
        task = torch_distributor.Task(
            folder=folder,
            goal=contest.goal,
            images=contest.images,
            test_images=contest.test_images,
            batch=BATCH,
            lr=lr,
            seed=seed,
            rate=contest.rate,
            bf16=contest.precision == "bf16",
        )
        found, submitted = torch_distributor.distributed(WORKERS, torch_distributor.train, task)
    tests = tuple((images, at - submitted, accuracy) for images, at, accuracy in found["tests"])
    return Curve(tests=tests, first=found["first"] - submitted, testing=found["test_seconds"])


def _model(solver: str, data: TrainingData, precision: str) -> CaffeModel:
    sizes = {"batch_size": BATCH, "test_batch_size": data.test_batch_size}
    return load(solver, data.shape, precision=precision, **sizes)


def with_base_lr(model: CaffeModel, base_lr: float) -> CaffeModel:
    """The same net and solver at another rate."""
    solver = SolverParameter()
    solver.CopyFrom(model.solver)
    solver.base_lr = base_lr
    return replace(model, solver=solver)


def app_options(text: str, contest: Contest, seed: int) -> Options:
    """Those of an app's command line, with what both sides share. Raises UsageError as the app does."""
    found: list[Options] = []

    def parsed(options: Options) -> None:
        found.append(options)

    parser = training_options(tau=10, rounds=1, batch_size=BATCH, solver=SOLVER)(parsed)
    given = ["--sampling", "epoch", "--workers", str(WORKERS), "--seed", str(seed)]
    given += ["--precision", contest.precision, *shlex.split(text)]
    parser.main(given, standalone_mode=False)
    (options,) = found
    if not isinstance(options.tau, int) or contest.test_images % (WORKERS * BATCH * options.tau):
        raise click.UsageError(
            f"--test-images {contest.test_images} is no whole number of rounds of tau {options.tau}"
        )
    a_round = WORKERS * BATCH * options.tau
    return replace(options, test_every=contest.test_images // a_round, rounds=contest.images // a_round)


def best_rate(name: str, rates: list[float], run: Callable[[float], Curve], goal: float) -> float:
    """The rate that needs the fewest images; of those that need as many, the one that is better then."""
    found: dict[float, Curve] = {}
    for rate in rates:
        found[rate] = run(rate)
        click.echo(f"{name} at {rate:g}: {found[rate]}")

    def order(rate: float) -> tuple[bool, float, float]:
        curve = found[rate]
        return not curve.reached(goal), curve.images, -curve.tests[-1][2]

    return min(rates, key=order)


def tell(curves: dict[str, list[Curve]], contest: Contest) -> int:
    """The table and the verdict; 0 if the aim is met."""
    click.echo(f"{'':<10}{'seconds':>9}{'first step':>12}{'tests':>8}{'steps':>8}   of each run")
    for name, found in curves.items():
        middle = (
            statistics.median(each)
            for each in zip(
                *((c.seconds, c.first, c.testing, c.images / (WORKERS * BATCH)) for c in found), strict=True
            )
        )
        seconds, first, testing, steps = middle
        each = ", ".join(f"{c.seconds:.1f}" + ("" if c.reached(contest.goal) else "+") for c in found)
        click.echo(f"{name:<10}{seconds:>9.1f}{first:>12.1f}{testing:>8.1f}{steps:>8.0f}   {each}")
    missed = [c for found in curves.values() for c in found if not c.reached(contest.goal)]
    if missed:
        click.echo(f"{len(missed)} runs did not reach {100 * contest.goal:g} %: raise --images")
        return 1
    ratios = [a.seconds / b.seconds for a, b in zip(curves["ours"], curves["DDP"], strict=True)]
    ratio = statistics.median(ratios)
    each = ", ".join(f"{one:.2f}" for one in ratios)
    met = "met" if ratio <= AIM else "NOT met"
    click.echo(f"ours / DDP: {ratio:.2f} ({each})   aim: at most {AIM:g}   {met}")
    return 0 if ratio <= AIM else 1


def _rule(text: str) -> RateRule:
    scale, warm_up, hold = (float(part) for part in text.split(":"))
    return RateRule(scale=scale, warm_up=warm_up, hold=hold)


@click.command(help=__doc__)
@click.option("--goal", type=click.FloatRange(0, 1), default=0.65, show_default=True)
@click.option("--seeds", type=click.IntRange(min=0), default=3, show_default=True, help="0: only --grid.")
@click.option("--first", type=click.IntRange(min=0), default=0, show_default=True, help="Of the seeds.")
@click.option(
    "--app",
    default="--tau 5",
    show_default=True,
    help="Options of an app for ours: '--algorithm auto --overlap' ...",
)
@click.option("--base-lr", type=click.FloatRange(min=0, min_open=True), default=0.001, show_default=True)
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), default=0.001, show_default=True)
@click.option(
    "--rule",
    default="4:0.1:0.4",
    show_default=True,
    metavar="SCALE:WARM_UP:HOLD",
    help="Of the rate, for both sides.",
)
@click.option("--precision", type=click.Choice(["float32", "bf16"]), default="float32", show_default=True)
@click.option("--grid", default="", metavar="RATE,RATE...", help="Rates to choose from, for both sides.")
@click.option("--side", type=click.Choice(["both", "ours", "DDP"]), default="both", show_default=True)
@click.option("--images", type=click.IntRange(min=1), default=160_000, show_default=True, help="At most.")
@click.option("--test-images", type=click.IntRange(min=1), default=20_000, show_default=True)
def main(
    goal: float,
    seeds: int,
    first: int,
    app: str,
    base_lr: float,
    lr: float,
    rule: str,
    precision: str,
    grid: str,
    side: str,
    images: int,
    test_images: int,
) -> None:
    located = locate("cifar10", "auto")
    contest = Contest(
        located=located,
        goal=goal,
        images=images,
        test_images=test_images,
        rate=_rule(rule) if rule else None,
        precision=precision,
    )
    click.echo(f"data: {located.origin}; load {os.getloadavg()[0]:.1f}")
    app_options(app, contest, 0)
    spark = warm_session("time to accuracy", WORKERS)

    def run_ours(rate: float, seed: int = 0) -> Curve:
        return ours(spark, contest, app_options(app, contest, seed), rate)

    def run_theirs(rate: float, seed: int = 0) -> Curve:
        return theirs(contest, rate, seed)

    runs = {"ours": (run_ours, base_lr), "DDP": (run_theirs, lr)}
    runs = {name: pair for name, pair in runs.items() if side in ("both", name)}
    curves: dict[str, list[Curve]] = {name: [] for name in runs}
    try:
        if grid:
            rates = [float(rate) for rate in grid.split(",")]
            runs = {name: (run, best_rate(name, rates, run, goal)) for name, (run, _) in runs.items()}
        for seed in range(first, first + seeds):
            for name, (run, rate) in runs.items():
                curves[name].append(run(rate, seed))
                click.echo(f"{name} at {rate:g}, seed {seed}: {curves[name][-1]}")
    finally:
        spark.stop()
    if seeds and side == "both":
        sys.exit(tell(curves, contest))


if __name__ == "__main__":
    main()
