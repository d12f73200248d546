"""Transfer: how far a copy is, on standard error: a bar on a terminal, elsewhere a line now and then.

What takes less than two seconds says nothing.
"""

from __future__ import annotations

import os
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

import click

from infra.cli.format import byte_size

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from infra.jobs import Moved

QUIET_SECONDS = 2.0
LINE_SECONDS = 10.0
WIDE = 110  # columns that all of it needs; below that there is only how much has come


class TransferDisplay:
    """Entered around a copy, whose ``on_moved`` is ``moved``; ``what`` is under way, such as "sending"."""

    def __init__(self, what: str, *, is_terminal: bool | None = None) -> None:
        is_able = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._what, self._is_terminal = what, is_able if is_terminal is None else is_terminal
        self._next = time.monotonic() + QUIET_SECONDS
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> TransferDisplay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def moved(self, now: Moved) -> None:
        """So much has been copied."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=now.bytes, total=now.all_bytes, files=_files(now))
        elif time.monotonic() >= self._next:
            if self._is_terminal:
                self._begin(now)
            else:
                done, total = byte_size(now.bytes), byte_size(now.all_bytes)
                click.echo(f"{self._what}: {done} of {total}, {_files(now)}", err=True)
                self._next = time.monotonic() + LINE_SECONDS

    def _begin(self, now: Moved) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        console = Console(stderr=True)
        share, size = TextColumn("{task.percentage:>3.0f} %"), DownloadColumn()
        files = TextColumn("{task.fields[files]}")
        what = TextColumn("{task.description}")
        wide = (what, BarColumn(), share, size, TransferSpeedColumn(), files)
        fitting = wide if console.width >= WIDE else (share, size)
        self._progress = Progress(*fitting, console=console, transient=True)
        self._task = self._progress.add_task(self._what, total=now.all_bytes, files=_files(now))
        self._progress.start()


def _files(now: Moved) -> str:
    return f"{now.files:,} of {now.all_files:,} files"
