"""Fetching a data set from where its authors put it: checked, resumable, and all or nothing.

A file grows as ``NAME.part`` and takes its name only when its checksum is right; a ``.part`` left behind by a
broken connection or a killed process is continued, not begun again. Nothing is printed: ``progress`` is
called with how far the file is.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO

from sparknet.data import cifar10, mnist
from sparknet.data.archives import DAMAGED, TooLargeError
from sparknet.errors import DataError

Progress = Callable[[str, int, int], None]
"""(file name, bytes so far, bytes in all)"""

ATTEMPTS = 3
SILENCE_SECONDS = 20.0
DEADLINE_SECONDS = 1800.0
LARGEST_MEMBER = 1 << 30  # bytes; CIFAR-10's have 31 MB
BLOCK_BYTES = 1 << 18


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A file at an address: its size in bytes and its MD5 as published by its authors."""

    url: str
    md5: str
    size: int

    @property
    def name(self) -> str:
        return PurePosixPath(self.url).name


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How long to wait and how often to try again.

    ``silence_seconds`` without a byte break a connection; ``deadline_seconds`` bound the whole file.
    """

    attempts: int = ATTEMPTS
    silence_seconds: float = SILENCE_SECONDS
    deadline_seconds: float = DEADLINE_SECONDS
    pause_seconds: float = 1.0


# https://www.cs.toronto.edu/~kriz/cifar.html
CIFAR10 = Remote(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    size=170_052_171,
)
# the copy that torchvision uses; yann.lecun.com no longer serves the files
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
MNIST = (
    Remote(url=f"{_MNIST}/{mnist.TRAIN_IMAGES}.gz", md5="f68b3c2dcbeaaa9fbdd348bbdeb94873", size=9_912_422),
    Remote(url=f"{_MNIST}/{mnist.TRAIN_LABELS}.gz", md5="d53e105ee54ea40749a09fcbcd1e9432", size=28_881),
    Remote(url=f"{_MNIST}/{mnist.TEST_IMAGES}.gz", md5="9fb629c4189551a2d022fa330f9573f3", size=1_648_877),
    Remote(url=f"{_MNIST}/{mnist.TEST_LABELS}.gz", md5="ec29112dd5afa0611ce80d1b7f02629c", size=4_542),
)


def fetch_cifar10(
    folder: Path,
    *,
    progress: Progress | None = None,
    retry: RetryPolicy | None = None,
    source: Remote = CIFAR10,
) -> Path:
    """Download CIFAR-10 into ``folder``; returns the folder of its batches. Raises DataError."""
    archive = fetch(source, folder, progress=progress, retry=retry)
    names = [*(f"{name}.bin" for name in (*cifar10.BATCHES, cifar10.TEST_BATCH)), "batches.meta.txt"]
    target = unpack(archive, folder / cifar10.BINARY_FOLDER, names)
    archive.unlink()
    return target


def fetch_mnist(
    folder: Path,
    *,
    progress: Progress | None = None,
    retry: RetryPolicy | None = None,
    sources: Iterable[Remote] = MNIST,
) -> Path:
    """Download MNIST's four files into ``folder`` and return it. Raises DataError."""
    for source in sources:
        fetch(source, folder, progress=progress, retry=retry)
    return folder


def fetch(
    source: Remote, folder: Path, *, progress: Progress | None = None, retry: RetryPolicy | None = None
) -> Path:
    """Download one file into ``folder``, going on where an earlier try stopped; returns its path.

    A file that is there already and has the right checksum is left alone. Raises DataError, which says what
    to do, when the server cannot be reached, refuses, stalls, or sends something else.
    """
    retry = retry or RetryPolicy()
    target = folder / source.name
    with _in(folder), _alone(target, retry):
        if not (target.is_file() and _md5(target) == source.md5):
            _complete(source, _part(target), progress or _silent, retry)
            _check(source, _part(target))
            _part(target).replace(target)
    return target


def unpack(archive: Path, target: Path, names: Iterable[str]) -> Path:
    """Take the files called ``names`` out of a tar archive into the folder ``target``: all of them or none.

    A path inside the archive decides nothing: a member counts by its last part, and only if it is a plain
    file. Raises DataError if one is missing or the archive is damaged.
    """
    wanted = set(names)
    with TemporaryDirectory(dir=archive.parent, prefix=".unpack-") as scratch:
        try:
            with tarfile.open(archive) as tar:
                missing = wanted - _take(tar, wanted, Path(scratch))
        except DAMAGED as error:
            raise DataError(f"{archive} cannot be unpacked ({error}): delete it and try again") from error
        if missing:
            raise DataError(
                f"{archive} lacks {', '.join(sorted(missing))}: it is not the archive it should be"
            )
        target.mkdir(exist_ok=True)
        for name in wanted:
            (Path(scratch) / name).replace(target / name)
    return target


def _take(tar: tarfile.TarFile, wanted: set[str], scratch: Path) -> set[str]:
    taken = set()
    for member in tar:
        name = PurePosixPath(member.name).name
        content = tar.extractfile(member) if member.isreg() and name in wanted else None
        if content is not None:
            if member.size > LARGEST_MEMBER:
                raise TooLargeError(f"{member.name} would be {member.size:,} bytes")
            with (scratch / name).open("wb") as file:
                _copy(content, file)
            taken.add(name)
    return taken


def _complete(source: Remote, part: Path, progress: Progress, retry: RetryPolicy) -> None:
    """Bring ``part`` to its full size; every try that brought something earns another."""
    deadline = time.monotonic() + retry.deadline_seconds
    failures = 0
    while (have := _size(part)) < source.size:
        try:
            _receive(source, part, progress, retry, deadline)
            problem = f"the connection ended after {_size(part):,} of {source.size:,} bytes"
        except urllib.error.HTTPError as error:
            error.close()  # it holds the connection
            problem = f"the server says {error.code} {error.reason}"
            _give_up_if_final(source, part, error)
        except (OSError, http.client.HTTPException) as error:
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        failures = 0 if _size(part) > have else failures + 1
        if failures >= retry.attempts:
            raise DataError(_advice(source, f"{problem}, {failures} times"))
        if time.monotonic() > deadline:
            raise DataError(_advice(source, f"{problem}, and {retry.deadline_seconds:g} s are over"))
        if _size(part) < source.size:
            time.sleep(retry.pause_seconds)


def _give_up_if_final(source: Remote, part: Path, error: urllib.error.HTTPError) -> None:
    """Raise DataError unless asking again may help, as it may where the server is busy."""
    if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        # there is no more to be had, so what is here belongs to another, shorter file
        part.unlink(missing_ok=True)
    if error.code < 500 and error.code != http.HTTPStatus.TOO_MANY_REQUESTS:
        raise DataError(_advice(source, f"the server says {error.code} {error.reason}")) from error


def _receive(source: Remote, part: Path, progress: Progress, retry: RetryPolicy, deadline: float) -> None:
    have = _size(part)
    request = urllib.request.Request(source.url, headers={"Range": f"bytes={have}-"} if have else {})
    with (
        urllib.request.urlopen(request, timeout=retry.silence_seconds) as answer,
        # 200 to a request for a range: this server cannot resume, and sends the whole file
        part.open("ab" if answer.status == http.HTTPStatus.PARTIAL_CONTENT else "wb") as file,
    ):
        while block := answer.read1(BLOCK_BYTES):
            file.write(block)
            progress(source.name, file.tell(), source.size)
            if time.monotonic() > deadline or file.tell() > source.size:
                return


def _check(source: Remote, part: Path) -> None:
    """Raise DataError, and forget ``part``, unless it is the file that the authors published."""
    found = _md5(part)
    if found != source.md5:
        size = _size(part)
        part.unlink()
        raise DataError(
            _advice(
                source, f"what came ({size:,} bytes, MD5 {found}) is not what was published ({source.md5})"
            )
        )


def _advice(source: Remote, problem: str) -> str:
    return (
        f"{source.url} could not be downloaded: {problem}. Check the network and try again, or fetch it "
        "elsewhere and give its folder with --data DIR, or use --data synthetic"
    )


@contextmanager
def _in(folder: Path) -> Iterator[None]:
    """Make ``folder``, and say so plainly when files cannot be kept there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise DataError(f"{folder} cannot keep a download ({error.strerror}): set SPARKNET_DATA") from error


def _alone(target: Path, retry: RetryPolicy) -> AbstractContextManager[None]:
    """Keep other processes from writing the same file; waits for them until the deadline."""
    lock = target.with_name(f".{target.name}.lock")
    busy = f"another process has long been downloading {target}: end it first"
    return locked(lock, deadline_seconds=retry.deadline_seconds, busy=busy)


@contextmanager
def locked(file: Path, *, deadline_seconds: float, busy: str) -> Iterator[None]:
    """Keep other processes of this machine from the same: ``file`` is locked as long as this lasts.

    Raises DataError saying ``busy`` if it cannot be had until the deadline.
    """
    with file.open("w") as lock:
        deadline = time.monotonic() + deadline_seconds
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                raise DataError(busy)
            time.sleep(0.2)
        yield


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _copy(source: IO[bytes], target: IO[bytes]) -> None:
    while block := source.read(BLOCK_BYTES):
        target.write(block)


def _md5(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _silent(name: str, done: int, size: int) -> None:
    """Tell nobody."""
