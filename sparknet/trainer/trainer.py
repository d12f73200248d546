"""``Trainer``: from a DataFrame and a net to a trained one.

    trainer = Trainer(model=make_net, loss="mse", optimizer="adam", lr=1e-3, features=["x", "y"], epochs=20)
    trained = trainer.fit(frame, validation=0.1)
    trained.predict(other).show()

What cannot be is said before a Spark job starts. Everything else is ``training.train`` on ``SparkWorkers``.
"""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyspark.sql import DataFrame, SparkSession

from sparknet.algorithms import Algorithm, algorithm
from sparknet.auto_tau import AutoTau
from sparknet.caffe.files import weights as weight_files
from sparknet.caffe_replica import CaffeModel, CaffeReplica
from sparknet.checkpoint import Checkpoints
from sparknet.data.feed import Transforms, by_column
from sparknet.data.records import Column
from sparknet.distributed.averaging import COPY_EVERY
from sparknet.distributed.timeouts import Timeouts
from sparknet.errors import DataError, TrainingError, UsageError
from sparknet.objectives import Loss, Metric, Objective
from sparknet.outer import Outer, Schedule
from sparknet.replica import TorchReplica
from sparknet.reporting.live import Page
from sparknet.reporting.metrics import Record
from sparknet.spark import SparkWorkers
from sparknet.spark.columns import Features, Shape
from sparknet.spark.slots import threads_each, workers_for
from sparknet.spark.turns import turn
from sparknet.torch_model import MakeOptimizer, MakeScheduler, TorchModel, load_weights
from sparknet.trainer import checking
from sparknet.trainer.callbacks import Best, EarlyStopping
from sparknet.trainer.journal import Journal, make_folder, reason
from sparknet.trainer.nets import (
    Model,
    Threaded,
    caffe_model,
    check_nesterov,
    frozen_caffe,
    is_caffe,
    is_sgd,
    label_kind,
    probe,
    with_nesterov,
)
from sparknet.trainer.resuming import Saved, automatic
from sparknet.trainer.settings_table import name_of, settings_table
from sparknet.trainer.source import Columns, Prepared, prepare, session_of
from sparknet.trainer.trained import Trained
from sparknet.trainer.validation import collected
from sparknet.training import Momentum, Round, Settings
from sparknet.weights import Vector, fetch
from sparknet.worker import Recipe

log = logging.getLogger(__name__)

EPOCHS, TAU = 10, 10


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """How workers run and talk to each other; see ``SparkWorkers`` and ``Timeouts``."""

    timeouts: Timeouts = field(default_factory=Timeouts)
    wire: str = "float32"
    exchange: Any = "auto"
    copy_every: int = COPY_EVERY
    fragments: int = 1
    memory_bytes: int | None = None
    profile: int = 0
    deterministic: bool = False
    precision: str = "float32"


@dataclass(frozen=True, kw_only=True, eq=False)
class Trainer:  # the one place where all that can be said of a run is listed
    """Trains ``model``: the path of a Caffe solver, a ``torch.nn.Module``, or a function that makes one.

    The net and what it is trained for (a Caffe solver says most of it itself):

    ``loss``  a name of ``objectives``, or torch's, or a function of (output, label); cross entropy by default
    ``metrics``  names or functions, for tests; accuracy where labels are classes, by default
    ``optimizer``, ``lr``, ``scheduler``, ``clip_norm``, ``clip_value``  as in ``TorchModel``
    ``weights``  to start from: a .caffemodel or .h5, a file of torch.save, or a state_dict
    ``freeze``  patterns of names that stay what they are: of parameters, of a Caffe net of layers

    The data:

    ``features``  a column, several side by side, or {input of the net: column(s)}; by default ``features``,
        ``image`` or ``data``
    ``label``  None where there is none; ``weight``: how much each record counts
    ``shapes``  of the values of columns, which those of binary ones must have: {"image": (3, 32, 32)}
    ``transform``, ``test_transform``  Caffe's, of the first input or by name

    How it is trained:

    ``algorithm``  one of ``algorithms``, with ``algorithm_options`` of its own; ``momentum``: what becomes of
        the workers' at an averaging; ``overlap``: averages travel while the next round is computed
    ``epochs`` or ``rounds``, of ``tau`` steps of ``batch_size`` records for each of ``workers`` (all slots);
        ``tau`` is a number, a schedule of ``outer``, or "auto", for exchanges to cost at most ``overhead`` of
        the time; by default the algorithm's, or 10
    ``test_every`` rounds the validation set is tested; ``early_stopping`` and ``keep_best`` (a metric) go by
        it; ``callbacks`` are told of every round
    ``output``  a folder for model, metrics.jsonl, report.html and curves
    ``report``  True for a page that shows the run while it trains, at an address that is logged; a path for
        one that is left there too; a ``Page`` to choose its port
    ``checkpoints``, ``resume``  where the run is saved, and whether it goes on from there
    ``origin``, ``model_name``, ``synthetic``  what the report calls data and solver, and if they are drawn

    Raises UsageError, ModelError and DataError for what cannot be.
    """

    model: Model
    loss: str | Loss | None = None
    metrics: Sequence[str | Metric] | None = None
    optimizer: MakeOptimizer = "adam"
    lr: float | None = None
    scheduler: MakeScheduler | None = None
    clip_norm: float | None = None
    clip_value: float | None = None
    weights: str | Path | Mapping[str, torch.Tensor] | None = None
    freeze: Sequence[str] = ()
    features: Features | None = None
    label: str | None = "label"
    weight: str | None = None
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    transform: Transforms | None = None
    test_transform: Transforms | None = None
    algorithm: str | Algorithm = "average"
    algorithm_options: Mapping[str, float | None] = field(default_factory=dict)
    overlap: bool = False
    outer: Callable[[], Outer] | None = None
    momentum: Momentum | None = None
    epochs: float | None = None
    rounds: int | None = None
    tau: int | str | Schedule | None = None
    overhead: float = 0.05
    batch_size: int = 32
    test_batch_size: int = 100
    workers: int | None = None
    sampling: str = "epoch"
    time_cap: float | None = None
    seed: int = 0
    test_every: int = 1
    early_stopping: EarlyStopping | None = None
    keep_best: str | None = None
    callbacks: Sequence[Any] = ()
    output: str | Path | None = None
    report: bool | str | Path | Page = False
    tensorboard: str | Path | None = None
    checkpoints: Checkpoints | None = None
    resume: bool = False
    origin: str = ""
    synthetic: bool = False
    model_name: str = ""
    cluster: Cluster = field(default_factory=Cluster)

    def __post_init__(self) -> None:
        checking.check(self)

    def check(self) -> None:
        """Raise UsageError if the run would replace another's checkpoints, or has been run to its end."""
        self._saved()

    def fit(self, data: Any, validation: Any = None, *, spark: SparkSession | None = None) -> Trained:
        """Train on a DataFrame, an RDD of ``Examples`` or ``Records``, or a source of records.

        ``validation`` is another one, or the share of the DataFrame's rows that is held out, drawn by
        ``seed``. Raises what data, net and cluster raise; TrainingError when the loss is no longer a number.
        """
        spark = session_of(data, spark)
        saved = self._saved() if self.checkpoints else self._saved_by_itself()
        data, validation = self._held_out(data, validation)
        prepared, model = self._prepared(data)
        self._check_validation(validation)
        return _Run(self, spark, prepared, model, validation, saved).trained()

    def _saved(self) -> Saved:
        return Saved.of(
            self.checkpoints, resume=self.resume, rounds=self.rounds, algorithm=self._algorithm_name
        )

    def _saved_by_itself(self) -> Saved:
        return Saved.of(automatic(), resume=True, rounds=self.rounds, algorithm=self._algorithm_name)

    @property
    def _algorithm_name(self) -> str:
        """Empty for one of the user's own."""
        return self.algorithm if isinstance(self.algorithm, str) and self.outer is None else ""

    def _prepared(self, data: Any) -> tuple[Prepared, CaffeModel | TorchModel]:
        """Data and net, after two records of zeros have gone through it."""
        columns = Columns(
            features=self.features,
            label=self.label,
            weight=self.weight,
            shapes=self.shapes,
            kind="any" if is_caffe(self.model) else self._objective.label_kind,
        )
        prepared = prepare(data, columns)
        model = self._model(prepared)
        if isinstance(model, CaffeModel) and self.label and isinstance(data, DataFrame):
            prepared = prepare(data, replace(columns, kind=label_kind(model)))
        probed = probe(model, prepared.schema, self.transform)
        return prepared.checked(probed.classes, probed.floats), model

    def _model(self, prepared: Prepared) -> CaffeModel | TorchModel:
        if is_caffe(self.model):
            built = caffe_model(
                self.model,  # type: ignore[arg-type]
                _cropped(prepared.inputs, self.transform),
                batch_size=self.batch_size,
                test_batch_size=self.test_batch_size,
                precision=self.cluster.precision,
            )
            built = with_nesterov(built) if algorithm(self.algorithm).nesterov else built
            return frozen_caffe(built, tuple(self.freeze))
        model = TorchModel(
            module=self.model,  # type: ignore[arg-type]
            optimizer=self.optimizer,
            lr=self.lr,
            objective=self._objective,
            scheduler=self.scheduler,
            clip_norm=self.clip_norm,
            clip_value=self.clip_value,
            freeze=tuple(self.freeze),
        )
        if algorithm(self.algorithm).nesterov:
            check_nesterov(model)
        return model

    @property
    def _objective(self) -> Objective:
        loss = "cross_entropy" if self.loss is None else self.loss
        objective = Objective(loss=loss, metrics=self.metrics or ())
        if self.metrics is None and objective.label_kind == "classes":
            return Objective(loss=loss, metrics=("accuracy",))
        return objective

    def _held_out(self, data: Any, validation: Any) -> tuple[Any, Any]:
        if not isinstance(validation, Real):
            return data, validation
        share = float(validation)
        if not 0 < share < 1:
            raise UsageError(f"validation is {validation}: a share of the rows lies between 0 and 1")
        if not isinstance(data, DataFrame):
            raise UsageError("a share can be held out of a DataFrame: give a validation set of its own")
        # with sample() the seed is lost where it is not named: every call would draw other rows
        return tuple(data.randomSplit([1 - share, share], seed=self.seed))  # type: ignore[return-value]

    def _check_validation(self, validation: Any) -> None:
        if validation is None and (self.early_stopping or self.keep_best):
            raise UsageError(
                "early_stopping and keep_best go by a validation set: fit(frame, validation=...)"
            )


class _Run:
    """One fit: what its parts have in common."""

    def __init__(
        self,
        trainer: Trainer,
        spark: SparkSession,
        prepared: Prepared,
        model: CaffeModel | TorchModel,
        validation: Any,
        saved: Saved,
    ) -> None:
        self.trainer, self.spark, self.prepared, self.model = trainer, spark, prepared, model
        self.saved = saved
        self.algorithm = algorithm(trainer.algorithm).with_options(trainer.algorithm_options)
        self.test = None if validation is None else collected(prepared, validation)
        self.best = _best_of(trainer)
        self.best_round: Round | None = None
        self.result: Trained | None = None
        self.start: dict[str, Any] = {}

    def trained(self) -> Trained:
        """Train, and leave in ``output`` what there is, however it ends."""
        timeouts = self.trainer.cluster.timeouts
        wanted = 1 if "workers" in self.algorithm.refuses else self.trainer.workers
        slots = workers_for(self.spark, wanted, deadline_seconds=timeouts.join)
        with turn(self.spark, slots):
            count, settings = self._plan(slots)
            recipe = self._recipe(threads_each(self.spark, count))
            self._begin(recipe)
            workers = self._workers(recipe, count)
            with keep_traces(workers, self.trainer.output, self.trainer.cluster.profile), workers:
                table = settings_table(
                    self.trainer,
                    self.model,
                    settings,
                    count,
                    recipe.replica,
                    chosen=self.algorithm,
                    exchange=workers.exchange,
                )
                log.info("training %s on %s", name_of(self.model), table["workers"])
                outer = (self.trainer.outer or self.algorithm.outer)()
                start = self.saved.resume(workers, outer, count) or self.start
                with self._journal(table) as journal:
                    try:
                        rounds = self.algorithm.train(workers, settings, outer, **start)
                        with closing(rounds):  # type: ignore[type-var]  # a generator
                            self._follow(rounds, journal, workers, outer)
                    finally:
                        self._finish(journal, reason(sys.exc_info()[1]))
        if self.result is None:
            raise TrainingError("no round was completed: there is no trained net")
        return self.result

    def _plan(self, slots: int) -> tuple[int, Settings]:
        """How many workers, and how long they train."""
        trainer, tau, rounds = self.trainer, self._tau(), self.trainer.rounds
        count = slots
        if rounds is None:
            records = self.prepared.count()
            if not records:
                raise DataError("there are no rows to train on")
            count = min(slots, records)
            steps = max(1, math.ceil((trainer.epochs or EPOCHS) * records / (count * trainer.batch_size)))
            assert isinstance(tau, int), "a trainer of epochs has refused any other"
            tau = min(tau, steps)
            rounds = math.ceil(steps / tau)
        self.algorithm = self._for_workers(count, tau)
        settings = self.algorithm.settings(
            momentum=trainer.momentum,
            rounds=rounds,
            tau=tau,
            time_cap_seconds=trainer.time_cap,
            test_every=trainer.test_every if self.test is not None else 0,
            overlap=trainer.overlap,
            drain_every=self.saved.checkpoints.drain_every if self.saved.checkpoints else 0,
        )
        return count, settings

    def _for_workers(self, count: int, tau: object) -> Algorithm:
        """What the algorithm is for so many; a rule of the learning rate is for SGD."""
        chosen = self.algorithm.of(count, tau)
        if chosen.rate is None:
            return chosen
        if is_sgd(self.model):
            log.info("%d workers: %s", count, chosen.rate)
            return chosen
        log.info("%d workers: the learning rate stays as it is, the rule of auto is for SGD", count)
        return replace(chosen, rate=None)

    def _tau(self) -> int | Schedule:
        """Steps of a round, or what says how many."""
        tau = self.trainer.tau or self.algorithm.tau or TAU
        if isinstance(tau, str):
            return AutoTau(self.trainer.overhead, overlap=self.trainer.overlap, tell=log.info)
        return tau

    def _recipe(self, threads: int) -> Recipe:
        trainer, model = self.trainer, self.model
        threaded: Any = (
            Threaded(model=model, threads=threads)
            if isinstance(model, CaffeModel)
            else replace(model, threads=threads)
        )
        return Recipe(
            replica=threaded,
            batch_size=trainer.batch_size,
            transform=trainer.transform or {},
            test_batch_size=trainer.test_batch_size,
            test_transform=trainer.test_transform,
            sampling=trainer.sampling,
            seed=trainer.seed,
            deterministic=trainer.cluster.deterministic,
        )

    def _workers(self, recipe: Recipe, count: int) -> SparkWorkers:
        cluster = self.trainer.cluster
        # gradients overlap with what computes them among the workers, not on their way through the driver
        in_ring = cluster.exchange == "auto" and self.algorithm.gradients and count > 1
        return SparkWorkers(
            self.spark,
            recipe,
            self.prepared.partitioned(self.spark, count),
            self.test,
            selection=self.prepared.selection,
            deadlines=cluster.timeouts,
            wire=cluster.wire,
            exchange="ring" if in_ring else cluster.exchange,
            copy_every=cluster.copy_every,
            fragments=cluster.fragments,
            memory_bytes=cluster.memory_bytes,
            profile=cluster.profile,
        )

    def _begin(self, recipe: Recipe) -> None:
        """What the run starts from, before there are workers, which would not be waited for."""
        if self.saved.latest:
            self.saved.check(recipe.build())
        elif self.trainer.weights is not None:
            self.start = {"weights": published(recipe, self.trainer.weights)}

    def _journal(self, table: Mapping[str, str]) -> Journal:
        trainer = self.trainer
        return Journal(
            Path(trainer.output) if trainer.output else None,
            title=name_of(self.model),
            settings=table,
            tensorboard=Path(trainer.tensorboard) if trainer.tensorboard else None,
            synthetic=trainer.synthetic,
            done=self.saved.done,
            page=Page.of(trainer.report),
            saved_at=trainer.checkpoints.folder if trainer.checkpoints else None,
        )

    def _follow(self, rounds: Iterator[Round], journal: Journal, workers: SparkWorkers, outer: Outer) -> None:
        """Go through the rounds, to the last or until somebody ends them."""
        for done in rounds:
            record = journal.take(done)
            if self.best and record.scores and self.best.is_new(record.scores):
                self.best_round = done
                fetch(done.outcome)  # now: later the workers may have other weights
            told = [_told(callback, record, done) for callback in self.trainer.callbacks]
            if record.loss is None:
                raise TrainingError(
                    f"the loss is no longer a number after round {record.round}: lower "
                    + ("base_lr in the solver" if isinstance(self.model, CaffeModel) else "the learning rate")
                )
            self.saved.after(done, workers, outer)
            if any(told) or self._is_over():
                return

    def _is_over(self) -> bool:
        stopping = self.trainer.early_stopping
        return bool(stopping and self.best and self.best.tests_since >= stopping.patience)

    def _finish(self, journal: Journal, failure: str) -> None:
        """Leave model and report of the rounds that there were."""
        if journal.last is None:
            return
        chosen = self.best_round or journal.last
        try:
            self.result = Trained(
                model=self.model,
                weights=np.array(chosen.weights),
                features=self.prepared.features,
                schema=self.prepared.inputs,
                transforms=self.trainer.test_transform or self.trainer.transform,
                kind="classes" if self._tells_classes else "numbers",
                names=self.prepared.names,
                history=journal.records,
                best_round=self.best_round.number if self.best_round else None,
                output=journal.output,
            )
        except TrainingError as error:
            log.warning("there is no model of round %d: %s", chosen.number, error)
        journal.leave(self.result.save_weights_in if self.result else _nothing, failure)
        for callback in self.trainer.callbacks:
            if self.result and hasattr(callback, "on_end"):
                callback.on_end(self.result)

    @property
    def _tells_classes(self) -> bool:
        return label_kind(self.model) == "classes"


def published(recipe: Recipe, weights: str | Path | Mapping[str, torch.Tensor]) -> Vector:
    """What a replica has after it has taken these weights, float32 (P,)."""
    replica = recipe.build()
    if isinstance(replica, CaffeReplica):
        if not isinstance(weights, str | Path):
            raise UsageError("weights of a Caffe net are the path of a .caffemodel or .h5")
        weight_files.load(replica.net, weights)
    elif isinstance(replica, TorchReplica):
        load_weights(replica.module, weights)
    return np.array(replica.weights.detach().cpu().numpy())


@contextmanager
def keep_traces(workers: SparkWorkers, output: str | Path | None, rounds: int) -> Iterator[None]:
    """Write the traces that the workers leave when they are closed into ``output``/profile.

    If ``rounds`` were to be traced, and none was, that is said.
    """
    try:
        yield
    finally:
        if rounds and not workers.traces:
            log.warning(
                "nothing was traced: a worker's first round, in which it warms up, is left out, and there "
                "was no other"
            )
        for name, trace in workers.traces.items():
            folder = Path(output or ".") / "profile"
            make_folder(folder)
            (folder / f"{name}.json.gz").write_bytes(trace)


def _best_of(trainer: Trainer) -> Best | None:
    stopping = trainer.early_stopping
    metric = trainer.keep_best or (stopping.metric if stopping else None)
    if metric is None:
        return None
    if stopping is None or stopping.metric != metric:
        return Best(metric)
    return Best(metric, stopping.mode, stopping.min_delta)


def _told(callback: Any, record: Record, done: Round) -> bool:
    return bool(callback.on_round(record, done)) if hasattr(callback, "on_round") else False


def _nothing(folder: Path) -> None:
    del folder


def _cropped(inputs: Mapping[str, Column], transform: Transforms | None) -> dict[str, Column]:
    """What the net sees of pictures that are cropped."""
    crops = {name: each.crop for name, each in by_column(transform).items() if each.crop}
    return {
        name: Column(column.dtype, (*column.shape[:-2], crops[name], crops[name]))
        if name in crops
        else column
        for name, column in inputs.items()
    }
