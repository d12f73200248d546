"""A training run as every app makes one: data and a net in, rounds on Spark, model and report out.

TrainingData + Options ──> SparkWorkers ──> train() ──> one line a round, metrics.jsonl, tensorboard/
                                │              └──────> model.caffemodel, report.html, curve.png
                                └─────────────────────> profile/, if asked for
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import click
from pyspark import RDD
from pyspark.sql import SparkSession

from apps.journal import Journal, keep_traces, make_folder
from apps.options import Options
from apps.saved import Saved
from apps.session import open_session
from apps.solvers import Threaded, load
from sparknet.caffe_replica import CaffeModel
from sparknet.data import Examples, Transform
from sparknet.data.locate import Located
from sparknet.errors import TrainingError
from sparknet.outer import Average, Outer, SlowMo
from sparknet.reporting.metrics import Record
from sparknet.spark import Deadlines, SparkWorkers, from_examples
from sparknet.spark.slots import threads_each, workers_for
from sparknet.training import Momentum, Settings, train
from sparknet.worker import Recipe

OUTERS: dict[str, Callable[[], Outer]] = {"average": Average, "slowmo": SlowMo}

# SlowMo's momentum takes the place of the workers' own
MOMENTA: dict[str, Momentum] = {"average": "keep", "slowmo": "reset"}


@dataclass(frozen=True, kw_only=True)
class TrainingData:
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
    def of(cls, located: Located, transform: Transform) -> TrainingData:
        """A data set that lies in the driver's memory."""
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


def run(data: TrainingData, options: Options) -> None:
    """Train as ``options`` say, print a line a round, and leave model and report in ``options.output``.

    An interrupted or failed run leaves those of its last whole round. Raises TrainingError when the loss is
    no longer a number, and what data, net and cluster raise.
    """
    click.echo(f"data: {data.origin}")
    sizes = {"batch_size": options.batch_size, "test_batch_size": data.test_batch_size}
    model = load(options.solver, data.shape, precision=options.precision, **sizes)
    make_folder(options.output)
    saved = Saved.of(options)
    with open_session(f"SparkNet {model.net.name}") as spark:
        count = workers_for(spark, options.workers, deadline_seconds=options.join_deadline)
        threads = threads_each(spark, count)
        recipe = _recipe(data, options, Threaded(model=model, threads=threads))
        table = _table(data, options, model, count, threads)
        click.echo(f"training {model.net.name} on {table['workers']}")
        workers = _workers(data, options, spark, recipe, data.shards(spark, count))
        with keep_traces(workers, options.output), workers:
            outer = OUTERS[options.outer]()
            start = saved.resume(workers, outer, count)
            with Journal(options, model, table, synthetic=data.synthetic, done=saved.done) as journal:
                for round_ in train(workers, _settings(options), outer, **start):
                    _echo(journal.take(round_))
                    saved.after(round_, workers, outer)


def _echo(record: Record) -> None:
    click.echo(record.line)
    for note in record.notes:
        click.echo(f"note: {note}", err=True)
    if record.loss is None:
        raise TrainingError(
            f"the loss is no longer a number after round {record.round}: lower base_lr in the solver"
        )


def _workers(
    data: TrainingData, options: Options, spark: SparkSession, recipe: Recipe, shards: RDD[Examples]
) -> SparkWorkers:
    deadlines = Deadlines(
        join=options.join_deadline, round=options.deadline, quorum=options.quorum, grace=options.grace
    )
    return SparkWorkers(
        spark,
        recipe,
        shards,
        data.test,
        shape=data.test.shape,
        deadlines=deadlines,
        wire=options.wire,
        exchange=options.exchange,
        copy_every=options.copy_every,
        memory_bytes=options.shard_memory,
        profile=options.profile,
    )


def _settings(options: Options) -> Settings:
    return Settings(
        rounds=options.rounds,
        tau=options.tau,
        time_cap_seconds=options.time_cap,
        test_every=options.test_every,
        momentum=options.momentum or MOMENTA[options.outer],
    )


def _recipe(data: TrainingData, options: Options, replica: Threaded) -> Recipe:
    return Recipe(
        replica=replica,
        batch_size=options.batch_size,
        transform=data.transform,
        test_batch_size=data.test_batch_size,
        test_transform=data.test_transform,
        sampling=options.sampling,
        seed=options.seed,
        deterministic=options.deterministic,
    )


def _table(
    data: TrainingData, options: Options, model: CaffeModel, workers: int, threads: int
) -> dict[str, str]:
    """The table of settings in the report."""
    solver = model.solver
    return {
        "data": data.origin,
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
        "precision": options.precision + (", deterministic" if options.deterministic else ""),
        "exchange of weights": f"{options.exchange}, {options.wire}",
        "a round waits for": _patience(options),
    }


def _patience(options: Options) -> str:
    if options.quorum == 1:
        return f"all workers, {options.deadline:g} s at most"
    return f"{options.quorum:.0%} of the workers, then {options.grace:g} s for the others"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
