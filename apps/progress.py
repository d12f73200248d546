"""A download's progress on a terminal, or a line every tenth of it elsewhere."""

from __future__ import annotations

import sys

import click


class Downloading:
    """Called with (file name, bytes so far, bytes in all); see ``sparknet.data.download.Progress``."""

    def __init__(self) -> None:
        self._shown = ("", -1)

    def __call__(self, name: str, done: int, size: int) -> None:
        percent = 100 * done // size
        step = 1 if sys.stderr.isatty() else 10
        if self._shown == (name, percent // step):
            return
        self._shown = (name, percent // step)
        begin, end = ("\r", done >= size) if sys.stderr.isatty() else ("", True)
        click.echo(f"{begin}downloading {name}  {percent:3} % of {size / 1e6:,.1f} MB", nl=end, err=True)
