"""Received: files as they come from the master, in the frames of ami/job/results.py; put in place when whole.

Until then a file is ``TARGET/.unfinished/NAME``, NAME being made of its path, its size and the time of its
last change: the next copy asks for the rest of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any

from infra.errors import SetupError
from infra.jobs.delivery import Moved, OnMoved

UNFINISHED = ".unfinished"
HEADER = struct.Struct("!cI")
CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A file of a job: where it is there (``root``, ``inside``) and here, its size, and its time in ns."""

    root: str
    inside: str
    path: PurePosixPath
    size: int
    time: int

    def is_at(self, target: Path) -> bool:
        """Whether it is here as it is there."""
        try:
            found = (target / self.path).stat()
        except OSError:
            return False
        return found.st_size == self.size and found.st_mtime_ns == self.time

    @property
    def unfinished(self) -> str:
        """What it is called until it is whole."""
        words = f"{self.path}\0{self.size}\0{self.time}"
        return hashlib.sha256(os.fsencode(words)).hexdigest()[:32]


class Received:
    """Takes bytes in parts of any size; ``wanted`` are the files that are asked for, each from its offset."""

    def __init__(self, target: Path, lacking: Sequence[Wanted], *, already: Moved, on_moved: OnMoved) -> None:
        self._target, self._on_moved = target, on_moved
        self.wanted = [(one, self._begun(one)) for one in lacking]
        begun = sum(offset for _, offset in self.wanted)
        self.moved = Moved(
            files=already.files,
            all_files=already.files + len(lacking),
            bytes=already.bytes,
            all_bytes=already.bytes + sum(one.size for one in lacking) - begun,
        )
        self.has_spoiled = False
        self._buffer = bytearray()
        self._next = 0
        self._stream: IO[bytes] | None = None
        self._facts: dict[str, Any] = {}
        self._digest: Any = None

    def add(self, data: bytes) -> None:
        """Raises OSError if something cannot be written here."""
        self._buffer += data
        start = 0
        while len(self._buffer) - start >= HEADER.size:
            kind, length = HEADER.unpack_from(self._buffer, start)
            end = start + HEADER.size + length
            if len(self._buffer) < end:
                break
            self._take(kind, bytes(memoryview(self._buffer)[start + HEADER.size : end]))
            start = end
        del self._buffer[:start]

    def close(self) -> None:
        """What has come so far stays, for the next copy."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _begun(self, one: Wanted) -> int:
        """How many bytes of it are here already."""
        try:
            return min(one.size, (self._target / UNFINISHED / one.unfinished).stat().st_size)
        except OSError:
            return 0

    def _take(self, kind: bytes, payload: bytes) -> None:
        one, offset = self.wanted[self._next]
        if kind == b"F":
            self._open(one, offset, json.loads(payload))
        elif kind == b"D" and self._stream is not None:
            self._stream.write(payload)
            self._digest.update(payload)
            self._tell(0, len(payload))
        elif kind == b"E":
            self._finish(one, json.loads(payload)["digest"])
            self._next += 1
        else:  # gone since it was listed
            self._next += 1

    def _open(self, one: Wanted, offset: int, facts: dict[str, Any]) -> None:
        self._facts, self._digest = facts, hashlib.sha256()
        file = self._target / UNFINISHED / one.unfinished
        self._stream = file.open("r+b" if offset else "wb")
        left = offset
        while left > 0 and (data := self._stream.read(min(CHUNK, left))):
            self._digest.update(data)
            left -= len(data)

    def _finish(self, one: Wanted, digest: str) -> None:
        """Put the file in its place, with the time of its last change, by which the next copy knows it."""
        self.close()
        file, place = self._target / UNFINISHED / one.unfinished, self._target / one.path
        if self._digest.hexdigest() != digest:  # what was here of it is of another file, or was damaged
            file.unlink()
            self.has_spoiled = True
            return
        if place.is_dir() and not place.is_symlink():
            raise SetupError(f"{place} is a folder here and a file of the job; move it, and fetch again.")
        place.parent.mkdir(parents=True, exist_ok=True)
        file.chmod(self._facts["mode"] | 0o200)
        os.utime(file, ns=(self._facts["time"], self._facts["time"]))
        file.replace(place)
        self._tell(1, 0)

    def _tell(self, files: int, count: int) -> None:
        self.moved = replace(self.moved, files=self.moved.files + files, bytes=self.moved.bytes + count)
        self._on_moved(self.moved)
