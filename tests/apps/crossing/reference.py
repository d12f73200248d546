"""The same run on ``LocalWorkers``, set up from the line alone: what the apps' weights have to be."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from apps.solvers import load
from sparknet import easgd, training
from sparknet.algorithms import Algorithm, algorithm
from sparknet.caffe.files import weights as weight_files
from sparknet.caffe_replica import CaffeModel, CaffeReplica
from sparknet.checkpoint import Checkpoint, resumed
from sparknet.data import Transform, cifar10, contiguous, mnist
from sparknet.data.dataset import Dataset
from sparknet.easgd import Elastic, LockFree
from sparknet.local import LocalWorkers
from sparknet.outer import Average, DiLoCo, SlowMo
from sparknet.rate_rule import RateRule
from sparknet.reporting.metrics import Record
from sparknet.trainer.nets import Threaded
from sparknet.training import Round, Settings
from sparknet.weights import Vector
from sparknet.worker import Recipe
from tests.apps.crossing.draw import M
from tests.apps.crossing.line import Line

DEEPSPARK = 0.1


@dataclass(frozen=True, kw_only=True)
class Reference:
    """``rounds`` as they have to be; ``start`` is what the first began with."""

    rounds: Sequence[Round]
    start: Vector


def model_of(line: Line, materials: Path) -> CaffeModel:
    """Its net and solver, without what an algorithm makes of it."""
    shape = {"CifarApp": (3, 32, 32), "MnistApp": (1, 28, 28), "ImageNetApp": (3, 227, 227)}[line.app]
    return load(
        line.value("solver").replace(M, str(materials)),
        shape,
        batch_size=line.value("batch_size"),
        test_batch_size=50 if line.app == "ImageNetApp" else 100,
        precision=line.value("precision"),
    )


def workers_of(line: Line, slots: int) -> int:
    """How many shards there are."""
    return 1 if line.algorithm == "serial" else line.value("workers") or slots


def momentum_of(line: Line) -> str:
    """What becomes of the workers' momentum."""
    return line.value("momentum") or ("reset" if line.algorithm == "slowmo" else "keep")


def outer_of(line: Line, workers: int) -> Any:
    """The outer optimiser or centre, as the table of the documentation has it."""
    rate, momentum, moving = (line.value(name) for name in ("outer_lr", "outer_momentum", "moving_rate"))
    if line.algorithm == "slowmo":
        return SlowMo(1.0 if rate is None else rate, 0.5 if momentum is None else momentum)
    if line.algorithm == "diloco":
        return DiLoCo(0.7 if rate is None else rate, 0.3 if momentum is None else momentum)
    if line.algorithm == "easgd-lockfree":
        return LockFree(moving_rate=DEEPSPARK if moving is None else moving)
    if line.is_elastic:
        return Elastic(moving_rate=moving)
    return _auto(line, workers).outer() if line.algorithm == "auto" else Average()


def _auto(line: Line, workers: int) -> Algorithm:
    """What auto takes, which may go by the number of steps if that is known."""
    is_known = line.value("tau_schedule") == "constant" and line.tau != "auto"
    return algorithm("auto").of(workers, line.tau if is_known else None)


def reference(
    line: Line, materials: Path, latest: Checkpoint | None, records: Sequence[Record], slots: int
) -> Reference:
    """What rounds after ``latest`` have to give; with tau auto those of ``records`` are taken for it."""
    workers = workers_of(line, slots)
    data, transform = _data(line, materials)
    model = model_of(line, materials)
    if line.algorithm == "eamsgd":
        solver = type(model.solver)()
        solver.CopyFrom(model.solver)
        solver.type = "Nesterov"
        model = replace(model, solver=solver)
    recipe = Recipe(
        replica=Threaded(model=model, threads=max(1, (os.cpu_count() or 1) // min(workers, slots))),
        batch_size=line.value("batch_size"),
        transform=transform,
        test_batch_size=100,
        sampling=line.value("sampling"),
        seed=line.value("seed"),
    )
    settings = Settings(
        rounds=line.value("rounds"),
        tau=1 if line.algorithm == "sync" else _tau(line, model, records),
        test_every=line.value("test_every"),
        momentum=momentum_of(line),  # type: ignore[arg-type]
        overlap=line.value("overlap"),
        drain_every=line.value("checkpoint_every") if line.has("checkpoint") else 0,
        rate=_rate(line, model, workers),
        gradients=line.algorithm == "sync",
    )
    shards = [data.train[part] for part in contiguous(len(data.train), workers)]
    outer = outer_of(line, workers)
    train: Callable[..., Iterator[Round]] = easgd.train if line.is_elastic else training.train
    with LocalWorkers(recipe, shards, data.test, line.value("wire")) as local:
        start = resumed(latest, local, outer)
        if latest is None and line.has("weights"):
            start = {"weights": _loaded(recipe, line.value("weights").replace(M, str(materials)))}
        begins = start.get("weights", local.initial_weights())
        return Reference(
            rounds=[_kept(done) for done in train(local, settings, outer, **start)], start=begins
        )


def _rate(line: Line, model: CaffeModel, workers: int) -> RateRule | None:
    """What auto makes of the learning rate of solvers whose steps are as long as it."""
    by_rate = line.algorithm == "auto" and model.solver.type in ("SGD", "Nesterov")
    return _auto(line, workers).rate if by_rate else None


def _kept(done: Round) -> Round:
    return replace(done, outcome=np.array(done.weights))


def _data(line: Line, materials: Path) -> tuple[Dataset, Transform]:
    if line.app == "MnistApp":
        return mnist.load(materials / "mnist"), Transform(scale=1 / 256)
    found = cifar10.load(materials / "cifar10")
    return found, Transform(mean=found.train.mean_image())


def tau_after(line: Line, model: CaffeModel, rate: float | None) -> int | None:
    """Steps of a round, the rate of the one before being ``rate``; None where it is measured."""
    if line.tau == "auto":
        return None
    least, schedule = int(line.tau), line.value("tau_schedule")
    if schedule == "post-local":
        return 1 if rate is None or rate >= model.solver.base_lr else least
    if schedule == "quadratic" and rate:
        return max(least, int((line.value("tau_growth") / rate) ** 2))
    return least


def _tau(line: Line, model: CaffeModel, records: Sequence[Record]) -> Any:
    if line.tau == "auto":
        return lambda number, _rate: records[number - 1].tau
    return lambda _number, rate: tau_after(line, model, rate)


def _loaded(recipe: Recipe, file: str) -> Vector:
    replica = recipe.build()
    assert isinstance(replica, CaffeReplica)
    weight_files.load(replica.net, file)
    return np.array(replica.weights.numpy())
