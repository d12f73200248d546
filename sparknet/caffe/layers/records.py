"""Records: the keys and values of a database, in byte order, over and over.

LMDB and LevelDB, as Caffe writes them. Whoever opens one reads it as it is then. Source: ``db_lmdb.cpp`` and
``db_leveldb.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

from sparknet.caffe.files.lmdb_file import LmdbFile, Record
from sparknet.errors import DataError


class Records(Protocol):
    """An open database."""

    def once(self, start: bytes = b"") -> Iterator[Record]:
        """(key, value) in byte order of the keys, from the first key on that is not before ``start``."""

    def keys(self) -> Iterator[bytes]:
        """The keys alone, in byte order."""


class Lmdb:
    """An open LMDB, closed when the object is freed."""

    def __init__(self, path: str) -> None:
        self.file = LmdbFile(path)

    def once(self, start: bytes = b"") -> Iterator[Record]:
        return self.file.records(start)

    def keys(self) -> Iterator[bytes]:
        return (key for key, _ in self.file.records(values=False))


class LevelDb:
    """An open LevelDB, closed when the object is freed; no other process can open it meanwhile."""

    def __init__(self, path: str, name: str = "") -> None:
        try:
            import plyvel
        except ImportError:
            raise DataError(
                f"{path}: reading a LevelDB needs the package plyvel-ci (pip install plyvel-ci, for Python "
                "3.11 and 3.12); or convert it to LMDB and say backend: LMDB"
            ) from None
        if not _has_current(path):  # LevelDB would leave a lock and a log where there is none
            raise DataError(f"cannot open {path} as LevelDB: it has no file CURRENT{_lmdb_hint(path)}")
        try:
            self.database: Any = plyvel.DB(name or path, create_if_missing=False, paranoid_checks=True)
        except (plyvel.Error, OSError) as error:
            raise DataError(f"cannot open {path} as LevelDB: {_words(error)}") from None
        self.error: type[Exception] = plyvel.Error
        self.path, self.name = path, name

    def once(self, start: bytes = b"") -> Iterator[Record]:
        yield from self._iterate(start, values=True)

    def keys(self) -> Iterator[bytes]:
        yield from self._iterate(b"", values=False)

    def _iterate(self, start: bytes, *, values: bool) -> Iterator[Any]:
        wanted = {"start": start or None, "include_value": values, "verify_checksums": True}
        try:
            with self.database.iterator(**wanted) as records:
                yield from records
        except (self.error, OSError, RuntimeError) as error:  # the latter of one that has been closed
            self.database.close()  # that it can be opened again, by others too
            raise DataError(f"cannot read {self.path}: {_words(error)}") from None


_OPEN: WeakValueDictionary[tuple[str, int, int], LevelDb] = WeakValueDictionary()
"""LevelDBs by path, device and inode: a process can open one only once."""


def open_records(source: str, kind: type[Lmdb] | type[LevelDb]) -> Records:
    """The database at ``source``, as it is now.

    Raises DataError if there is none, or nothing in it.
    """
    records = Lmdb(source) if kind is Lmdb else _leveldb(source)
    if next(iter(records.once()), None) is None:
        raise DataError(f"the database {source} is empty")
    return records


def _leveldb(source: str) -> LevelDb:
    try:
        path = str(Path(source).resolve())
        found = Path(path).stat()
    except (OSError, ValueError):
        return LevelDb(source)  # which says what is wrong
    key = path, found.st_dev, found.st_ino
    records = _OPEN.get(key)
    if records is None:
        # LevelDB knows open ones by name: one that was at this path before, and is still open, has that name
        taken = {other.name for other in _OPEN.values()}
        name = next(name for name in (path + "/." * n for n in count()) if name not in taken)
        records = _OPEN[key] = LevelDb(path, name)
    return records


def forever(records: Records) -> Iterator[Record]:
    """The records from the first on, again and again."""
    while True:
        record = None
        for record in records.once():
            yield record
        if record is None:
            raise DataError("the database has become empty while it was read")


def _has_current(path: str) -> bool:
    try:
        return Path(path, "CURRENT").is_file()
    except ValueError:  # a zero in it: no path
        return False


def _lmdb_hint(path: str) -> str:
    try:
        is_lmdb = Path(path, "data.mdb").exists()
    except ValueError:
        return ""
    return "; it is an LMDB: say backend: LMDB (none given means LEVELDB)" if is_lmdb else ""


def _words(error: Exception) -> str:
    """LevelDB's own words, which plyvel hands on as bytes; of a database in use, with what to do."""
    words = error.args[0] if error.args else ""
    text = words.decode(errors="replace") if isinstance(words, bytes) else str(error)
    if "lock" in text:
        text += ": LevelDB lets one process read it at a time; an LMDB can be read by many"
    return text
