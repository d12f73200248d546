"""Tar shards in WebDataset's layout: the files of a record lie one after the other and share a name.

    shard-000000.tar    n01440764_18.jpg  n01440764_18.cls     the picture, and its class in digits
                        n01440764_36.jpg  n01440764_36.cls     .json with "label" will do, .npy holds an array

Source: https://github.com/webdataset/webdataset. A shard is read from front to back, wherever it lies.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import ClassVar, Literal

import numpy as np

from sparknet.data.decoding import Order
from sparknet.errors import DataError
from sparknet.sources import files, manifest
from sparknet.sources.files import File, is_remote
from sparknet.sources.folder import EXTENSIONS
from sparknet.sources.pictures import Raw, Sample

ENDING = ".tar"
ARRAY = ".npy"
_IMAGES = (*EXTENSIONS, ARRAY)


@dataclass(frozen=True)
class Shard:
    """A tar file; ``records`` is how many it should have, where that was told."""

    url: str
    size: int
    records: int | None = None


@dataclass(frozen=True)
class Span:
    """Records ``start`` to ``stop`` of a shard, to its end if ``stop`` is None."""

    shard: Shard
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True)
class TarPart:
    """Neighbouring records of one or more shards."""

    spans: tuple[Span, ...]
    order: Order | None

    def __iter__(self) -> Iterator[Sample]:
        for span in self.spans:
            yield from _samples(span, self.order)


@dataclass(frozen=True, eq=False)
class TarSamples:
    """All records of some shards."""

    is_sequential: ClassVar[bool] = True

    shards: tuple[Shard, ...]
    order: Order | None = None

    def __len__(self) -> int:
        return self._ends[-1]

    def part(self, which: slice) -> TarPart:
        first, last = which.start, which.stop
        spans = []
        for shard, begin, end in zip(self.shards, (0, *self._ends), self._ends, strict=False):
            if begin < last and first < end:
                stop = last - begin if last < end else None
                spans.append(Span(shard, max(first - begin, 0), stop))
        return TarPart(tuple(spans), self.order)

    @cached_property
    def _ends(self) -> list[int]:
        """The number of records up to the end of each shard; those that nobody told are counted."""
        return list(accumulate(count(s) if s.records is None else s.records for s in self.shards))


def shards_of(found: Sequence[File], told: Mapping[str, int] | None = None) -> tuple[Shard, ...]:
    """The tar files among ``found``. Raises DataError if one that was told of is not there."""
    shards = {file.name: file for file in found if file.url.lower().endswith(ENDING)}
    missing = sorted(set(told or ()) - shards.keys())
    if missing:
        raise DataError(f"{missing[0]} is missing, which {manifest.NAME} names among its shards")
    return tuple(Shard(file.url, file.size, (told or {}).get(file.name)) for file in shards.values())


def members(shard: Shard, *, contents: bool = True) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, {extension: content}) of each record of a shard, without contents if they are not wanted.

    Raises DataError if the shard is cut short, or no tar.
    """
    # seeking costs a request where the file lies elsewhere
    is_stream = is_remote(shard.url)
    mode: Literal["r|", "r:"] = "r|" if is_stream else "r:"
    with files.opened(shard.url, is_stream=is_stream) as content:
        try:
            with tarfile.open(fileobj=content, mode=mode) as archive:
                yield from _grouped(archive, contents=contents)
                _check_end(archive, shard)
        except (tarfile.TarError, EOFError) as error:
            raise DataError(f"{shard.url} is cut short, or no tar archive: {error}") from None


def _grouped(archive: tarfile.TarFile, *, contents: bool) -> Iterator[tuple[str, dict[str, bytes]]]:
    key, found = "", dict[str, bytes]()
    for member in archive:
        archive.members.clear()  # type: ignore[attr-defined]  # or it would keep them all
        if not member.isfile():
            continue
        folder, slash, name = member.name.rpartition("/")
        stem, _, ending = name.partition(".")
        if folder + slash + stem != key:
            if found:
                yield key, found
            key, found = folder + slash + stem, {}
        file = archive.extractfile(member) if contents else None
        found[f".{ending.lower()}"] = file.read() if file else b""
    if found:
        yield key, found


def _check_end(archive: tarfile.TarFile, shard: Shard) -> None:
    """An archive ends with empty blocks: one that was cut between two files has none."""
    if shard.size and archive.offset + tarfile.BLOCKSIZE > shard.size:
        raise DataError(
            f"{shard.url} is cut short: it ends after {shard.size:,} bytes without the mark of an end"
        )


def _samples(span: Span, order: Order | None) -> Iterator[Sample]:
    seen = 0
    for key, record in members(span.shard):
        ending = next((ending for ending in record if ending.endswith(_IMAGES)), None)
        if ending is None:
            continue
        if seen >= span.start:
            name = f"{span.shard.url} {key}{ending}"
            yield Sample(name, key, _image(record[ending], ending, name), _label(record, name), order)
        seen += 1
        if span.stop is not None and seen >= span.stop:
            return
    told = span.shard.records
    if told is not None and seen != told:
        raise DataError(f"{span.shard.url} has {seen:,} records where {manifest.NAME} tells of {told:,}")


def _image(content: bytes, ending: str, name: str) -> bytes | Raw:
    if not ending.endswith(ARRAY):
        return content
    try:
        array: Raw = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{name} is no array of numpy's: {error}") from None
    if array.ndim != 3 or array.dtype not in (np.uint8, np.float32):
        raise DataError(f"{name} is {array.dtype} {array.shape}, not uint8 or float32 (c, h, w)")
    return array


def _label(record: Mapping[str, bytes], name: str) -> int | None:
    try:
        if ".cls" in record:
            return int(record[".cls"])
        if ".json" in record:
            said = json.loads(record[".json"])
            return next((int(said[field]) for field in ("label", "cls") if field in said), None)
    except (ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{name}: its label is no whole number: {error}") from None
    return None


def count(shard: Shard) -> int:
    return sum(any(e.endswith(_IMAGES) for e in found) for _, found in members(shard, contents=False))
