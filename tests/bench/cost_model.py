"""What a round costs, measured at several tau, against SparkNet's model; and the tau that it picks.

    ./run bench cost_model

Rounds of all tau take turns, with executors in JVMs of their own; their seconds are fitted by ``tau * C + S``
(``sparknet.reporting.costs``) and must lie within a tenth of it. How many rounds each tau needs to a goal is
counted in this process, where the weights are the same. The tau that the model calls fastest must be within
15 % of the fastest by what was measured.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import warnings

import click
import torch
from pyspark.sql import SparkSession

from apps.solvers import load
from sparknet.caffe_replica import CaffeModel, CaffeReplica
from sparknet.data import Dataset, Transform, contiguous
from sparknet.data.locate import locate
from sparknet.local import LocalWorkers
from sparknet.reporting.costs import Cost, rounds_to
from sparknet.spark import SparkWorkers, from_examples, session
from sparknet.training import Settings, train
from sparknet.worker import Recipe

TAUS = (1, 5, 10, 50)
BATCH = 32


class SingleThreaded:
    def __init__(self, model: CaffeModel) -> None:
        self.model = model

    def __call__(self) -> CaffeReplica:
        torch.set_num_threads(1)
        return self.model()


def recipe(dataset: Dataset) -> Recipe:
    model = load("lenet_solver.prototxt", dataset.train.shape, batch_size=BATCH, test_batch_size=100)
    return Recipe(
        replica=SingleThreaded(model),
        batch_size=BATCH,
        transform=Transform(scale=1 / 256),
        test_batch_size=100,
        sampling="epoch",
    )


def measured_seconds(spark: SparkSession, dataset: Dataset, options: argparse.Namespace) -> dict[int, float]:
    """Of a round, by tau: the lower quartile, for what else goes on here only adds to it."""
    seconds: dict[int, list[float]] = {tau: [] for tau in TAUS}
    settings = Settings(rounds=options.cycles * len(TAUS), tau=lambda number, _lr: TAUS[number % len(TAUS)])
    data = from_examples(spark, dataset.train, options.workers)
    with SparkWorkers(spark, recipe(dataset), data) as crew:
        for done in train(crew, settings):
            if done.number > len(TAUS):  # the first ones warm up
                seconds[done.tau].append(done.seconds)
    return {tau: statistics.quantiles(values, n=4)[0] for tau, values in seconds.items()}


def rounds_needed(tau: int, dataset: Dataset, options: argparse.Namespace) -> float | None:
    """To the goal, tested every 20 steps or every round."""
    shards = [dataset.train[part] for part in contiguous(len(dataset.train), options.workers)]
    settings = Settings(rounds=options.steps // tau, tau=tau, test_every=max(1, 20 // tau))
    tested: dict[int, float] = {}
    with LocalWorkers(recipe(dataset), shards, dataset.test[:2000]) as crew:
        for done in train(crew, settings):
            if done.accuracy is not None:
                tested[done.number] = done.accuracy
                if done.accuracy >= options.goal:
                    break
    return rounds_to(options.goal, tested)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--goal", type=float, default=0.95, help="accuracy (0.95)")
    parser.add_argument("--cycles", type=int, default=25, help="rounds of each tau that are timed (25)")
    parser.add_argument("--steps", type=int, default=1500, help="of each worker at most (1500)")
    parser.add_argument("--data", default="auto", help="MNIST: a folder, auto or synthetic")
    options = parser.parse_args()
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    warnings.simplefilter("ignore", FutureWarning)
    spark = session(
        "cost model",
        f"local-cluster[{options.workers},1,512]",
        {"spark.ui.enabled": "false", "spark.driver.host": "127.0.0.1", "spark.executor.memory": "512m",
         "spark.log.level": "OFF"},
    )  # fmt: skip
    dataset = locate("mnist", options.data).dataset
    measured = measured_seconds(spark, dataset, options)
    spark.stop()
    needed = {tau: rounds_needed(tau, dataset, options) for tau in TAUS}
    sys.exit(0 if judged(measured, {tau: count for tau, count in needed.items() if count}) else 1)


def judged(measured: dict[int, float], needed: dict[int, float]) -> bool:
    cost = Cost.fit(measured)
    click.echo(f"C = {1e3 * cost.step_seconds:.2f} ms a step, S = {1e3 * cost.sync_seconds:.2f} ms a round")
    click.echo(f"{'tau':>4}{'round, ms':>12}{'model, ms':>12}{'off':>8}{'rounds to goal':>18}{'seconds':>10}")
    spent = {tau: count * measured[tau] for tau, count in needed.items()}
    for tau, seconds in measured.items():
        off = 100 * (cost.seconds(tau) / seconds - 1)
        reached = f"{needed[tau]:18.1f}{spent[tau]:10.2f}" if tau in needed else f"{'never':>18}"
        click.echo(f"{tau:>4}{1e3 * seconds:12.2f}{1e3 * cost.seconds(tau):12.2f}{off:7.1f}%{reached}")
    worst = max(abs(cost.seconds(tau) / seconds - 1) for tau, seconds in measured.items())
    picked, best = cost.fastest(needed), min(spent, key=lambda tau: spent[tau])
    behind = spent[picked] / spent[best] - 1
    click.echo(f"the model is off by at most  {100 * worst:5.1f} %   aim: 10 %   {_met(worst <= 0.1)}")
    click.echo(
        f"tau {picked} instead of {best} costs   {100 * behind:5.1f} %   aim: 15 %   {_met(behind <= 0.15)}"
    )
    return worst <= 0.1 and behind <= 0.15


def _met(is_met: bool) -> str:
    return "met" if is_met else "NOT met"


if __name__ == "__main__":
    main()
