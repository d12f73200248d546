"""Records that arrive block by block, collected into a contiguous array for each column, none of it twice.

In memory while they fit into a budget, else in a file on the spill volume. The array in memory grows by
having the kernel enlarge its mapping, which moves page tables and not bytes, so that the number of records
need not be known beforehand. The file has no name from its making on: it is gone with the process that made
it, however that ends.

    collect(blocks, schema, MemoryLimit(memory_bytes=1 << 30, folder=Path("/mnt/spill")))  ->  Records
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from sparknet.data.records import Column, Records
from sparknet.errors import DataError, TrainingError

_FIRST_BYTES = 1 << 20
# A record's bytes in a column that always stays in memory.
_SMALL_BYTES = 8
_CGROUPS = (
    ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
    ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


@dataclass(frozen=True, kw_only=True)
class MemoryLimit:
    """Up to ``memory_bytes`` of a shard's columns stay in memory; more go to files in ``folder``."""

    memory_bytes: int
    folder: Path


def collect(
    blocks: Iterable[Mapping[str, NDArray[Any]]], schema: Mapping[str, Column], limit: MemoryLimit
) -> Records:
    """The records of all blocks, each of which has an array (k, ...) for every column of ``schema``.

    Columns of a few bytes a record, as labels are, always stay in memory; the others share what is allowed by
    their sizes. Raises DataError for records unlike those before them, TrainingError when the spill volume is
    full.
    """
    arrays: dict[str, GrowableArray] = {}
    try:
        for block in blocks:
            arrays = arrays or _arrays({name: Column.of(block[name]) for name in schema}, limit)
            for name, array in arrays.items():
                array.append(block[name])
        if not arrays:
            return Records.none(schema)
        spilled = sum(array.size for array in arrays.values() if array.spilled)
        return Records({name: array.array() for name, array in arrays.items()}, spilled)
    finally:
        for array in arrays.values():
            array.close()


def _arrays(schema: Mapping[str, Column], limit: MemoryLimit) -> dict[str, GrowableArray]:
    sizes = {name: column.empty(1).nbytes for name, column in schema.items()}
    total = sum(size for size in sizes.values() if size > _SMALL_BYTES)

    def limit_of(name: str) -> MemoryLimit:
        if sizes[name] <= _SMALL_BYTES:
            return MemoryLimit(memory_bytes=1 << 62, folder=limit.folder)
        return MemoryLimit(memory_bytes=limit.memory_bytes * sizes[name] // total, folder=limit.folder)

    return {
        name: GrowableArray(column.dtype, column.shape, limit=limit_of(name))
        for name, column in schema.items()
    }


class GrowableArray:
    """An array of ``dtype`` (n, *shape) that rows are appended to, until ``array`` is asked for."""

    def __init__(self, dtype: Any, shape: tuple[int, ...], *, limit: MemoryLimit) -> None:
        self.dtype, self.shape, self.limit = np.dtype(dtype), tuple(shape), limit
        self.size = 0
        self._memory: mmap.mmap | None = None
        self._file: IO[bytes] | None = None

    @property
    def spilled(self) -> bool:
        return self._file is not None

    def append(self, rows: NDArray[Any]) -> None:
        """Copy ``rows`` (k, *shape) to the end. Raises DataError if they are of another kind."""
        if rows.dtype != self.dtype or rows.shape[1:] != self.shape:
            raise DataError(
                f"records of {rows.dtype} {rows.shape[1:]} follow others of {self.dtype} {self.shape}"
            )
        if not rows.nbytes:
            return
        if not self.spilled and self.size + rows.nbytes > self.limit.memory_bytes:
            self._spill()
        data = np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
        if self._file:
            self._write(self._file, data)
        else:
            self._reserved(self.size + rows.nbytes)[self.size : self.size + rows.nbytes] = data
        self.size += rows.nbytes

    def array(self) -> NDArray[Any]:
        """All rows; writable, which never changes the file. Nothing is appended afterwards."""
        memory = self._mapped()
        if memory is None:
            return np.empty((0, *self.shape), self.dtype)
        return np.frombuffer(memory, self.dtype, self.size // self.dtype.itemsize).reshape(-1, *self.shape)

    def close(self) -> None:
        """Let go of the file; arrays that have been made of it live on."""
        if self._file:
            self._file.close()

    def _mapped(self) -> mmap.mmap | None:
        if self._file and self.size:
            return mmap.mmap(self._file.fileno(), self.size, access=mmap.ACCESS_COPY)
        if self._memory:
            self._memory.resize(self.size)
        return self._memory

    def _reserved(self, size: int) -> mmap.mmap:
        """Memory for ``size`` bytes at least; what has not been written to takes up none."""
        if self._memory is None:
            self._memory = _anonymous(max(size, _FIRST_BYTES))
        elif len(self._memory) < size:
            self._memory.resize(max(size, 2 * len(self._memory)))
        return self._memory

    def _spill(self) -> None:
        self._file = unnamed_file(self.limit.folder)
        if self._memory:
            with memoryview(self._memory) as view, view[: self.size] as used:
                self._write(self._file, used)
            self._memory.close()
            self._memory = None

    def _write(self, file: IO[bytes], data: memoryview) -> None:
        try:
            while data:  # the kernel takes 2 GiB at a time
                data = data[file.write(data) :]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            here, allowed = f"{self.size / 1e6:,.0f} MB", f"{self.limit.memory_bytes / 1e6:,.0f} MB"
            raise TrainingError(
                f"the spill volume of {socket.gethostname()} is full: no more than {here} of a shard found "
                f"room in {self.limit.folder}. Make room there, take a larger volume, or let more of a shard "
                f"than {allowed} stay in memory (memory_bytes, --shard-memory)"
            ) from error


def spill_folder() -> Path:
    """Of the folders that Spark spills to (SPARK_LOCAL_DIRS) the one with most room; else the system's."""
    named = [Path(name) for name in os.environ.get("SPARK_LOCAL_DIRS", "").split(",") if name]
    there = [folder for folder in named if folder.is_dir() and os.access(folder, os.W_OK)]
    return max(there, key=lambda folder: shutil.disk_usage(folder).free, default=Path(tempfile.gettempdir()))


def unnamed_file(folder: Path) -> IO[bytes]:
    """A new file in ``folder`` that no folder lists; the disk space is free again once nobody maps it."""
    return tempfile.TemporaryFile(dir=folder, prefix="sparknet-", buffering=0)


def _anonymous(size: int) -> mmap.mmap:
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def share_of_memory(tasks: int, root: Path = Path("/")) -> int:
    """Bytes that one of ``tasks`` equal processes may fill with records: half of its part of what is free.

    With ``spark.executor.pyspark.memory``, which Spark sets for each process, half of that at most.
    """
    limit = os.environ.get("PYSPARK_EXECUTOR_MEMORY_MB")
    shares = [available(root) // max(1, tasks), *([int(limit) << 20] if limit else [])]
    return min(shares) // 2


def available(root: Path = Path("/")) -> int:
    """Bytes that can be taken without swapping, by the kernel's estimate and the container's limit."""
    return min(_limits(root))


def _limits(root: Path) -> Iterator[int]:
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        yield next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):  # not Linux
        yield os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    for limit, usage in _CGROUPS:
        try:
            yield max(0, int((root / limit).read_text()) - int((root / usage).read_text()))
        except (OSError, ValueError):  # no such limit ("max"), or no such file
            continue
