"""What an experiment compares, read from a file of TOML.

title = "K and tau"
solver = "../../apps/models/cifar10_quick_solver.prototxt"     # as seen from this file
dataset = "cifar10"                                            # or "mnist"
batch_size = 100                                               # of each worker
epochs = 10                                                    # of all workers together
test_every = 50                                                # steps of a worker, or test_epochs = 0.5
goal = 0.6                                                     # accuracy; runs may end there

[grid]                                                         # every value with every other
workers = [1, 4]
tau = [10, 50]

With several tables ``[[grid]]`` the runs are those of each.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any, get_args

from sparknet.algorithms import ALGORITHMS, Asked, algorithm
from sparknet.codecs import CODECS
from sparknet.data.shards import SAMPLERS
from sparknet.errors import DataError, UsageError
from sparknet.training import Momentum

DATASETS = ("cifar10", "mnist")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One run; None stands for what the algorithm or the solver says."""

    algorithm: str = "average"
    workers: int = 1
    tau: int = 10
    overlap: bool = False
    wire: str = "float32"
    base_lr: float | None = None
    momentum: str | None = None
    outer_lr: float | None = None
    outer_momentum: float | None = None
    moving_rate: float | None = None
    seed: int = 0

    @property
    def options(self) -> dict[str, float | None]:
        """Those of the algorithm."""
        return {name: getattr(self, name) for name in ("outer_lr", "outer_momentum", "moving_rate")}

    @property
    def key(self) -> str:
        """What tells it from all others."""
        return json.dumps(asdict(self), sort_keys=True)

    def check(self) -> None:
        """Raise UsageError, with the reason, if its values do not go together."""
        asked = Asked(tau=self.tau, overlap=self.overlap, momentum=self._momentum, workers=self.workers)
        algorithm(self.algorithm).of(self.workers, self.tau).with_options(self.options).check(asked)
        if self.overlap and self.momentum == "average":
            raise UsageError("momentum average is for workers that wait for each other: not with overlap")

    @property
    def _momentum(self) -> Any:
        return self.momentum


Grid = Mapping[str, Sequence[Any]]

_NAMES = tuple(each.name for each in fields(Trial))
_POSITIVE = (
    "batch_size",
    "steps",
    "epochs",
    "test_every",
    "test_epochs",
    "records",
    "test_records",
    "threads",
)


@dataclass(frozen=True, kw_only=True)
class Study:
    """The experiment. ``grid`` has the values of each name of ``Trial`` that is not as it is there, once or
    in several tables.

    ``steps`` are those of a worker in a run; with ``epochs`` in place of them all runs read as many images.
    A run is tested after every ``test_every`` steps of a worker, or every ``test_epochs``, as often with many
    workers as with one. It ends at the accuracy ``goal``, unless
    ``stop_at_goal`` says otherwise. ``records`` and ``test_records`` limit the data to its first ones.
    """

    title: str
    solver: str
    dataset: str = "cifar10"
    data: str = "auto"
    batch_size: int = 100
    steps: int | None = None
    epochs: float | None = None
    test_every: int = 50
    test_epochs: float | None = None
    goal: float | None = None
    stop_at_goal: bool = True
    sampling: str = "epoch"
    records: int | None = None
    test_records: int | None = None
    threads: int = 1
    grid: Grid | Sequence[Grid] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise UsageError("how long is a run? Give steps (of each worker) or epochs (of all), one of them")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and value > 0):
                raise UsageError(f"{name} is {value!r}: a positive number is needed")
        if self.goal is not None and not 0 < self.goal <= 1:
            raise UsageError(f"goal is {self.goal}: an accuracy, above 0 and at most 1")
        _one_of("dataset", self.dataset, DATASETS)
        _one_of("sampling", self.sampling, SAMPLERS)
        for name, values in (pair for grid in self.grids for pair in grid.items()):
            _one_of("a name of [grid]", name, _NAMES)
            if not isinstance(values, list) or not values:
                raise UsageError(f"{name} in [grid] is {values!r}: a list of values is needed")
        for trial in self.trials:
            _check(trial)

    @property
    def grids(self) -> Sequence[Grid]:
        """The tables of values, each of which is a product."""
        return [self.grid] if isinstance(self.grid, Mapping) else self.grid

    @property
    def trials(self) -> list[Trial]:
        """All runs, in the order in which they are made, those too whose values do not go together."""
        found = dict.fromkeys(trial for grid in self.grids for trial in _product(grid))
        # seeds last: whoever looks while it runs sees every combination once before any twice
        seeds = list(dict.fromkeys(trial.seed for trial in found))
        return sorted(found, key=lambda trial: seeds.index(trial.seed))

    @property
    def settings(self) -> dict[str, Any]:
        """All but the title and the grid: what runs must share to be compared."""
        return {name: value for name, value in asdict(self).items() if name not in ("title", "grid")}


def read(file: Path, changes: Mapping[str, Any] | None = None) -> Study:
    """The experiment in a file; ``changes`` replace values, those of the grid as ``grid.NAME``: in the tables
    that have the name, or in all if none has.

    Raises DataError if it cannot be read, UsageError for what it must not say.
    """
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DataError(f"{file} cannot be read as an experiment: {error}") from error
    given = values.pop("grid", {})
    grids = [dict(grid) for grid in (given if isinstance(given, list) else [given])]
    for name, value in (changes or {}).items():
        inside = name.removeprefix("grid.")
        for changed in _having(grids, inside) if inside != name else [values]:
            changed[inside] = value
    known = {each.name for each in fields(Study)}
    unknown = sorted(values.keys() - known)
    if unknown:
        raise UsageError(f"{file}: {unknown[0]} is not one of {', '.join(sorted(known))}")
    missing = [name for name in ("title", "solver") if name not in values]
    if missing:
        raise UsageError(f"{file}: {missing[0]} is missing")
    beside = file.parent / str(values["solver"])
    values["solver"] = str(beside if beside.exists() else values["solver"])
    return Study(**values, grid=grids)


def _having(grids: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [grid for grid in grids if name in grid] or grids


def _product(grid: Grid) -> Iterator[Trial]:
    """Every value with every other."""
    names = sorted(grid, key=_NAMES.index)
    for values in product(*(grid[name] for name in names)):
        yield Trial(**dict(zip(names, values, strict=True)))


def value_of(text: str) -> Any:
    """What TOML makes of a value, or the text itself where it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _check(trial: Trial) -> None:
    """Raise UsageError for a value that is none; whether values go together is asked of each run."""
    _one_of("algorithm", trial.algorithm, ALGORITHMS)
    _one_of("wire", trial.wire, CODECS)
    if trial.momentum is not None:
        _one_of("momentum", trial.momentum, get_args(Momentum))
    for name, least in (("workers", 1), ("tau", 1), ("seed", 0)):
        value = getattr(trial, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            why = " (there is no network here to measure)" if value == "auto" else ""
            raise UsageError(f"{name} is {value!r} in [grid]: whole numbers from {least} on are needed{why}")
    if not isinstance(trial.overlap, bool):
        raise UsageError(f"overlap is {trial.overlap!r} in [grid]: true or false")


def _one_of(name: str, value: Any, choices: Any) -> None:
    if value not in choices:
        raise UsageError(f"{name} is {value!r}: it is one of {', '.join(choices)}")
