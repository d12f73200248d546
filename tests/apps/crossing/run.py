"""A drawn line is run: by the app's own command in this process, or as a program; what it said and left."""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sparknet.exits import status_of
from tests.apps.crossing.draw import M
from tests.apps.crossing.line import APPS, Line
from tests.apps.run_app import run_app


@dataclass(frozen=True, kw_only=True)
class Ran:
    """How a line ended: ``made`` are the files that were not there before, ``java`` is what Spark's Java said
    meanwhile."""

    status: int
    out: str
    err: str
    seconds: float
    made: frozenset[str]
    java: str = ""

    @property
    def errors(self) -> list[str]:
        """The sentences on stderr that say why it ended."""
        return [line for line in self.err.splitlines() if line.startswith("Error: ")]


def run(
    line: Line,
    folder: Path,
    materials: Path,
    *,
    as_program: bool = False,
    seconds: float = 240,
    variables: Mapping[str, str] | None = None,
) -> Ran:
    """Run ``line`` in ``folder``; a program has these ``variables`` in its environment."""
    words = [word.replace(M, str(materials)) for word in line.words]
    before, started = files(folder), time.monotonic()
    if as_program:
        done = run_app(line.app, *words, folder=folder, seconds=seconds, **(variables or {}))
        status, out, err = done.returncode, done.stdout, done.stderr
    else:
        status, out, err = _here(line, words, folder)
    return Ran(
        status=status,
        out=out,
        err=err,
        seconds=time.monotonic() - started,
        made=files(folder) - before,
    )


def _here(line: Line, words: list[str], folder: Path) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with _inside(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = status_of(lambda: APPS[line.app].main(words, standalone_mode=False))
    return status, out.getvalue(), err.getvalue()


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def files(folder: Path) -> frozenset[str]:
    return frozenset(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
