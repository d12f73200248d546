"""What can go wrong in training, as one tree.

    SparkNetError               exit status 7
    ├── UsageError              2   an option or argument that cannot be
    ├── ModelError              2   a net, solver or weight file that cannot be used
    │   └── SchemaError         2   prototxt that does not parse: file, line, column
    ├── DataError               3   records that are missing, broken or of the wrong shape
    ├── TrainingError           7   the run itself failed
    │   ├── WorkersLost         7   no worker is left, or none came in time
    │   └── CheckpointError     7   nothing to resume from
    └── Interrupted             130 stopped by the user

A message says what is wrong, where, and what to do about it. ``exit_status`` is what an app leaves with.
"""

from __future__ import annotations


class SparkNetError(Exception):
    """Base of everything the trainer raises on purpose."""

    exit_status = 7


class UsageError(SparkNetError):
    """An option or argument that cannot be."""

    exit_status = 2


class ModelError(SparkNetError):
    """A net, solver or weight file that cannot be used."""

    exit_status = 2


class SchemaError(ModelError):
    """Text that is not the prototxt it should be.

    ``file``, ``line`` and ``column`` (both counted from 1; 0 where unknown) say where.
    """

    def __init__(self, message: str, *, file: str = "", line: int = 0, column: int = 0) -> None:
        self.file, self.line, self.column = file, line, column
        place = ":".join([file or "<text>", *(str(n) for n in (line, column) if n)])
        super().__init__(f"{place}: {message}")


class DataError(SparkNetError):
    """Records that are missing, broken or of the wrong shape."""

    exit_status = 3


class TrainingError(SparkNetError):
    """The run itself failed."""


class WorkersLost(TrainingError):  # noqa: N818 - named for what happened
    """No worker is left, or none came in time."""


class CheckpointError(TrainingError):
    """Nothing to resume from."""


class Interrupted(SparkNetError):  # noqa: N818
    """Stopped by the user."""

    exit_status = 130
