"""LMDB and LevelDB of Caffe's Datum records, under the keys that Caffe's convert_imageset gives them.

A batch of records is one transaction. The key of the last one tells where to go on.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparknet.caffe.schema.caffe_pb2 import Datum
from sparknet.db.records import Record
from sparknet.db.target import BATCH, key_of, whole_label
from sparknet.errors import DataError

FIRST_MAP_BYTES = 1 << 28
"""What an LMDB may hold at first; it is doubled whenever that is not enough."""


class LmdbTarget:
    """An LMDB in the folder ``path``; keys have ``digits`` digits."""

    step = BATCH

    def __init__(self, path: Path, digits: int, *, map_bytes: int = FIRST_MAP_BYTES) -> None:
        self.path, self.digits, self._map_bytes = path, digits, map_bytes

    def begin(self) -> int:
        import lmdb

        self._lmdb = lmdb
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            there = self.path / "data.mdb"
            size = max(self._map_bytes, 2 * there.stat().st_size if there.exists() else 0)
            self._environment = lmdb.open(str(self.path), map_size=size, subdir=True)
        except (OSError, lmdb.Error) as error:
            raise DataError(f"{self.path} cannot be written as LMDB: {error}") from None
        with self._environment.begin() as transaction:
            cursor = transaction.cursor()
            return _number(cursor.key()) + 1 if cursor.last() else 0

    def put(self, first: int, records: Sequence[Record]) -> None:  # noqa: ARG002
        pairs = [(key_of(record, self.digits), datum_of(record)) for record in records]
        while not self._committed(pairs):
            self._environment.set_mapsize(2 * self._environment.info()["map_size"])

    def close(self) -> None:
        self._environment.close()

    def shards(self) -> dict[str, int]:
        return {}

    def count(self) -> int:
        return int(self._environment.stat()["entries"])

    def _committed(self, pairs: Sequence[tuple[bytes, bytes]]) -> bool:
        """False where the map is full, which liblmdb may say at a put or only at the commit."""
        try:
            with self._environment.begin(write=True) as transaction:
                for key, value in pairs:
                    transaction.put(key, value)
        except self._lmdb.MapFullError:
            return False
        except self._lmdb.Error as error:
            raise DataError(f"{self.path} cannot be written: {error}") from None
        return True


class LevelDbTarget:
    """A LevelDB in the folder ``path``; keys have ``digits`` digits."""

    step = BATCH

    def __init__(self, path: Path, digits: int) -> None:
        self.path, self.digits = path, digits

    def begin(self) -> int:
        try:
            import plyvel
        except ImportError:
            raise DataError(
                f"{self.path}: writing a LevelDB needs the package plyvel-ci (pip install plyvel-ci, for "
                "Python 3.11 and 3.12); an LMDB needs none"
            ) from None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._database: Any = plyvel.DB(str(self.path), create_if_missing=True)
            with self._database.iterator(reverse=True, include_value=False) as keys:
                last = next(keys, None)
        except (plyvel.Error, OSError) as error:
            raise DataError(f"{self.path} cannot be written as LevelDB: {error}") from None
        return 0 if last is None else _number(last) + 1

    def put(self, first: int, records: Sequence[Record]) -> None:  # noqa: ARG002
        try:
            with self._database.write_batch(transaction=True, sync=True) as batch:
                for record in records:
                    batch.put(key_of(record, self.digits), datum_of(record))
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error}") from None

    def close(self) -> None:
        self._database.close()

    def shards(self) -> dict[str, int]:
        return {}

    def count(self) -> int:
        with self._database.iterator(include_value=False) as keys:
            return sum(1 for _ in keys)


def datum_of(record: Record) -> bytes:
    """The record as Caffe stores it."""
    label = whole_label(record)
    if isinstance(record.image, bytes):
        return Datum(data=record.image, encoded=True, label=label).SerializeToString()
    channels, height, width = record.image.shape
    datum = Datum(channels=channels, height=height, width=width, label=label)
    if record.image.dtype == np.uint8:
        datum.data = record.image.tobytes()
    else:
        datum.float_data.extend(record.image.ravel().tolist())
    return datum.SerializeToString()


def _number(key: bytes) -> int:
    found = re.match(rb"(\d+)_", key)
    if found is None:
        raise DataError(f"its last key is {key!r}, not one that was made here: choose another place")
    return int(found[1])
