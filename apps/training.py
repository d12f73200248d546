"""A training run as every app makes one: data and a net in, rounds on Spark, model and report out.

Task + Options ──> SparkWorkers ──> train() ──> one line a round, metrics.jsonl
                                       └──────> model.caffemodel, report.html, curve.png
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import click
from py4j.protocol import Py4JError
from pyspark import RDD
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from apps.journal import Journal, make_folder
from apps.options import Options
from apps.solvers import Threaded, load
from sparknet.checkpoint import Checkpoints, resumed
from sparknet.data import Examples, Transform
from sparknet.data.locate import Located
from sparknet.errors import TrainingError, UsageError
from sparknet.metrics import Record
from sparknet.outer import Average, Outer, SlowMo
from sparknet.replica import CaffeModel
from sparknet.spark import SparkWorkers, from_examples, session
from sparknet.spark.slots import threads_each, workers_for
from sparknet.training import Momentum, Settings, train
from sparknet.worker import Recipe

OUTERS: dict[str, Callable[[], Outer]] = {"average": Average, "slowmo": SlowMo}

# SlowMo's momentum takes the place of the workers' own
MOMENTA: dict[str, Momentum] = {"average": "keep", "slowmo": "reset"}


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


def run(task: Task, options: Options) -> None:
    """Train as ``options`` say, print a line a round, and leave model and report in ``options.output``.

    An interrupted or failed run leaves those of its last whole round. Raises TrainingError when the loss is
    no longer a number, and what data, net and cluster raise.
    """
    click.echo(f"data: {task.origin}")
    sizes = {"batch_size": options.batch_size, "test_batch_size": task.test_batch_size}
    model = load(options.solver, task.shape, precision=options.precision, **sizes)
    make_folder(options.output)
    with open_session(f"SparkNet {model.net.name}") as spark:
        count = workers_for(spark, options.workers)
        threads = threads_each(spark, count)
        recipe = _recipe(task, options, Threaded(model=model, threads=threads))
        table = _table(task, options, model, count, threads)
        click.echo(f"training {model.net.name} on {table['workers']}")
        shards = task.shards(spark, count)
        with SparkWorkers(spark, recipe, shards, task.test, shape=task.test.shape) as workers:
            outer = OUTERS[options.outer]()
            checkpoints = _checkpoints(options)
            start = _start(checkpoints, workers, outer, options)
            done = int(start.get("done", 0))
            with Journal(options.output, model, table, synthetic=task.synthetic, done=done) as journal:
                for round_ in train(workers, _settings(options), outer, **start):
                    _tell(journal.take(round_))
                    if checkpoints:
                        checkpoints.after(round_, workers, outer)


def _tell(record: Record) -> None:
    click.echo(record.line)
    if record.loss is None:
        raise TrainingError(
            f"the loss is no longer a number after round {record.round}: lower base_lr in the solver"
        )


def _checkpoints(options: Options) -> Checkpoints | None:
    if options.checkpoint is None:
        return None
    return Checkpoints(options.checkpoint, every=options.checkpoint_every)


def _start(
    checkpoints: Checkpoints | None, workers: SparkWorkers, outer: Outer, options: Options
) -> dict[str, Any]:
    """Where ``train`` begins: after the last checkpoint, if there is one."""
    start = resumed(checkpoints.latest() if checkpoints else None, workers, outer)
    if start:
        click.echo(f"going on after round {start['done']}, from {options.checkpoint}")
    if start.get("done", 0) >= options.rounds:
        raise UsageError(f"{start['done']} rounds are done already: ask for more with --rounds")
    return start


def _settings(options: Options) -> Settings:
    return Settings(
        rounds=options.rounds,
        tau=options.tau,
        time_cap_seconds=options.time_cap,
        test_every=options.test_every,
        momentum=options.momentum or MOMENTA[options.outer],
    )


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


def _table(task: Task, options: Options, model: CaffeModel, workers: int, threads: int) -> dict[str, str]:
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
        "precision": options.precision,
    }


@contextmanager
def open_session(name: str) -> Iterator[SparkSession]:
    """A session that says only what went wrong, and is stopped in the end."""
    try:
        spark = session(name)
    except (Py4JError, PySparkException) as error:
        raise TrainingError(
            f"Spark does not start ({str(error).strip().splitlines()[0]}): is there a Java 17 or newer, and "
            "does the master of --master answer?"
        ) from error
    spark.sparkContext.setLogLevel("ERROR")
    try:
        yield spark
    finally:
        spark.stop()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
