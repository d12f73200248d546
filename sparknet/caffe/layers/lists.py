"""List files of data layers: names of pictures or files, separated as C++ reads words and lines.

Names are bytes, which need not be UTF-8; only a line feed ends a line, only the white space of C a word.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from sparknet.errors import DataError

_LABEL = re.compile(r"[+-]?[0-9]{1,10}")


def words(source: str, owner: object) -> list[str]:
    """The words of a file. Raises DataError, beginning with ``owner``, if it cannot be read."""
    return [os.fsdecode(word) for word in _content(source, owner).split()]


def labelled_names(source: str, owner: object) -> list[tuple[str, float]]:
    """The lines "name label" of a file. Raises DataError for a line that is not so."""
    lines = enumerate(_content(source, owner).split(b"\n"), 1)
    return [_name_and_label(line, f"{source}:{number}") for number, line in lines if line.strip()]


def _content(source: str, owner: object) -> bytes:
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise DataError(f"{owner}: cannot read {source}: {error.strerror}") from None
    except ValueError:
        raise DataError(f"{owner}: cannot read {source!r}: this is no path") from None


def _name_and_label(line: bytes, where: str) -> tuple[str, float]:
    name, _, label = os.fsdecode(line.rstrip()).rpartition(" ")
    if not _LABEL.fullmatch(label) or abs(int(label)) >= 1 << 31:
        raise DataError(f'{where}: not "path label": {os.fsdecode(line)!r}')
    return name, float(int(label))
