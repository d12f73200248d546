"""Shards left on a machine's spill volume by a worker that yields its slot, for the next worker there to
take.

A shard is a folder, with a file for each column, under a name that all workers of the job on this executor
know. Whoever takes it maps the files and removes them at once: from then on they last as long as the process.
What nobody takes goes when the job ends, and with the executor's own folder at the latest.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparknet.data.dataset import Shard
from sparknet.data.growable import spill_folder
from sparknet.data.records import Records

# What is smaller is read at once: an empty file cannot be mapped.
_MAPPED_BYTES = 1 << 16


class Handoff:
    """The shards that workers of ``job`` have put into the folders of this executor."""

    def __init__(self, job: str) -> None:
        self._name = f"sparknet-{job}"

    @property
    def place(self) -> str:
        """The same for all workers that can take from here."""
        return f"{socket.gethostname()}:{_folders()[0]}"

    def put(self, number: int, shard: Shard) -> None:
        """Raises OSError when the volume is full."""
        with tempfile.TemporaryDirectory(dir=spill_folder(), prefix="sparknet-handoff-") as making:
            for place, (name, array) in enumerate(shard.columns.items()):
                np.save(Path(making) / f"{place:04d}-{name.encode().hex()}.npy", array)
            target = spill_folder() / self._name / str(number)
            target.parent.mkdir(exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            Path(making).rename(target)
            Path(making).mkdir()  # for the context, which removes it

    def discard(self, number: int) -> None:
        """Remove what was put here, if anything."""
        for folder in _folders():
            shutil.rmtree(folder / self._name / str(number), ignore_errors=True)

    def take(self, number: int) -> Records | None:
        """The shard, which is removed from here; None if it is not here."""
        for folder in _folders():
            source = folder / self._name / str(number)
            claimed = folder / self._name / f"{number}-{os.getpid()}"
            try:
                source.rename(claimed)  # one of several that try it succeeds
            except OSError:
                continue
            try:
                files = sorted(claimed.iterdir())
                mapped = sum(file.stat().st_size for file in files if _is_mapped(file))
                return Records(dict(map(_column, files)), mapped)
            finally:
                shutil.rmtree(claimed, ignore_errors=True)
        return None

    def clear(self) -> None:
        """Remove what nobody has taken: the job is over."""
        for folder in _folders():
            with suppress(OSError):
                shutil.rmtree(folder / self._name)


def _column(file: Path) -> tuple[str, NDArray[Any]]:
    """A column's name and its array, mapped."""
    name = bytes.fromhex(file.stem.partition("-")[2]).decode()
    return name, np.asarray(np.load(file, mmap_mode="c" if _is_mapped(file) else None))


def _is_mapped(file: Path) -> bool:
    return file.stat().st_size > _MAPPED_BYTES


def _folders() -> list[Path]:
    """All folders that Spark spills to, or the system's, the first of which names the place."""
    named = [Path(name) for name in os.environ.get("SPARK_LOCAL_DIRS", "").split(",") if name]
    return [folder for folder in named if folder.is_dir()] or [spill_folder()]
