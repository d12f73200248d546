"""Folders that appear whole or not at all, on this machine's disk or on any storage fsspec knows.

    a disk     .round-40.partial/: write, fsync each file ──> fsync the folder ──> rename ──> fsync its parent
    s3://      objects, each whole once it is there; the last one written says that the others are

S3 is reached through pyarrow, with the credentials, region and endpoint of AWS's own environment variables
and files; everything else through the packages that fsspec names.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import fsspec

from sparknet.errors import UsageError

Contents = Iterable[tuple[str, bytes]]
"""Names and bytes of files; the last one is there only if all the others are."""

_PARTIAL = ".partial"


class Storage(Protocol):
    """Named folders of files in one place; what it cannot do it says with an OSError."""

    def names(self, pattern: str) -> list[str]:
        """The folders whose name matches and that were completed, in the order of their names."""
        ...

    def read(self, name: str, file: str) -> bytes: ...

    def publish(self, name: str, contents: Contents) -> None:
        """Make the folder ``name``, or put it in the place of the one that is there."""
        ...

    def remove(self, name: str) -> None: ...


def storage(url: str, *, last: str, **options: Any) -> Storage:
    """The storage at ``url``, a path or an fsspec URL; ``options`` are for its file system.

    ``last`` is the file that is written last in every folder, and removed first. Raises UsageError for a URL
    that nothing here can open.
    """
    files, root = file_system(url, **options)
    return Disk(Path(root), last) if "file" in files.protocol else Remote(files, root, last)


def file_system(url: str, **options: Any) -> tuple[Any, str]:
    """fsspec's file system for ``url``, and the path there. Raises UsageError if nothing here can open it."""
    try:
        if url.startswith(("s3://", "s3a://")) and not options:
            return _s3(url)
        files, root = fsspec.core.url_to_fs(url, **options)
    except (ImportError, ValueError, OSError) as error:
        raise UsageError(f"{url} cannot be used: {error}") from error
    return files, str(root)


class Disk:
    """Folders below ``root`` on a file system of this machine, or mounted on it."""

    def __init__(self, root: Path, last: str) -> None:
        self._root, self._last = root, last

    def names(self, pattern: str) -> list[str]:
        return sorted(file.parent.name for file in self._root.glob(f"{pattern}/{self._last}"))

    def read(self, name: str, file: str) -> bytes:
        return (self._root / name / file).read_bytes()

    def publish(self, name: str, contents: Contents) -> None:
        partial = self._root / f".{name}{_PARTIAL}"
        self._root.mkdir(parents=True, exist_ok=True)
        self._clear()
        partial.mkdir()
        for file, data in contents:
            _write(partial / file, data)
        _sync(partial)
        self.remove(name)
        partial.rename(self._root / name)
        _sync(self._root)

    def remove(self, name: str) -> None:
        """In one step: what a kill leaves of it has another name."""
        if (self._root / name).exists():
            gone = (self._root / name).rename(self._root / f".{name}.removed{_PARTIAL}")
            shutil.rmtree(gone)

    def _clear(self) -> None:
        """Remove what a process that was killed left half done."""
        for left in self._root.glob(f".*{_PARTIAL}"):
            shutil.rmtree(left)


class Remote:
    """Prefixes below ``root`` in a store that puts each object in one piece."""

    def __init__(self, files: Any, root: str, last: str) -> None:
        self._files, self._root, self._last = files, root.rstrip("/"), last

    def names(self, pattern: str) -> list[str]:
        self._files.invalidate_cache()
        found = self._files.glob(f"{self._root}/{pattern}/{self._last}")
        return sorted(str(path).split("/")[-2] for path in found)

    def read(self, name: str, file: str) -> bytes:
        data: bytes = self._files.cat_file(f"{self._root}/{name}/{file}")
        return data

    def publish(self, name: str, contents: Contents) -> None:
        self.remove(name)
        for file, data in contents:
            self._files.pipe_file(f"{self._root}/{name}/{file}", data)

    def remove(self, name: str) -> None:
        """The file that was written last goes first, so that what is left of a removal is not whole."""
        folder = f"{self._root}/{name}"
        self._files.invalidate_cache()
        if self._files.exists(folder):
            paths = [str(path) for path in self._files.find(folder)]
            for path in sorted(paths, key=lambda path: not path.endswith(f"/{self._last}")):
                self._files.rm_file(path)


def _s3(url: str) -> tuple[Any, str]:
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import FileSystem

    files, root = FileSystem.from_uri(url.replace("s3a://", "s3://", 1))
    return ArrowFSWrapper(files), root


def _write(file: Path, data: bytes) -> None:
    with file.open("xb") as opened:
        opened.write(data)
        opened.flush()
        os.fsync(opened.fileno())


def _sync(folder: Path) -> None:
    """Put the folder's own entries on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
