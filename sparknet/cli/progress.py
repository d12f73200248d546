"""How far something is, once a second, as a line on stderr."""

from __future__ import annotations

import time

import click

EVERY_SECONDS = 1.0


class Lines:
    """Called with (records so far, records in all)."""

    def __init__(self, what: str = "records") -> None:
        self._what = what
        self._start = self._last = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        self._first = done if self._first is None else self._first
        if now - self._last < EVERY_SECONDS and done < total:
            return
        rate = (done - self._first) / max(now - self._start, 1e-9)
        speed = f", {rate:,.0f} a second" if rate else ""
        click.echo(f"{done:,} of {total:,} {self._what}{speed}", err=True)
        self._last = now
