"""Records as picture files in folders by class, which any other program can read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sparknet.data.decoding import encode
from sparknet.db.records import Record
from sparknet.db.target import BATCH
from sparknet.errors import DataError
from sparknet.sources import files
from sparknet.sources.files import joined


class FolderTarget:
    """``url``/CLASS/NUMBER_NAME.png; the classes' numbers stand for names that nobody knows."""

    step = BATCH

    def __init__(self, url: str, digits: int, classes: Sequence[str] | None) -> None:
        self.url, self.digits, self.classes = url, digits, classes
        self._records = 0

    def begin(self) -> int:
        found = files.listing(self.url) if files.exists(self.url) else []
        numbers = [file.name.partition("_")[0] for file in found if not file.name.endswith(".json")]
        if not all(number.isdigit() for number in numbers):
            raise DataError(f"{self.url} has files in it that were not written here: choose another place")
        self._records = len(numbers)
        # files of a batch are written one by one: the last, unfinished one is written again
        return max((int(number) for number in numbers), default=-1) // self.step * self.step if numbers else 0

    def put(self, first: int, records: Sequence[Record]) -> None:  # noqa: ARG002
        for record in records:
            data, ending = _file(record)
            stem = record.key.rpartition("/")[2].partition(".")[0]
            name = f"{record.number:0{self.digits}d}_{stem}.{ending}"
            url = joined(self.url, joined(self._class(record), name) if record.label is not None else name)
            files.write(url, data)

    def close(self) -> None:
        """Nothing is open."""

    def shards(self) -> dict[str, int]:
        return {}

    def count(self) -> int:
        return sum(1 for file in files.listing(self.url) if not file.name.endswith(".json"))

    def _class(self, record: Record) -> str:
        label = record.label
        if isinstance(label, float):
            raise DataError(f"{record.key}: a folder by class has no place for the label {label}")
        return self.classes[label] if self.classes and label is not None else f"{label:04d}"


def _file(record: Record) -> tuple[bytes, str]:
    """The content of the file and its ending: pixels become PNG."""
    if isinstance(record.image, bytes):
        return record.image, record.ending
    if len(record.image) not in (1, 3) or record.image.dtype.name != "uint8":
        raise DataError(
            f"{record.key} is {record.image.dtype} {record.image.shape}: no picture file holds that"
        )
    return encode(record.image.astype(np.uint8, copy=False), "png", order=record.order or "rgb"), "png"
