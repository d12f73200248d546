"""Records: the keys and values of a database, in byte order, over and over.

LMDB and LevelDB, as Caffe writes them. Source: ``db_lmdb.cpp`` and ``db_leveldb.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

from sparknet.errors import DataError

Record = tuple[bytes, bytes]


class Records(Protocol):
    """An open database."""

    def once(self) -> Iterator[Record]:
        """(key, value) in byte order of the keys."""


class Lmdb:
    """An open LMDB environment, closed when forgotten."""

    def __init__(self, path: str) -> None:
        import lmdb

        try:
            self.environment: Any = lmdb.open(
                path, readonly=True, lock=False, subdir=Path(path).is_dir(), readahead=False
            )
        except lmdb.Error as error:
            raise DataError(f"cannot open {path} as LMDB: {error}") from None
        self.path, self.error = path, lmdb.Error

    def once(self) -> Iterator[Record]:
        try:
            with self.environment.begin(buffers=False) as transaction:
                yield from transaction.cursor()
        except self.error as error:
            raise DataError(f"cannot read {self.path}: {error}") from None


class LevelDb:
    """An open LevelDB, closed when forgotten; no other process can open it meanwhile."""

    def __init__(self, path: str) -> None:
        try:
            import plyvel
        except ImportError:
            raise DataError(
                f"{path}: reading a LevelDB needs the package plyvel-ci (pip install plyvel-ci, for Python "
                "3.11 and 3.12); or convert it to LMDB and say backend: LMDB"
            ) from None
        if not Path(path, "CURRENT").is_file():  # LevelDB would leave a lock and a log where there is none
            raise DataError(f"cannot open {path} as LevelDB: it has no file CURRENT{_lmdb_hint(path)}")
        try:
            self.database: Any = plyvel.DB(path, create_if_missing=False)
        except (plyvel.Error, OSError) as error:
            raise DataError(f"cannot open {path} as LevelDB: {_words(error)}") from None
        self.error: type[Exception] = plyvel.Error
        self.path = path

    def once(self) -> Iterator[Record]:
        try:
            with self.database.iterator(verify_checksums=True) as records:
                yield from records
        except (self.error, OSError) as error:
            raise DataError(f"cannot read {self.path}: {_words(error)}") from None


_OPEN: WeakValueDictionary[tuple[type, str], Lmdb | LevelDb] = WeakValueDictionary()


def open_records(source: str, kind: type[Lmdb] | type[LevelDb]) -> Records:
    """The database at ``source``, opened once per process.

    Raises DataError if there is none, or nothing in it.
    """
    path = str(Path(source).resolve())
    records = _OPEN.get((kind, path))
    if records is None:
        records = _OPEN[kind, path] = kind(path)
    if next(records.once(), None) is None:
        raise DataError(f"the database {source} is empty")
    return records


def forever(records: Records) -> Iterator[Record]:
    """The records from the first on, again and again."""
    while True:
        yield from records.once()


def _lmdb_hint(path: str) -> str:
    return (
        "; it is an LMDB: say backend: LMDB (none given means LEVELDB)"
        if Path(path, "data.mdb").exists()
        else ""
    )


def _words(error: Exception) -> str:
    """LevelDB's own words, which plyvel hands on as bytes; of a database in use, with what to do."""
    words = error.args[0] if error.args else ""
    text = words.decode(errors="replace") if isinstance(words, bytes) else str(error)
    if "lock" in text:
        text += ": LevelDB lets one process read it at a time; an LMDB can be read by many"
    return text
