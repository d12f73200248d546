"""What averaging costs in accuracy: cifar10_quick on CIFAR-10, one worker and K, after equally many images.

    SPARKNET_DATA=... python -m tests.bench.cifar_accuracy                 both, 20 epochs, about 30 minutes
    python -m tests.bench.cifar_accuracy --workers 2 --epochs 2 --data synthetic

All workers run in this process with ``--threads`` threads, so the times say nothing about a cluster. The
learning rate is the solver's own (0.001 throughout); as in SparkNet, it is not scaled with the workers.
To be expected with K = 2, tau = 10 and 20 epochs: at least 68 %, within 1.5 points of one worker. Found with
seed 0, on CIFAR-10 that went through JPEG once: 74.4 % with either; last 5 tests: 74.1 and 73.8 % on average.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import mean
from typing import Any

import click

from apps.solvers import load
from sparknet.data import Dataset, Transform, contiguous
from sparknet.data.locate import locate
from sparknet.data.shards import SAMPLERS
from sparknet.local import LocalWorkers
from sparknet.reporting.metrics import Record, percent
from sparknet.trainer.nets import Threaded
from sparknet.training import Settings, train
from sparknet.worker import Recipe

LAST = 5  # tests whose mean is shown beside the last one: a single test wobbles by a point


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One side of the comparison, but for the number of workers."""

    tau: int
    batch_size: int
    epochs: float
    sampling: str
    solver: str
    seed: int
    threads: int
    tests: int


@click.command(help=__doc__)
@click.option("--workers", type=click.IntRange(min=1), multiple=True, default=(1, 2), show_default=True)
@click.option("--tau", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--batch-size", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), default=20.0, show_default=True)
@click.option("--sampling", type=click.Choice(list(SAMPLERS)), default="epoch", show_default=True)
@click.option("--solver", default="cifar10_quick_solver.prototxt", show_default=True)
@click.option("--data", default="auto", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--tests", type=click.IntRange(min=1), default=20, show_default=True, help="Tests in all.")
def main(workers: tuple[int, ...], data: str, **options: Any) -> None:
    located = locate("cifar10", data)
    click.echo(f"data: {located.origin}")
    scores = {count: run(count, located.dataset, Trial(**options)) for count in workers}
    for count, scored in scores.items():
        last, smooth = (percent(v, located.dataset.synthetic) for v in (scored[-1], mean(scored[-LAST:])))
        click.echo(f"K={count}  accuracy {last}, mean of the last {LAST} tests {smooth}")


def run(workers: int, dataset: Dataset, trial: Trial) -> list[float]:
    """The accuracies of all tests, 0 to 1, as they come."""
    recipe = make_recipe(dataset, trial)
    rounds = max(1, round(trial.epochs * len(dataset.train) / (workers * trial.tau * trial.batch_size)))
    settings = Settings(rounds=rounds, tau=trial.tau, test_every=max(1, rounds // trial.tests))
    shards = [dataset.train[part] for part in contiguous(len(dataset.train), workers)]
    scored: list[float] = []
    started = time.monotonic()
    with LocalWorkers(recipe, shards, dataset.test) as crew:
        for done in train(crew, settings):
            record = Record.of(done, elapsed_seconds=time.monotonic() - started, synthetic=dataset.synthetic)
            if done.accuracy is not None:
                scored.append(done.accuracy)
                click.echo(f"K={workers}  {record.line}")
    return scored


def make_recipe(dataset: Dataset, trial: Trial) -> Recipe:
    size = trial.batch_size
    model = load(trial.solver, dataset.train.shape, batch_size=size, test_batch_size=size)
    return Recipe(
        replica=Threaded(model=model, threads=trial.threads),
        batch_size=size,
        transform=Transform(mean=dataset.train.mean_image()),
        sampling=trial.sampling,
        seed=trial.seed,
    )


if __name__ == "__main__":
    main()
