"""One run of an experiment: all its workers in this process, tested as it goes."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from statistics import mean
from typing import Any

from sparknet.algorithms import Algorithm, algorithm
from sparknet.caffe_replica import CaffeModel
from sparknet.data import Dataset, Transform, contiguous
from sparknet.data.locate import locate
from sparknet.data.records import Column
from sparknet.errors import TrainingError, UsageError
from sparknet.experiment.study import Study, Trial
from sparknet.local import LocalWorkers
from sparknet.reporting.costs import rounds_to
from sparknet.trainer.nets import Threaded, caffe_model, with_nesterov
from sparknet.training import Settings
from sparknet.worker import Recipe

_LAST = 5  # tests whose mean is the accuracy of a run: a single one wobbles by a point


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of a run. ``curve`` has (steps of a worker, accuracy 0 to 1) of every test.

    ``accuracy`` is the mean of the last five tests, ``goal_steps`` the steps of a worker to the goal, between
    two tests in proportion; None where there was none. ``failure`` says why there is nothing else.
    """

    trial: Trial
    failure: str = ""
    steps: int = 0
    images: int = 0
    accuracy: float | None = None
    best: float | None = None
    loss: float | None = None
    goal_steps: float | None = None
    seconds: float = 0.0
    curve: tuple[tuple[int, float], ...] = field(default=())

    @property
    def values(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> Outcome:
        """What ``values`` were made of."""
        curve = tuple((int(steps), float(accuracy)) for steps, accuracy in values["curve"])
        return cls(**{**values, "trial": Trial(**values["trial"]), "curve": curve})

    @property
    def line(self) -> str:
        """In one line."""
        if self.failure:
            return self.failure
        reached = "" if self.goal_steps is None else f", the goal after {self.goal_steps:,.0f} steps"
        accuracy = "not tested" if self.accuracy is None else f"{100 * self.accuracy:.1f} %"
        return f"{accuracy} after {self.steps:,} steps a worker{reached}, {self.seconds:.0f} s"


def run(study: Study, trial: Trial) -> Outcome:
    """Make the run. What does not go together, or diverges, is an outcome too."""
    try:
        trial.check()
        chosen = algorithm(trial.algorithm).of(trial.workers, trial.tau).with_options(trial.options)
        dataset = _dataset(study)
        recipe = _recipe(study, trial, dataset, chosen)
        return _trained(study, trial, dataset, recipe, chosen)
    except (UsageError, TrainingError) as error:
        return Outcome(trial=trial, failure=str(error))


def steps_of(study: Study, trial: Trial, records: int) -> int:
    """Of a worker in the run."""
    if study.steps is not None:
        return study.steps
    assert study.epochs is not None
    return max(1, round(study.epochs * records / (trial.workers * study.batch_size)))


def _test_steps(study: Study, trial: Trial, records: int) -> float:
    """Of a worker, from a test to the next."""
    if study.test_epochs is None:
        return study.test_every
    return study.test_epochs * records / (trial.workers * study.batch_size)


def _dataset(study: Study) -> Dataset:
    found = _located(study.dataset, study.data)
    return replace(found, train=found.train[: study.records], test=found.test[: study.test_records])


@lru_cache(maxsize=1)
def _located(name: str, data: str) -> Dataset:
    return locate(name, data).dataset


def _recipe(study: Study, trial: Trial, dataset: Dataset, chosen: Algorithm) -> Recipe:
    schema = {name: Column.of(array) for name, array in dataset.train.columns.items()}
    size = study.batch_size
    model = caffe_model(study.solver, schema, batch_size=size, test_batch_size=size)
    model = with_nesterov(model) if chosen.nesterov else model
    model = model if trial.base_lr is None else _at_rate(model, trial.base_lr)
    return Recipe(
        replica=Threaded(model=model, threads=study.threads),
        batch_size=size,
        test_batch_size=size,
        transform=Transform(mean=dataset.train.mean_image()),
        sampling=study.sampling,
        seed=trial.seed,
    )


def _at_rate(model: CaffeModel, base_lr: float) -> CaffeModel:
    solver = type(model.solver)()
    solver.CopyFrom(model.solver)
    solver.base_lr = base_lr
    return replace(model, solver=solver)


def _settings(study: Study, trial: Trial, chosen: Algorithm, records: int) -> Settings:
    rounds = math.ceil(steps_of(study, trial, records) / trial.tau)
    momentum: Any = trial.momentum
    return chosen.settings(
        rounds=rounds,
        tau=trial.tau,
        test_every=max(1, int(_test_steps(study, trial, records) / trial.tau)),
        overlap=trial.overlap,
        momentum=momentum,
    )


def _trained(study: Study, trial: Trial, dataset: Dataset, recipe: Recipe, chosen: Algorithm) -> Outcome:
    settings = _settings(study, trial, chosen, len(dataset.train))
    shards = [dataset.train[part] for part in contiguous(len(dataset.train), trial.workers)]
    curve: list[tuple[int, float]] = []
    began, images, steps, loss = time.monotonic(), 0, 0, math.nan
    with LocalWorkers(recipe, shards, dataset.test, trial.wire) as workers:
        for done in chosen.train(workers, settings, chosen.outer()):
            images, steps, loss = images + done.images, steps + done.tau, done.loss
            if done.accuracy is not None:
                curve.append((steps, done.accuracy))
                if study.stop_at_goal and study.goal is not None and done.accuracy >= study.goal:
                    break
    accuracies = [accuracy for _, accuracy in curve]
    return Outcome(
        trial=trial,
        steps=steps,
        images=images,
        accuracy=mean(accuracies[-_LAST:]) if accuracies else None,
        best=max(accuracies, default=None),
        loss=loss if math.isfinite(loss) else None,
        goal_steps=_reached(curve, study.goal),
        seconds=time.monotonic() - began,
        curve=tuple(curve),
    )


def _reached(curve: list[tuple[int, float]], goal: float | None) -> float | None:
    """The steps after which the accuracy was first ``goal``; it is taken to grow evenly between tests."""
    return None if goal is None else rounds_to(goal, dict(curve))
