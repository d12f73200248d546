"""Records that are read where they lie, in files of every kind; valid ones, and what reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

# Of LevelDB, what it never reads.
_UNREAD = ("LOCK", "LOG", "LOG.old")


def written(kind: str, names: str = "*") -> Callable[[Path], list[Path]]:
    """Writes files of a ``kind``; those that have such ``names`` may be damaged."""

    def write(folder: Path) -> list[Path]:
        from tests.sparknet.sources.writing import WRITERS, drawn

        WRITERS[kind](folder / "records", drawn(24))
        files = (path for path in (folder / "records").rglob(names) if path.is_file())
        return sorted(path for path in files if path.stat().st_size and path.name not in _UNREAD)

    return write


def read(path: Path) -> None:
    from sparknet.sources import open_source

    root = next(folder for folder in path.parents if folder.name == "records")
    for part in open_source(str(root)).parts(2):
        for _ in part.blocks():
            pass
