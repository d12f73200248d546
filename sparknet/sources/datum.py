"""LMDB and LevelDB of Caffe's Datum records, in the order of their keys.

Raw pixels are as they were stored: blue first where Caffe's convert_imageset wrote them, and so taken if
``sparknet.json`` beside the database says it; encoded ones are decoded as pictures of any other source are.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import ClassVar

from sparknet.caffe.files.datum import parsed, raw_pixels
from sparknet.caffe.layers.records import LevelDb, Lmdb, Records, open_records
from sparknet.data.decoding import Order
from sparknet.sources import files
from sparknet.sources.files import File, FileState
from sparknet.sources.pictures import Sample

Database = type[Lmdb] | type[LevelDb]


def kind_at(url: str) -> Database | None:
    """Which database is in the folder (or, an LMDB, the file) ``url``, by the names of its files."""
    if url.endswith((".mdb", ".lmdb")) and files.kind_of(url) == "file":
        return Lmdb
    return kind_among(files.listing(url), url)


def kind_among(found: Sequence[File], folder: str) -> Database | None:
    """Which database the files of ``folder`` are; those in folders below it do not count."""
    urls = {file.url for file in found}
    if files.joined(folder, "data.mdb") in urls:
        return Lmdb
    return LevelDb if files.joined(folder, "CURRENT") in urls else None


@dataclass(frozen=True)
class DatumPart:
    """``count`` records from the key ``first`` on."""

    url: str
    kind: Database
    first: bytes
    count: int
    order: Order | None

    def __iter__(self) -> Iterator[Sample]:
        records = _records(self.url, self.kind)
        for key, value in islice(records.once(self.first), self.count):
            yield _sample(key, value, self.url, self.order)


@dataclass(frozen=True, eq=False)
class DatumSamples:
    """All records of a database."""

    is_sequential: ClassVar[bool] = False

    url: str
    kind: Database
    order: Order | None = None

    def __len__(self) -> int:
        return len(self._keys)

    def part(self, which: slice) -> DatumPart:
        first = self._keys[which.start] if which.start < len(self) else b""
        return DatumPart(self.url, self.kind, first, which.stop - which.start, self.order)

    @cached_property
    def _keys(self) -> list[bytes]:
        return list(_records(self.url, self.kind).keys())


def _records(url: str, kind: Database) -> Records:
    path = files.local_copy(url)
    if kind is LevelDb and (path / "CURRENT").is_file():  # of one that has none, whoever opens it will say so
        path = _linked(path, frozenset(files.state_of(file) for file in path.iterdir()))
    return open_records(str(path), kind)


@lru_cache(maxsize=16)
def _linked(path: Path, _states: frozenset[FileState]) -> Path:
    """A folder of this process with the files of a LevelDB in it: opening one locks it, and writes to it.

    Its tables, which never change, are linked, the few others copied.
    """
    folder = Path(tempfile.mkdtemp(prefix="sparknet-leveldb-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for file in path.iterdir():
        if file.suffix in (".ldb", ".sst"):
            (folder / file.name).symlink_to(file.resolve())
        elif file.is_file() and file.name != "LOCK":
            shutil.copy(file, folder)
    return folder


def _sample(key: bytes, value: bytes, url: str, order: Order | None) -> Sample:
    word = key.decode(errors="backslashreplace")
    name = f"{url} record {word}"
    datum = parsed(value, name)
    if datum.encoded:
        return Sample(name, word, datum.data, datum.label)
    return Sample(name, word, raw_pixels(datum, name), datum.label, order)
