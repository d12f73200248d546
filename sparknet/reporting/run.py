"""A run as it is shown, while it trains and when it has ended: everything a page or a report is made of."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Self

from sparknet.errors import TrainingError
from sparknet.reporting.metrics import Record, clock, percent
from sparknet.reporting.roster import WorkerRow

CLUSTER = "SPARKNET_CLUSTER"
"""The environment variable that holds a ``Cluster`` as JSON."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The machines that a run is on, as whoever rents them describes them.

    ``machines`` counts them by a description ("g6.xlarge, spot"), ``per_hour`` is dollars for all of them;
    None where nobody knows. ``simulated`` ones cost nothing.
    """

    name: str
    region: str = ""
    machines: Mapping[str, int] = field(default_factory=dict)
    per_hour: float | None = None
    simulated: bool = False

    @classmethod
    def from_environment(cls) -> Self | None:
        """What ``SPARKNET_CLUSTER`` says; None where it is not set, or not to be read."""
        try:
            return cls(**json.loads(os.environ.get(CLUSTER, "null")))
        except (ValueError, TypeError):
            return None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A title, the settings as (name, value) text, the records so far, in order, and the workers.

    ``is_over`` once no round will follow; ``failure`` says why, where that is no success. ``versions`` are
    those of the software, by name.
    """

    title: str
    settings: Mapping[str, str]
    records: Sequence[Record]
    workers: Sequence[WorkerRow] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    cluster: Cluster | None = None
    is_over: bool = True
    failure: str = ""

    @property
    def last(self) -> Record:
        """Raises TrainingError when there are no records."""
        self.require()
        return self.records[-1]

    def require(self) -> None:
        """Raise TrainingError when there are no records: there is nothing to report on."""
        if not self.records:
            raise TrainingError("no round was completed: there is nothing to report on")

    @property
    def synthetic(self) -> bool:
        return any(record.synthetic for record in self.records)

    @property
    def tested(self) -> list[Record]:
        return [record for record in self.records if record.scores]

    @property
    def accuracy(self) -> Record | None:
        """The last record that has an accuracy."""
        return next((one for one in reversed(self.records) if one.accuracy is not None), None)

    @property
    def headline(self) -> str:
        """The result in one line."""
        scored = self.accuracy
        result = f"accuracy {percent(scored.accuracy or 0, self.synthetic)}" if scored else "not tested"
        return f"{result} after {self.last.round} rounds, {clock(self.last.elapsed_seconds)}"


def versions() -> dict[str, str]:
    """Of Python, and of those packages that matter to a training and are loaded in this process."""
    found = {"Python": platform.python_version()}
    with suppress(metadata.PackageNotFoundError):  # on a node it is a folder, not an installed package
        found = {"SparkNet on EC2": metadata.version("sparknet-ec2"), **found}
    for name, module in (("PyTorch", "torch"), ("Spark", "pyspark"), ("NumPy", "numpy")):
        loaded: Any = sys.modules.get(module)
        if loaded is not None:
            found[name] = str(loaded.__version__)
    torch = sys.modules.get("torch")
    cuda = torch and torch.version.cuda
    return {**found, **({"CUDA": str(cuda)} if cuda else {})}
