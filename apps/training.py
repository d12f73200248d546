"""A training run as every app makes one: data and a net in, rounds on Spark, model and report out.

Task + Options ──> SparkWorkers ──> train() ──> one line a round, metrics.jsonl
                                       └──────> model.caffemodel, report.html, curve.png
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
from pyspark import RDD
from pyspark.sql import SparkSession

from apps.options import Options
from apps.solvers import Threaded, load
from sparknet import report
from sparknet.caffe import weight_file
from sparknet.data import Examples, Transform
from sparknet.data.locate import Located
from sparknet.errors import TrainingError, UsageError
from sparknet.metrics import Log, Record
from sparknet.outer import Average, Outer, SlowMo
from sparknet.replica import CaffeModel
from sparknet.report import Run
from sparknet.spark.frames import from_examples
from sparknet.spark.session import session
from sparknet.spark.slots import threads_each, workers_for
from sparknet.spark.workers import SparkWorkers
from sparknet.training import Round, Settings, train
from sparknet.weights import Vector
from sparknet.worker import Recipe

OUTERS: dict[str, Callable[[], Outer]] = {"average": Average, "slowmo": SlowMo}

# SlowMo's momentum takes the place of the workers' own
MOMENTA = {"average": "keep", "slowmo": "reset"}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What an app trains on, and how pictures become the net's input.

    ``shards`` gives the training set in so many partitions; ``origin`` is the sentence that says where it is
    from.
    """

    shards: Callable[[SparkSession, int], RDD[Examples]]
    test: Examples
    origin: str
    transform: Transform
    test_transform: Transform | None = None
    test_batch_size: int = 100
    synthetic: bool = False

    @classmethod
    def of(cls, located: Located, transform: Transform) -> Task:
        """The task of a data set that lies in the driver's memory."""
        dataset = located.dataset
        return cls(
            shards=lambda spark, count: from_examples(spark, dataset.train, count),
            test=dataset.test,
            origin=located.origin,
            transform=transform,
            synthetic=dataset.synthetic,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of what the net sees."""
        channels, height, width = self.test.shape
        crop = self.transform.crop
        return (channels, crop, crop) if crop else (channels, height, width)


@dataclass
class Progress:
    """The rounds done so far and the weights of the last; what is kept if the run ends here."""

    title: str
    settings: dict[str, str]
    records: list[Record] = field(default_factory=list)
    weights: Vector | None = None

    def take(self, done: Round, record: Record) -> None:
        self.records.append(record)
        self.weights = done.weights


def run(task: Task, options: Options) -> None:
    """Train as ``options`` say, print a line a round, and leave model and report in ``options.output``.

    An interrupted or failed run leaves those of its last whole round. Raises TrainingError when the loss is
    no longer a number, and what data, net and cluster raise.
    """
    click.echo(f"data: {task.origin}")
    sizes = {"batch_size": options.batch_size, "test_batch_size": task.test_batch_size}
    model = load(options.solver, task.shape, **sizes)
    _make(options.output)
    with _spark(f"SparkNet {model.net.name}") as spark:
        count = workers_for(spark, options.workers)
        threads = threads_each(spark, count)
        progress = Progress(model.net.name, _settings(task, options, model, count, threads))
        click.echo(f"training {progress.title} on {progress.settings['workers']}")
        recipe = _recipe(task, options, Threaded(model=model, threads=threads))
        shards = task.shards(spark, count)
        with SparkWorkers(spark, recipe, shards, task.test, shape=task.test.shape) as workers:
            try:
                _rounds(workers, options, progress, synthetic=task.synthetic)
            finally:
                _leave(progress, model, options.output)


def _rounds(workers: SparkWorkers, options: Options, progress: Progress, *, synthetic: bool) -> None:
    started = time.monotonic()
    settings = Settings(
        rounds=options.rounds,
        tau=options.tau,
        time_cap_seconds=options.time_cap,
        test_every=options.test_every,
        momentum=options.momentum or MOMENTA[options.outer],  # type: ignore[arg-type]
    )
    with Log(options.output / "metrics.jsonl") as log:
        for done in train(workers, settings, OUTERS[options.outer]()):
            record = Record.of(done, elapsed_seconds=time.monotonic() - started, synthetic=synthetic)
            log.write(record)
            click.echo(record.line)
            if record.loss is None:
                raise TrainingError(
                    f"the loss is no longer a number after round {record.round}: lower base_lr in the solver"
                )
            progress.take(done, record)


def _leave(progress: Progress, model: CaffeModel, output: Path) -> None:
    """Write what there is, and say so."""
    if progress.weights is None:
        return
    replica = CaffeModel(net=model.net, solver=model.solver, device="cpu")()
    np.copyto(replica.weights.numpy(), progress.weights)
    weight_file.save(replica.net, output / "model.caffemodel")
    done = Run(title=progress.title, settings=progress.settings, records=progress.records)
    report.write(output, done)
    click.echo(done.headline)
    click.echo(f"model.caffemodel, metrics.jsonl, report.html and curve.png are in {output.resolve()}")


def _recipe(task: Task, options: Options, replica: Threaded) -> Recipe:
    return Recipe(
        replica=replica,
        batch_size=options.batch_size,
        transform=task.transform,
        test_batch_size=task.test_batch_size,
        test_transform=task.test_transform,
        sampling=options.sampling,
        seed=options.seed,
    )


def _settings(task: Task, options: Options, model: CaffeModel, workers: int, threads: int) -> dict[str, str]:
    """The table of settings in the report."""
    solver = model.solver
    return {
        "data": task.origin,
        "net and solver": f"{model.net.name}, {options.solver}",
        "learning rate": f"{solver.base_lr:g}, {solver.lr_policy}",
        "momentum, weight decay": f"{solver.momentum:g}, {solver.weight_decay:g}",
        "workers": f"{_count(workers, 'worker')}, {_count(threads, 'thread')} each",
        "batch size": f"{options.batch_size} for each worker and step",
        "tau": f"{options.tau} steps a round",
        "time cap": f"{options.time_cap:g} s a round" if options.time_cap else "none",
        "rounds": str(options.rounds),
        "sampling": options.sampling,
        "outer step": f"{options.outer}, momentum: {options.momentum or MOMENTA[options.outer]}",
        "seed": str(options.seed),
    }


@contextmanager
def _spark(name: str) -> Iterator[SparkSession]:
    spark = session(name)
    spark.sparkContext.setLogLevel("ERROR")
    try:
        yield spark
    finally:
        spark.stop()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {folder} cannot be made: {error.strerror}") from error
