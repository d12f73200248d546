"""Reading what is compressed or archived: with bounds, and with one name for all that damage can raise."""

from __future__ import annotations

import gzip
import lzma
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO

DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,  # encrypted members, and NotImplementedError of unknown ways to compress
    OverflowError,
    MemoryError,
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
)
"""What Python's readers of archives raise of damaged ones."""


class TooLargeError(ValueError):
    """There is more than was allowed for."""


def at_most(file: IO[bytes] | gzip.GzipFile, limit: int) -> bytes:
    """All of ``file``. Raises TooLargeError if that is over ``limit`` bytes, of which no more are read."""
    pieces, left = [], limit + 1
    while left and (piece := file.read(min(left, 1 << 20))):
        pieces.append(piece)
        left -= len(piece)
    if not left:
        raise TooLargeError(f"it holds more than {limit:,} bytes")
    return b"".join(pieces)


def gunzipped(path: Path, limit: int) -> bytes:
    """What a gzip file holds. Raises one of DAMAGED; TooLargeError if that is over ``limit`` bytes."""
    with gzip.open(path) as file:
        return at_most(file, limit)
