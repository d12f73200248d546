"""Files on this machine, in S3, and wherever else fsspec reaches, by their URLs.

    s3://bucket/key     pyarrow, with the credentials, region and endpoint of AWS's own environment and files
    http(s)://          single files only: there is nothing that lists a folder
    hdfs://             pyarrow, which needs Hadoop's native library
    a path              this machine

What goes wrong is one sentence, a DataError, that begins with the URL.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from sparknet.data.download import locked
from sparknet.data.locate import cache_folder
from sparknet.errors import DataError, UsageError
from sparknet.storage import file_system

AHEAD_BYTES = 4 << 20
"""How much is asked for at once of a file that is read from front to back."""

COPY_DEADLINE_SECONDS = 3600.0
# What file systems of fsspec, pyarrow's among them, call when a file was written, or the digest of its bytes.
_WRITTEN = ("ETag", "mtime", "LastModified", "Last-Modified")
_REMOTE = re.compile(r"^[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


@dataclass(frozen=True, order=True)
class File:
    """A file's URL, its size in bytes, and what its store says of when it was written, or of which bytes."""

    url: str
    size: int
    written: str = ""

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


def is_remote(url: str) -> bool:
    return bool(_REMOTE.match(url)) and not url.startswith("file://")


def joined(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


def has_braces(url: str) -> bool:
    """Whether it stands for numbered files, as in ``shard-{000..012}.tar``."""
    return bool(_BRACES.search(url))


def expanded(url: str) -> list[str]:
    """The URLs that ``shard-{000..012}.tar`` stands for, as WebDataset writes it; else the one.

    >>> expanded("a/{08..10}.tar")
    ['a/08.tar', 'a/09.tar', 'a/10.tar']
    """
    found = _BRACES.search(url)
    if found is None:
        return [url]
    first, last = found.groups()
    numbers = (f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1))
    return [one for number in numbers for one in expanded(url[: found.start()] + number + url[found.end() :])]


def kind_of(url: str) -> str:
    """ "file" or "folder". Raises DataError if there is neither."""
    if is_http(url) and url.endswith("/"):
        return "folder"
    found = _type(url)
    if found is None and _is_s3(url):
        with reading(url):  # a bucket that is not there says so only when it is listed
            files, path = _files(url)
            files.ls(path.partition("/")[0])
    if found is None:
        raise DataError(f"{url} does not exist")
    return "folder" if found == "directory" else "file"


def listing(url: str) -> list[File]:
    """All files at or below a folder, sorted by path; those whose names begin with a dot or a low line, as
    Spark's own marks, are left out. Raises DataError."""
    if is_http(url):
        raise DataError(
            f"{url} is a folder, and http has nothing that lists one: name the files, as in "
            f"{joined(url, 'shard-{000000..000009}.tar')}"
        )
    with reading(url):
        files, root = _files(url)
        root = root.rstrip("/")
        files.invalidate_cache()
        found = files.find(root, detail=True)
        inner = {path: path.removeprefix(root).lstrip("/") for path in found}
        shown = [path for path, name in inner.items() if not re.search(r"(^|/)[._]", name)]
        return [
            _file(joined(url, inner[path]) if inner[path] else url, found[path]) for path in sorted(shown)
        ]


def _file(url: str, info: Mapping[str, Any]) -> File:
    """By what fsspec has found out about it."""
    written = next((str(info[key]) for key in _WRITTEN if info.get(key)), "")
    return File(url, int(info.get("size") or 0), written)


def size_of(url: str) -> int:
    """In bytes. Raises DataError if there is no such file."""
    with reading(url):
        files, path = _files(url)
        return int(files.size(path) or 0)


def exists(url: str) -> bool:
    """Raises DataError where nobody can tell."""
    return _type(url) is not None


@contextmanager
def opened(url: str, *, start: int = 0, is_stream: bool = False) -> Iterator[BinaryIO]:
    """The bytes of a file from ``start`` on; a stream is read from front to back and need not be seekable.

    What is behind http is copied here unless it is a stream: few servers send parts of files. Whatever goes
    wrong with the file until the end of the ``with`` is a DataError.
    """
    with reading(url):
        if not is_remote(url) or (is_http(url) and not is_stream):
            with local_copy(url).open("rb") as file:
                file.seek(start)
                yield file
            return
        files, path = _files(url)
        with files.open(path, "rb", **({"block_size": 0} if is_http(url) else {})) as raw:
            if start:
                raw.seek(start)
            yield cast("BinaryIO", io.BufferedReader(_Raw(raw), AHEAD_BYTES))


def read(url: str) -> bytes:
    """The whole of a file. Raises DataError."""
    with reading(url):
        if not is_remote(url):
            return Path(_local(url)).read_bytes()
        files, path = _files(url)
        return bytes(files.cat_file(path))


def write(url: str, data: bytes) -> None:
    """Make the file, whole or not at all, and the folders above it. Raises DataError."""
    with _doing(url, "written"):
        if not is_remote(url):
            target = Path(_local(url))
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
            try:
                with partial.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
            return
        files, path = _files(url)
        files.pipe_file(path, data)


def remove(urls: Iterable[str]) -> None:
    """Raises DataError for what cannot be removed; what is not there need not be."""
    for url in urls:
        if exists(url):
            with _doing(url, "removed"):
                files, path = _files(url)
                files.rm_file(path)


def remove_folder(url: str) -> None:
    """With all that is in it; it need not be there. Raises DataError."""
    if not is_remote(url):
        with _doing(url, "removed"):
            shutil.rmtree(_local(url), ignore_errors=True)
    elif exists(url):
        remove(file.url for file in listing(url))


def local_copy(url: str) -> Path:
    """A path on this machine with what is at ``url``, a file or a folder, copied here once if need be.

    Copies stay in the cache folder, under a name that tells apart what was written at different times;
    processes of one machine share them. Raises DataError.
    """
    if not is_remote(url):
        return Path(_local(url))
    is_file = kind_of(url) == "file"
    wanted = [_looked_up(url)] if is_file else listing(url)
    mark = hashlib.sha256(repr((url, wanted)).encode()).hexdigest()[:16]
    folder = cache_folder() / "copies" / mark
    target = folder / wanted[0].name if is_file else folder / "files"
    folder.parent.mkdir(parents=True, exist_ok=True)
    busy = f"another process has long been copying {url}: end it first"
    with locked(folder.with_suffix(".lock"), deadline_seconds=COPY_DEADLINE_SECONDS, busy=busy):
        if not (folder / "complete").exists():
            for file in wanted:
                _copy(file, target if is_file else target / file.url.removeprefix(url).lstrip("/"))
            (folder / "complete").touch()
    return target


def _looked_up(url: str) -> File:
    with reading(url):
        files, path = _files(url)
        return _file(url, files.info(path))


FileState = tuple[str, int, int, int]
"""A file's path, inode, bytes, and time of writing in ns: another one if it has been written since."""


def state_of(path: Path) -> FileState:
    """Of a file on this machine. Raises DataError."""
    with reading(str(path)):
        stat = path.stat()
    return str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns


@contextmanager
def reading(url: str) -> Iterator[None]:
    """Turn what file systems raise into one sentence about ``url``, a DataError."""
    with _doing(url, "read"):
        yield


@contextmanager
def _doing(url: str, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, ValueError) as error:
        raise DataError(_sentence(url, what, error)) from error
    except UsageError:
        if url.startswith("hdfs://"):
            raise DataError(
                f"{url}: hdfs:// needs Hadoop's native library here: set HADOOP_HOME and CLASSPATH "
                "(hadoop classpath --glob), or let Spark read it (spark.read) and give the DataFrame"
            ) from None
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] in ("aiohttp", "fsspec", "pyarrow"):
            raise DataError(_sentence(url, what, error)) from error
        raise


# what AWS says -> what to say
_SAYINGS = (
    (r"NO_SUCH_BUCKET|NoSuchBucket", "there is no such bucket, or no longer"),
    (
        r"ACCESS_DENIED|INVALID_ACCESS_KEY|INVALID_CLIENT_TOKEN|SIGNATURE_DOES_NOT_MATCH|EXPIRED_TOKEN"
        r"|UNRECOGNIZED_CLIENT|HTTP status 40[13]|InvalidAccessKeyId|SignatureDoesNotMatch|AccessDenied",
        "S3 refuses the credentials: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), "
        "and what they may do with this bucket",
    ),
    (
        r"NETWORK_CONNECTION|curlCode|REQUEST_TIMEOUT|HTTP status 5\d\d",
        "S3 does not answer: check the network, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL",
    ),
    (
        r"HTTP status 404|NO_SUCH_KEY|RESOURCE_NOT_FOUND|Path does not exist",
        "it does not exist, or no longer",
    ),
)


def _sentence(url: str, what: str, error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    if isinstance(error, FileNotFoundError) and _is_s3(url) and what == "written":
        text = "NO_SUCH_BUCKET"  # nothing else needs to be there
    elif isinstance(error, FileNotFoundError):
        return f"{url} does not exist"
    if _is_s3(url):
        for pattern, saying in _SAYINGS:
            if re.search(pattern, text):
                return f"{url} cannot be {what}: {saying}"
    words = error.strerror if isinstance(error, OSError) and error.strerror and error.errno else text
    return f"{url} cannot be {what}: {words.splitlines()[0]}"


def _type(url: str) -> str | None:
    """ "file", "directory", or None where there is nothing. (fsspec's own questions take any failure for
    no.)"""
    with reading(url):
        files, path = _files(url)
        files.invalidate_cache()
        try:
            return str(files.info(path)["type"])
        except FileNotFoundError as error:
            # of whatever went wrong, the file system of http says that nothing is there
            if is_http(url) and getattr(error.__cause__, "status", None) not in (None, 404, 410):
                raise DataError(f"{url} cannot be read: the server says {error.__cause__}") from None
            if is_http(url) and isinstance(error.__cause__, OSError):
                raise DataError(f"{url} cannot be read: {error.__cause__}") from None
            return None


def _files(url: str) -> tuple[Any, str]:
    """fsspec's file system and the path there."""
    if not is_remote(url):
        files, _ = _system("file://", 0, ())
        return files, str(_local(url))
    head, _, path = url.partition("://")
    if is_http(url):
        return _system(f"{head}://", os.getpid(), ())[0], url
    bucket = path.partition("/")[0]
    settings = tuple(sorted(item for item in os.environ.items() if item[0].startswith("AWS_")))
    files, root = _system(f"{head}://{bucket}", os.getpid(), settings)
    inner = path.removeprefix(bucket).strip("/")
    return files, joined(root, inner) if inner else root


@lru_cache(maxsize=8)
def _system(url: str, _process: int, _settings: tuple[tuple[str, str], ...]) -> tuple[Any, str]:
    """Made once in each process, since connections do not survive a fork, and for each set of credentials."""
    return file_system(url)


def _local(url: str) -> str:
    return os.path.abspath(os.path.expanduser(url.removeprefix("file://")))  # noqa: PTH100, PTH111


def _is_s3(url: str) -> bool:
    return url.startswith(("s3://", "s3a://"))


def is_http(url: str) -> bool:
    return url.startswith(("http://", "https://"))


class _Raw(io.RawIOBase):
    """A file of fsspec as what ``io.BufferedReader`` reads from."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._file.seek(offset, whence)
        return self.tell()

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _copy(file: File, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    with opened(file.url, is_stream=True) as source, partial.open("wb") as copy:
        while data := source.read(AHEAD_BYTES):
            copy.write(data)
    if partial.stat().st_size != file.size:
        found = partial.stat().st_size
        partial.unlink()
        raise DataError(f"{file.url} ended after {found:,} of {file.size:,} bytes")
    partial.replace(target)
