"""Waiting: what takes more than two seconds says what it waits for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

QUIET_SECONDS = 2.0


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Say ``what`` is under way, on standard error, if it is still so after two seconds."""

    def say() -> None:
        with suppress(OSError, ValueError):  # nobody is there to read it
            click.echo(f"{what} ...", err=True)

    timer = threading.Timer(QUIET_SECONDS, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
