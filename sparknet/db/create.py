"""Writes a source into a database, a batch at a time, and goes on where a run before it was killed.

source ──> in its own order, or shuffled by a seed ──> decode, resize, encode ──> batch ──> target
                                                                                   │
sparknet.json says what is being written, and that it is complete at the end  <────┘
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sparknet.db import one_file
from sparknet.db.key_value import LevelDbTarget, LmdbTarget
from sparknet.db.loose import FolderTarget
from sparknet.db.records import Making, Record, made
from sparknet.db.sharded import hdf5_target, parquet_target, tar_target
from sparknet.db.spool import spooled
from sparknet.db.target import Target, digits_of
from sparknet.errors import DataError, UsageError
from sparknet.sources import files, manifest
from sparknet.sources.manifest import Manifest
from sparknet.sources.pictures import NAMED, PictureSource, Sample, Samples
from sparknet.sources.source import Source

Format = Literal["lmdb", "leveldb", "hdf5", "tar", "parquet", "folder"]
FORMATS: tuple[Format, ...] = ("lmdb", "leveldb", "hdf5", "tar", "parquet", "folder")
SHARD_RECORDS = 1000

Progress = Callable[[int, int], None]
"""(records so far, records in all)"""


@dataclass(frozen=True, kw_only=True)
class Created:
    """What was written: ``records``, those ``left_out``, the first of which are ``named``; ``resumed_at``
    is the number that a run before this one had come to."""

    records: int
    left_out: int
    named: tuple[str, ...]
    resumed_at: int


def create(
    source: Source,
    target: str,
    format: Format,
    making: Making,
    *,
    shard_records: int = SHARD_RECORDS,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Created:
    """Write the pictures of ``source`` to ``target``, a path (LMDB, LevelDB, a file .h5) or a path or URL.

    What a killed run with the same settings left is gone on with; ``overwrite`` begins anew. Raises DataError
    for a target that holds something else, and UsageError for settings that cannot be.
    """
    samples = _samples(source)
    if format not in FORMATS:
        raise UsageError(f"format {format!r} is not one of {', '.join(FORMATS)}")
    if format in ("lmdb", "leveldb") and files.is_remote(target):
        raise UsageError(
            f"{target}: an {format.upper()} is written on a disk of this machine; tar can go there"
        )
    if format == "hdf5" and making.encoding in ("png", "jpeg"):
        raise UsageError("HDF5 holds pixels: encoding raw or keep")
    if format == "hdf5" and one_file.is_one_file(target):
        return _create_one_file(source, target, making, shard_records, overwrite, progress)
    if target.rstrip("/").lower().endswith((".h5", ".hdf5", ".tar", ".mdb")):
        raise UsageError(f"{target}: {format} goes into a folder, such as {_folder_for(target, format)}")
    told = _begun(source, target, format, making, shard_records, overwrite=overwrite)
    if told.is_complete:
        return Created(records=told.records, left_out=told.left_out, named=(), resumed_at=len(samples))
    told.write(target)
    opened = _target(target, format, making, len(samples), shard_records, source.classes)
    return _write(samples, opened, target, told, making, progress or _silent)


def _create_one_file(
    source: Source,
    target: str,
    making: Making,
    shard_records: int,
    overwrite: bool,
    progress: Progress | None,
) -> Created:
    settings = _settings(source, "hdf5", making, shard_records)
    told = one_file.written_before(target, settings, overwrite=overwrite)
    if told is not None:
        total = told.records + told.left_out
        return Created(records=told.records, left_out=told.left_out, named=(), resumed_at=total)
    options: Any = {"shard_records": shard_records, "overwrite": overwrite, "progress": progress}
    created = create(source, one_file.parts_of(target), "hdf5", making, **options)
    one_file.join(target)
    return created


def order_of(count: int, seed: int | None) -> NDArray[np.int64]:
    """The places of the source's records in the database, one after the other."""
    return np.arange(count) if seed is None else np.random.default_rng(seed).permutation(count)


def _write(
    samples: Samples, target: Target, url: str, told: Manifest, making: Making, progress: Progress
) -> Created:
    total = len(samples)
    start = min(target.begin(), total)
    order = order_of(total, making.seed)
    left_out, named = 0, []
    orders = set()
    try:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            numbered = enumerate(_in_order(samples, order, start), start=start)
            for first in _firsts(start, total, target.step):
                stop = min((first // target.step + 1) * target.step, total)
                batch = list(islice(numbered, stop - first))
                good = []
                for outcome in pool.map(lambda pair: _tried(pair[1], pair[0], making), batch):
                    if isinstance(outcome, Record):
                        good.append(outcome)
                    else:
                        left_out += 1
                        named += [str(outcome)] if left_out <= NAMED else []
                if good:
                    orders.add(None if isinstance(good[0].image, bytes) else good[0].order)
                target.put(first, good)
                progress(stop, total)
        records = target.count()
    finally:
        target.close()
    order_told = orders.pop() if len(orders) == 1 else None if orders else told.order
    done = replace(
        told,
        records=records,
        shards=target.shards(),
        left_out=total - records,
        order=order_told,
        is_complete=True,
    )
    if not records:
        raise DataError(f"not one of the {total:,} pictures can be decoded: {named[0] if named else url}")
    done.write(url)
    return Created(records=records, left_out=total - records, named=tuple(named), resumed_at=start)


def _tried(sample: Sample, number: int, making: Making) -> Record | DataError:
    try:
        return made(sample, number, making)
    except DataError as error:
        return error


def _firsts(start: int, total: int, step: int) -> Iterator[int]:
    """The first number of each batch that is missing; the first batch may be the rest of one."""
    first = start
    while first < total:
        yield first
        first = (first // step + 1) * step


def _in_order(samples: Samples, order: NDArray[np.int64], start: int) -> Iterator[Sample]:
    """The samples in ``order``, from number ``start`` on: neighbours are read together."""
    if np.array_equal(order, np.arange(len(order))):
        yield from samples.part(slice(start, len(order)))
        return
    if samples.is_sequential:
        yield from spooled(samples, order[start:])
        return
    for place in order[start:].tolist():
        yield from samples.part(slice(place, place + 1))


def _samples(source: Source) -> Samples:
    if not isinstance(source, PictureSource):
        raise DataError(f"{source.name}: these are no labelled pictures, which a database is made of")
    return source.samples


def _begun(
    source: Source, target: str, format: Format, making: Making, shard_records: int, *, overwrite: bool
) -> Manifest:
    """What is to be written, or what was begun to be. Raises DataError for a target that holds other
    things."""
    settings = _settings(source, format, making, shard_records)
    wanted = Manifest(
        classes=source.classes,
        settings=settings,
        is_complete=False,
        order=making.order if making.encoding == "raw" else None,
    )
    if not files.exists(target):
        return wanted
    if overwrite:
        _clear(target)
        return wanted
    there = manifest.read(target)
    if there is None:
        if files.kind_of(target) == "folder" and not files.listing(target):
            return wanted
        raise DataError(f"{target} is there already: choose another place, or overwrite it")
    if not there.is_complete and not files.listing(target)[1:]:
        return wanted  # begun, and nothing was written
    if dict(there.settings) != settings:
        names = [name for name in settings if there.settings.get(name) != settings[name]]
        raise DataError(
            f"{target} was begun with another {' and '.join(names)}: choose another place, or overwrite it"
        )
    return there


def _settings(source: Source, format: Format, making: Making, shard_records: int) -> dict[str, Any]:
    """What records were made from, and how: another run goes on with them only if it wants the same."""
    sharded = {"shard_records": shard_records} if format in ("tar", "hdf5", "parquet") else {}
    return {"source": source.name, "format": format, **making.settings, **sharded}


def _folder_for(target: str, format: Format) -> str:
    return f"{target.rstrip('/').rpartition('.')[0]}_{format}"


def _clear(target: str) -> None:
    if files.is_remote(target):
        files.remove([file.url for file in files.listing(target)])
        files.remove([files.joined(target, manifest.NAME)])
        return
    path = files.local_copy(target)
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _target(
    url: str, format: Format, making: Making, total: int, shard_records: int, classes: Sequence[str] | None
) -> Target:
    digits = digits_of(total)
    if format == "lmdb":
        return LmdbTarget(Path(files.local_copy(url)), digits)
    if format == "leveldb":
        return LevelDbTarget(Path(files.local_copy(url)), digits)
    if format == "hdf5":
        return hdf5_target(url, digits, shard_records, making.order)
    if format == "tar":
        return tar_target(url, digits, shard_records)
    if format == "parquet":
        return parquet_target(url, digits, shard_records)
    return FolderTarget(url, digits, classes)


def _silent(_done: int, _total: int) -> None:
    """Tell nobody."""
