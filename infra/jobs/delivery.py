"""Delivery: files put into a job's folder, of which only those travel that the master does not have already.

The master keeps each file under the SHA-256 of its content (ami/job/store.py); a link that breaks costs the
file under way.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shlex import quote

from infra.errors import CommandFailed, UsageError
from infra.jobs.link import Link
from infra.node.host import Host

STORE = PurePosixPath("var/lib/sparknet/store")
CHUNK = 1 << 18
SILENCE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A file for a job: its path in the job's folder, and what is in it, here."""

    path: str
    source: Path | bytes
    mode: int = 0o644


@dataclass(frozen=True, kw_only=True)
class Moved:
    """How far a transfer is: files and bytes, of how many; those that need not travel are in neither."""

    files: int
    all_files: int
    bytes: int
    all_bytes: int


OnMoved = Callable[[Moved], None]


def deliver(link: Link, folder: PurePosixPath, parcels: Sequence[Parcel], on_moved: OnMoved) -> Moved:
    """Put ``parcels`` into the job's ``folder``; what had to travel.

    Raises UsageError for a file that changes meanwhile, and what ``Link.keep`` raises.
    """
    digests = {parcel.path: digest_of(parcel.source) for parcel in parcels}
    by_digest = {digests[parcel.path]: parcel for parcel in parcels}
    moved = Moved(files=0, all_files=0, bytes=0, all_bytes=0)

    def send_missing(host: Host) -> None:
        nonlocal moved
        ask = f"{link.script('store.py')} missing {quote(str(link.path(STORE)))}"
        lacking = host.run(ask, stdin="\n".join(by_digest), timeout_seconds=120).stdout.split()
        if not lacking:
            return
        sending = _Sending([(one, by_digest[one]) for one in lacking], link, on_moved)
        add = f"{link.script('store.py')} add {quote(str(link.path(STORE)))}"
        try:
            host.pipe(add, source=sending.parts(), sink=lambda _: None, silence_seconds=SILENCE_SECONDS)
        except CommandFailed as error:
            if "arrived as something else" in error.output:
                raise UsageError("A file changed while it was sent; submit the program again.") from None
            raise
        moved = sending.moved

    link.keep(folder.name, send_missing)
    listed = [{"path": one.path, "digest": digests[one.path], "mode": one.mode} for one in parcels]
    make = f"{link.script('store.py')} make {quote(str(link.path(STORE)))} {quote(str(folder))}"
    link.host.run(make, stdin=json.dumps(listed), timeout_seconds=600)
    return moved


def digest_of(source: Path | bytes) -> str:
    """The SHA-256 of a file, or of bytes, in hexadecimal digits."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Sending:
    """What store.py reads, and how far it is."""

    def __init__(self, parcels: Sequence[tuple[str, Parcel]], link: Link, on_moved: OnMoved) -> None:
        self._parcels, self._link, self._on_moved = parcels, link, on_moved
        sizes = [_size(parcel.source) for _, parcel in parcels]
        self.moved = Moved(files=0, all_files=len(sizes), bytes=0, all_bytes=sum(sizes))

    def parts(self) -> Iterator[bytes]:
        for digest, parcel in self._parcels:
            size = _size(parcel.source)
            yield digest.encode() + size.to_bytes(8)
            left = size
            for part in _chunks(parcel.source):
                if len(part) > left:
                    raise UsageError(f"{parcel.source!s} grew while it was sent; submit the program again.")
                left -= len(part)
                yield part
                self._tell(0, len(part))
            if left:
                raise UsageError(f"{parcel.source!s} became shorter while it was sent; submit it again.")
            self._tell(1, 0)

    def _tell(self, files: int, count: int) -> None:
        now = self.moved
        self.moved = Moved(
            files=now.files + files,
            all_files=now.all_files,
            bytes=now.bytes + count,
            all_bytes=now.all_bytes,
        )
        self._link.touched()
        self._on_moved(self.moved)


def _size(source: Path | bytes) -> int:
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def _chunks(source: Path | bytes) -> Iterable[bytes]:
    if isinstance(source, bytes):
        yield from (source[start : start + CHUNK] for start in range(0, len(source), CHUNK))
        return
    with source.open("rb") as file:
        while part := file.read(CHUNK):
            yield part
