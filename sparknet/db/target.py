"""Where records are written: databases and folders of files that go on, after a kill, where they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sparknet.db.records import Record
from sparknet.errors import DataError

BATCH = 1000
"""Records of one transaction."""


class Target(Protocol):
    """Something that takes records in the order of their numbers, ``step`` numbers at a time."""

    step: int

    def begin(self) -> int:
        """Open it, or go on with it: the first number that is not in it yet, a multiple of ``step`` or the
        end of what was written."""
        ...

    def put(self, first: int, records: Sequence[Record]) -> None:
        """Write what there is of the numbers ``first`` to ``first + step``: all of it, or nothing.

        Raises DataError.
        """
        ...

    def close(self) -> None:
        """Let go of it; what was put stays."""
        ...

    def shards(self) -> dict[str, int]:
        """How many records are in each of its files, where it has several."""
        ...

    def count(self) -> int:
        """How many records are in it."""
        ...


def key_of(record: Record, digits: int) -> bytes:
    """The key of a record, as Caffe's convert_imageset makes it.

    Keys are read in the order of their bytes, so that all need as many digits as the last of them, where
    Caffe has eight.
    """
    return f"{record.number:0{digits}d}_{record.key}".encode()


def digits_of(total: int) -> int:
    return max(8, len(str(total - 1)))


def whole_label(record: Record) -> int:
    """The label as a Datum has it. Raises DataError for one that is no whole number of 32 bits."""
    label = record.label
    if label is None:
        return 0
    if int(label) != label or not -(1 << 31) <= label < 1 << 31:
        raise DataError(f"{record.key}: the label {label} is no whole number of 32 bits, as a Datum has them")
    return int(label)
