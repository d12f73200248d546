"""Job output: the lines of a job as they come; on a terminal those of its rounds are one bar that grows."""

from __future__ import annotations

import re
import shutil
import sys

import click

from infra.jobs.noise import Noise

ROUND = re.compile(r"round (\d+)/(\d+)")
BAR_WIDTH = 24


class JobOutput:
    """Shows line after line of a job's log, without Spark's own unless ``is_raw``."""

    def __init__(self, *, is_terminal: bool | None = None, is_raw: bool = False) -> None:
        self.is_terminal = sys.stdout.isatty() if is_terminal is None else is_terminal
        self._noise = None if is_raw else Noise()
        self._has_bar = False

    @property
    def hidden(self) -> int:
        """How many lines were not shown."""
        return self._noise.hidden if self._noise else 0

    def line(self, text: str) -> None:
        if self._noise and self._noise.has(text):
            return
        found = ROUND.match(text)
        if not (self.is_terminal and found):
            self.end()
            click.echo(text)
            return
        done, total = int(found[1]), max(1, int(found[2]))
        filled = BAR_WIDTH * min(done, total) // total
        bar = "█" * filled + "░" * (BAR_WIDTH - filled)
        columns = shutil.get_terminal_size().columns  # a line that wraps would be two
        click.echo(f"\r\033[K{f'{bar}  {text}'[: columns - 1]}", nl=False)  # from the line's start
        self._has_bar = True

    def end(self) -> None:
        """Leave the bar, if there is one, on a line of its own."""
        if self._has_bar:
            click.echo()
        self._has_bar = False
