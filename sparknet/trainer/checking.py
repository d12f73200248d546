"""What can be said of a ``Trainer``'s arguments before there are data: each wrong one in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from numbers import Integral, Real
from typing import Any, get_args

from sparknet.algorithms import Asked, algorithm
from sparknet.auto_tau import check_overhead
from sparknet.caffe.precision import dtype_named
from sparknet.caffe_replica import CaffeModel
from sparknet.codecs import get_codec
from sparknet.data.shards import check_sampling
from sparknet.distributed.averaging import COPY_EVERY, check_exchange
from sparknet.errors import UsageError
from sparknet.objectives import check_weighted
from sparknet.overlap import check_fragments, check_momentum
from sparknet.trainer.nets import is_caffe
from sparknet.training import Momentum, train

_OF_CLUSTERS = ("copy_every", "fragments", "profile", "memory_bytes")
_COUNTS = ("batch_size", "test_batch_size", "rounds", "workers", "test_every", "seed", *_OF_CLUSTERS)
_AMOUNTS = ("epochs", "lr", "time_cap", "overhead", "clip_norm", "clip_value")
_MAY_BE_ZERO = ("test_every", "seed", "profile", "memory_bytes", "lr", "overhead")
# What torch and NumPy both take.
LARGEST_SEED = 2**64 - 1
# What a Caffe solver says itself.
_OF_TORCH = ("loss", "metrics", "optimizer", "lr", "scheduler", "clip_norm", "clip_value", "weight")


def check(trainer: Any) -> None:
    """Raise UsageError for what cannot be."""
    _check_numbers(trainer)
    _check_columns(trainer)
    _check_algorithm(trainer)
    _check_run(trainer)
    _check_model(trainer)


def _check_numbers(trainer: Any) -> None:
    kinds: tuple[tuple[tuple[str, ...], Any, str], ...] = (
        (_COUNTS, Integral, "a whole number"),
        (_AMOUNTS, Real, "a number"),
    )
    for names, kind, wanted in kinds:
        for name in names:
            value: Any = getattr(trainer.cluster if name in _OF_CLUSTERS else trainer, name)
            if value is None:
                continue
            if type(value) is bool or not isinstance(value, kind):
                raise UsageError(f"{name} is {value!r}: {wanted} is needed")
            if not (math.isfinite(value) and (value > 0 or (value == 0 and name in _MAY_BE_ZERO))):
                raise UsageError(f"{name} is {value}: it must be positive")
    if trainer.seed > LARGEST_SEED:
        raise UsageError(f"seed is {trainer.seed}: at most {LARGEST_SEED} (64 bits)")
    if trainer.epochs is not None and trainer.rounds is not None:
        raise UsageError("epochs and rounds both say how long to train: give one of them")


def _check_columns(trainer: Any) -> None:
    features = trainer.features
    named = features if isinstance(features, Mapping) else {"data": features}
    for columns in named.values():
        listed = [columns] if isinstance(columns, str) or not isinstance(columns, Sequence) else columns
        wrong = [column for column in listed if not isinstance(column, str) and features is not None]
        if wrong:
            raise UsageError(
                f"features has a {type(wrong[0]).__name__} where the name of a column is needed: give a "
                "name, a list of names, or {input: names}; what is computed becomes a column by withColumn"
            )
    for name in ("label", "weight"):
        value = getattr(trainer, name)
        if not isinstance(value, str | None):
            raise UsageError(f"{name} is a {type(value).__name__}: the name of a column is needed, or None")


def _check_algorithm(trainer: Any) -> None:
    tau, chosen = trainer.tau, algorithm(trainer.algorithm)
    if (isinstance(tau, str) and tau != "auto") or isinstance(tau, bool | float):
        raise UsageError(f"tau is {tau!r}: a number of steps, a schedule of them, or auto")
    if trainer.rounds is None and not isinstance(tau, int | None):
        raise UsageError("how many rounds there are in epochs is not known with this tau: give rounds")
    if isinstance(tau, int) and tau < 1:
        raise UsageError(f"tau is {tau}: it must be positive")
    chosen.with_options(trainer.algorithm_options).check(
        Asked(
            tau=tau,
            overlap=trainer.overlap,
            momentum=trainer.momentum,
            quorum=trainer.cluster.timeouts.quorum,
            exchange=trainer.cluster.exchange,
            copies=trainer.cluster.copy_every != COPY_EVERY,
            workers=trainer.workers,
        )
    )
    check_fragments(trainer.cluster.fragments, trainer.overlap)
    if trainer.momentum not in (None, *get_args(Momentum)):
        raise UsageError(f"momentum is {trainer.momentum!r}: {', '.join(get_args(Momentum))}")
    check_momentum(trainer.momentum, trainer.overlap)
    if trainer.outer and chosen.train is not train:
        raise UsageError("an outer optimiser is for averages: elastic averaging has none, only a centre")
    if trainer.outer and chosen.gradients:
        raise UsageError("an outer optimiser is for averages of weights, and sync averages gradients")
    if trainer.outer and trainer.algorithm != "average":
        named = trainer.algorithm if isinstance(trainer.algorithm, str) else chosen.summary
        raise UsageError(f"outer and algorithm {named} both say what becomes of an average: give one of them")
    check_overhead(trainer.overhead, tau)


def _check_run(trainer: Any) -> None:
    cluster = trainer.cluster
    check_sampling(trainer.sampling)
    check_exchange(cluster.exchange, cluster.copy_every)
    get_codec(cluster.wire)
    dtype_named(cluster.precision)
    if trainer.resume and trainer.checkpoints is None:
        raise UsageError("resume needs checkpoints: where is the run to go on from?")
    if trainer.tensorboard and not trainer.output:
        raise UsageError("curves for TensorBoard are written by a run with an output folder: give output too")


def _check_model(trainer: Any) -> None:
    if not is_caffe(trainer.model) and not callable(trainer.model):
        raise UsageError(
            f"the model is {type(trainer.model).__name__}: the path of a Caffe solver, a torch.nn.Module or "
            "a function that makes one is needed"
        )
    _check_precision(trainer)
    if is_caffe(trainer.model):
        _refuse_torch_options(trainer)
    elif trainer.weight and trainer.loss is not None:
        check_weighted(trainer.loss)


def _check_precision(trainer: Any) -> None:
    """One that is asked for must be that of the net."""
    asked, model = trainer.cluster.precision, trainer.model
    if asked == "float32":
        return
    if not is_caffe(model):
        raise UsageError(f"precision {asked} is for Caffe nets: a module computes in what it is made of")
    if isinstance(model, CaffeModel) and model.precision != asked:
        raise UsageError(
            f"the model computes in {model.precision}, and the cluster's precision is {asked}: make the "
            "CaffeModel with that"
        )


def _refuse_torch_options(trainer: Any) -> None:
    defaults = {each.name: each.default for each in fields(trainer)}
    given = [name for name in _OF_TORCH if getattr(trainer, name) != defaults[name]]
    if given:
        raise UsageError(f"{', '.join(given)}: a Caffe solver says that itself; it is for torch modules")
