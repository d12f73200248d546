"""Records of any kind in memory: named columns of equal length, each of one dtype and shape.

    Records({"data": float32 (n, 12), "label": float32 (n,), "weight": float32 (n,)})

Labelled pictures are the common case and have a class of their own, ``Examples``, whose ``columns`` are
``data`` and ``label``. Whatever reads records asks for ``columns``, ``len`` and ``[...]`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparknet.errors import DataError

IGNORED = -100
"""The class of a place that does not count, in sequences and masks: torch's ``ignore_index``."""


@dataclass(frozen=True)
class Column:
    """What a column holds for each record: an array of ``shape`` and ``dtype``; () is a single number."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...] = ()

    @classmethod
    def of(cls, array: NDArray[Any]) -> Column:
        """The column whose records are the rows of ``array`` (n, *shape)."""
        return cls(array.dtype, tuple(array.shape[1:]))

    def __str__(self) -> str:
        """
        >>> str(Column(np.dtype(np.float32), (3, 32, 32)))
        'float32 (3, 32, 32)'
        """
        return f"{self.dtype} ({', '.join(map(str, self.shape))})"

    def empty(self, records: int = 0) -> NDArray[Any]:
        """Zeros for ``records`` records."""
        return np.zeros((records, *self.shape), self.dtype)


@dataclass(frozen=True, eq=False)
class Records:
    """``columns`` maps names to arrays (n, ...): record i is row i of each.

    ``spilled_bytes`` of them lie in files, not in memory. Raises DataError when they are not equally long.
    """

    columns: Mapping[str, NDArray[Any]]
    spilled_bytes: int = 0

    def __post_init__(self) -> None:
        lengths = {name: len(array) for name, array in self.columns.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"columns of one length are needed, these are {lengths}")

    @classmethod
    def none(cls, schema: Mapping[str, Column]) -> Records:
        """No records, of these columns."""
        return cls({name: column.empty() for name, column in schema.items()})

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, which: slice | NDArray[np.int64]) -> Records:
        """The records of a slice (views) or of an index array (copies)."""
        return Records({name: array[which] for name, array in self.columns.items()})

    @property
    def schema(self) -> dict[str, Column]:
        return {name: Column.of(array) for name, array in self.columns.items()}

    @property
    def nbytes(self) -> int:
        """Size of all columns in bytes."""
        return sum(array.nbytes for array in self.columns.values())
