"""Folders that appear whole or not at all, on this machine's disk or on any storage fsspec knows.

    a disk     .round-40.partial/: write, fsync each file ──> fsync the folder ──> rename ──> fsync its parent
    s3://      objects, each whole once it is there; the last one written says that the others are

S3 is reached through pyarrow, with the credentials, region and endpoint of AWS's own environment variables
and files; everything else through the packages that fsspec names. A request to S3 that is not answered is
given up (``_REQUEST_SECONDS``, ``_ATTEMPTS`` times); ``within`` ends the waiting for anything else.
"""

from __future__ import annotations

import fnmatch
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import fsspec

from sparknet.errors import UsageError

Contents = Iterable[tuple[str, bytes]]
"""Names and bytes of files; the last one is there only if all the others are."""

_PARTIAL = ".partial"

# A request to S3 is given up after so long without a byte, and tried so many times. What is done after that
# is the caller's to decide: pyarrow's own default goes on for minutes, and says nothing.
_REQUEST_SECONDS, _ATTEMPTS = 10.0, 3

Result = TypeVar("Result")


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
        found = [_last_part(path) for path in self._entries(self._root)]
        return [name for name in sorted(fnmatch.filter(found, pattern)) if self._is_whole(name)]

    def read(self, name: str, file: str) -> bytes:
        data: bytes = self._files.cat_file(f"{self._root}/{name}/{file}")
        return data

    def publish(self, name: str, contents: Contents) -> None:
        self.remove(name)
        for file, data in contents:
            self._files.pipe_file(f"{self._root}/{name}/{file}", data)

    def remove(self, name: str) -> None:
        """The file that was written last goes first, so that what is left of a removal is not whole."""
        paths = self._entries(f"{self._root}/{name}")
        for path in sorted(paths, key=lambda path: _last_part(path) != self._last):
            self._files.rm_file(path)

    def _is_whole(self, name: str) -> bool:
        return self._last in map(_last_part, self._entries(f"{self._root}/{name}"))

    def _entries(self, folder: str) -> list[str]:
        """The paths in a folder; none if it is not there.

        Not ``glob``, ``find`` or ``exists``: to them a store that does not answer is an empty one.
        """
        self._files.invalidate_cache()
        try:
            paths = [str(path).rstrip("/") for path in self._files.ls(folder, detail=False)]
        except FileNotFoundError:
            return []
        return [path for path in paths if path.lstrip("/") != folder.strip("/")]


def within(seconds: float, action: Callable[[], Result], what: str) -> Result:
    """What ``action`` returns, or raises. Raises TimeoutError if that takes longer than ``seconds``: it is
    then left to itself, for nothing can stop it."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def act() -> None:
        try:
            results.append(action())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            errors.append(error)

    acting = threading.Thread(target=act, name="sparknet-storage", daemon=True)
    acting.start()
    acting.join(seconds)
    if acting.is_alive():
        raise TimeoutError(f"{what} did not end within {seconds:g} s")
    if errors:
        raise errors[0]
    return results[0]


def _last_part(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _s3(url: str) -> tuple[Any, str]:
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import AwsStandardS3RetryStrategy, FileSystem, S3FileSystem

    found, root = FileSystem.from_uri(url.replace("s3a://", "s3://", 1))
    _, (settings,) = found.__reduce__()  # what it has made of the URL and of AWS's settings
    settings |= {"request_timeout": _REQUEST_SECONDS, "connect_timeout": _REQUEST_SECONDS}
    files = S3FileSystem(**settings, retry_strategy=AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS))
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
