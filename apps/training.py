"""A training run as every app makes one: data and options in, a ``Trainer`` with a line a round on stdout.

TrainingData + Options ──> Trainer ──> model.caffemodel, metrics.jsonl, report.html, curve.png, tensorboard/
                              └──────> profile/, if asked for
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import click
from pyspark import RDD
from pyspark.sql import SparkSession

from apps.options import Options
from apps.session import open_session
from apps.solvers import load
from sparknet.caffe_replica import CaffeModel
from sparknet.checkpoint import Checkpoints
from sparknet.data import Column, Examples, Transform
from sparknet.data.dataset import Shard
from sparknet.data.locate import Located
from sparknet.distributed.timeouts import Timeouts
from sparknet.outer import Schedule, post_local, quadratic
from sparknet.reporting.live import Page
from sparknet.reporting.metrics import Record
from sparknet.reporting.run import Run
from sparknet.spark import from_examples
from sparknet.trainer import Cluster, Trained, Trainer
from sparknet.trainer.journal import make_folder
from sparknet.training import Round


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What an app trains on, and how pictures become the net's input.

    ``shards`` gives the training set in so many partitions; ``origin`` is the sentence that says where it is
    from.
    """

    shards: Callable[[SparkSession, int], RDD[Examples] | RDD[Shard]]
    test: Examples
    origin: str
    transform: Transform
    test_transform: Transform | None = None
    test_batch_size: int = 100
    synthetic: bool = False
    classes: tuple[str, ...] = ()

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
    def schema(self) -> Mapping[str, Column]:
        """What the records are, those to train on as those to test on."""
        return {name: Column.of(array) for name, array in self.test.columns.items()}

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
    trainer = trainer_of(data, options, model)
    trainer.check()
    make_folder(options.output)
    if options.tensorboard:
        make_folder(options.tensorboard, "--tensorboard")
    with open_session(f"SparkNet {model.net.name}") as spark, echoed("sparknet.trainer"):
        trainer.fit(data, data.test, spark=spark)


def trainer_of(data: TrainingData, options: Options, model: CaffeModel) -> Trainer:
    """The trainer that ``options`` describe."""
    return Trainer(
        model=model,
        model_name=options.solver,
        weights=options.weights,
        transform=data.transform,
        test_transform=data.test_transform,
        algorithm=options.algorithm,
        algorithm_options=options.algorithm_options,
        overlap=options.overlap,
        momentum=options.momentum,
        rounds=options.rounds,
        tau=_tau(options, model),
        overhead=options.overhead,
        batch_size=options.batch_size,
        test_batch_size=data.test_batch_size,
        workers=options.workers,
        sampling=options.sampling,
        time_cap=options.time_cap,
        seed=options.seed,
        test_every=options.test_every,
        callbacks=[Lines()],
        output=options.output,
        report=Page(port=options.page_port) if options.page else False,
        tensorboard=options.tensorboard,
        checkpoints=_checkpoints(options),
        resume=options.resume,
        origin=data.origin,
        synthetic=data.synthetic,
        cluster=_cluster(options),
    )


def _tau(options: Options, model: CaffeModel) -> int | str | Schedule:
    if options.tau_schedule == "post-local":
        return post_local(_steps(options), model.solver.base_lr)
    if options.tau_schedule == "quadratic":
        return quadratic(_steps(options), options.tau_growth or 0.0)
    return options.tau


def _steps(options: Options) -> int:
    assert isinstance(options.tau, int)
    return options.tau


class Lines:
    """A line a round, and in the end what there is."""

    def on_round(self, record: Record, done: Round) -> None:  # noqa: ARG002 - the record says all
        click.echo(record.line)
        for note in record.notes:
            click.echo(f"note: {note}", err=True)

    def on_end(self, trained: Trained) -> None:
        click.echo(Run(title="", settings={}, records=trained.history).headline)
        if trained.output:
            click.echo(
                "model.caffemodel, metrics.jsonl, report.html, curve.png and tensorboard are in "
                f"{trained.output.resolve()}"
            )


class _Echo(logging.Handler):
    """What a library has to say: on stdout, warnings on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=record.levelno >= logging.WARNING)


@contextmanager
def echoed(name: str) -> Iterator[None]:
    """Let the user read what the logger ``name`` is told."""
    logger, handler = logging.getLogger(name), _Echo(logging.INFO)
    before, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before


def _checkpoints(options: Options) -> Checkpoints | None:
    if options.checkpoint is None:
        return None
    return Checkpoints(
        options.checkpoint,
        every=options.checkpoint_every,
        keep=options.checkpoint_keep,
        patience=options.checkpoint_patience,
    )


def _cluster(options: Options) -> Cluster:
    return Cluster(
        timeouts=Timeouts(
            join=options.join_deadline, round=options.deadline, quorum=options.quorum, grace=options.grace
        ),
        wire=options.wire,
        exchange=options.exchange,
        copy_every=options.copy_every,
        fragments=options.fragments,
        memory_bytes=options.shard_memory,
        profile=options.profile,
        deterministic=options.deterministic,
        precision=options.precision,
    )
