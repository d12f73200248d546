"""A drawn line said in Python: ``Trainer(...)`` with the same values, put together from the line alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pyspark.sql import SparkSession

from sparknet.checkpoint import Checkpoints
from sparknet.data import Transform, cifar10, mnist
from sparknet.distributed.timeouts import Timeouts
from sparknet.errors import SparkNetError
from sparknet.outer import post_local, quadratic
from sparknet.trainer import Cluster, Trained, Trainer
from tests.apps.crossing.draw import M
from tests.apps.crossing.line import Line
from tests.apps.crossing.reference import model_of
from tests.apps.crossing.rules import broken

_ARGUMENTS = (
    *("rounds", "batch_size", "workers", "seed", "test_every", "time_cap", "sampling", "overlap", "overhead"),
    *("momentum", "algorithm", "resume"),
)
_OF_ALGORITHMS = ("outer_lr", "outer_momentum", "moving_rate")
_OF_CLUSTERS = ("wire", "exchange", "copy_every", "fragments", "precision", "profile", "deterministic")
_TIMEOUTS = {"deadline": "round", "join_deadline": "join", "quorum": "quorum", "grace": "grace"}

SAID = frozenset([*_ARGUMENTS, *_OF_ALGORITHMS, *_OF_CLUSTERS, *_TIMEOUTS, "tau"])
"""Options that are an argument in Python, whose values can be the same."""


def refusal(line: Line, materials: Path, folder: Path) -> str | None:
    """What ``Trainer(...)`` says against it; None if it takes it."""
    try:
        trainer_of(line, materials, folder)
    except SparkNetError as error:
        return str(error)
    return None


def disagreement(line: Line, materials: Path, folder: Path) -> list[str]:
    """Where Python takes what an app refuses, or the other way round."""
    if line.nonsense - SAID:
        return []
    due = [f"the value of {name}" for name in line.nonsense]
    due = due or [str(rule) for rule in broken(line) if not rule.cli]
    if not due and broken(line):  # of what cannot be said in Python
        return []
    try:
        said = refusal(line, materials, folder)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is no sentence
        return [f"Trainer(...) raises {error!r}"]
    if due and said is None:
        return [f"Trainer(...) takes {', '.join(due)}"]
    if said is not None and (not due or "\n" in said):
        return [f"Trainer(...) says: {said}"]
    return []


def trainer_of(line: Line, materials: Path, folder: Path) -> Trainer:
    """Raises UsageError as ``Trainer`` does."""
    given = {name: _value(line, name) for name in _ARGUMENTS if line.has(name) or name == "test_every"}
    given["algorithm"] = _value(line, "algorithm") if line.has("algorithm") else line.algorithm
    given["sampling"] = _value(line, "sampling")
    return Trainer(
        model="a.prototxt" if line.nonsense & {"precision", "batch_size"} else model_of(line, materials),
        transform=_transform(line, materials),
        tau=_tau(line, materials),
        algorithm_options={name: _value(line, name) for name in _OF_ALGORITHMS if line.has(name)},
        checkpoints=_checkpoints(line, folder),
        weights=line.given["weights"].replace(M, str(materials)) if line.has("weights") else None,
        cluster=Cluster(
            timeouts=Timeouts(
                **{_TIMEOUTS[name]: _value(line, name) for name in _TIMEOUTS if line.has(name)}
            ),
            **{name: _value(line, name) for name in _OF_CLUSTERS if line.has(name)},
        ),
        **given,
    )


def fitted(line: Line, materials: Path, folder: Path, spark: SparkSession) -> Trained:
    """What Python makes of it, on the same data."""
    load = mnist.load if line.app == "MnistApp" else cifar10.load
    found = load(materials / line.value("data").rpartition("/")[2])
    return trainer_of(line, materials, folder).fit(found.train, found.test, spark=spark)


def _value(line: Line, name: str) -> Any:
    if name not in line.nonsense:
        return line.value(name)
    written = line.given[name]
    for kind in (int, float):
        try:
            return kind(written)
        except ValueError:
            pass
    return written


def _tau(line: Line, materials: Path) -> Any:
    if "tau" in line.nonsense:
        return _value(line, "tau")
    schedule, tau = line.value("tau_schedule"), line.tau
    if schedule == "post-local" and isinstance(tau, int):
        return post_local(tau, model_of(line, materials).solver.base_lr)
    if schedule == "quadratic" and isinstance(tau, int) and line.has("tau_growth"):
        return quadratic(tau, line.value("tau_growth"))
    return tau


def _transform(line: Line, materials: Path) -> Transform:
    if line.app == "MnistApp":
        return Transform(scale=1 / 256)
    return Transform(mean=cifar10.load(materials / "cifar10").train.mean_image())


def _checkpoints(line: Line, folder: Path) -> Checkpoints | None:
    if not line.has("checkpoint"):
        return None
    return Checkpoints(
        str(folder / line.value("checkpoint")),
        every=line.value("checkpoint_every"),
        keep=line.value("checkpoint_keep"),
        patience=line.value("checkpoint_patience"),
    )
