"""Work on a connection in steps, between which it waits: for one thread, or for a loop with many of them.

    def greeting(connection):               Steps[bytes]
        yield Wait(select.POLLIN, until)    what it waits for, and how long
        return connection.recv(5)

    run(connection, greeting(connection))   this thread waits
    loop.add(connection, ...)               a loop waits, for many connections at once (event_loop.py)

A step is resumed when its connection is ready, when its time is over, or because somebody else woke it; it
looks for itself what has become of it.
"""

from __future__ import annotations

import errno
import math
import select
import socket
import time
from collections.abc import Generator
from typing import NamedTuple, TypeVar

# Seconds that a kernel can count.
LONGEST = 1e6


class Wait(NamedTuple):
    """Until the connection is ready for ``events``, of ``select.poll``, or has ended; no longer than
    ``until``, of ``time.monotonic``."""

    events: int
    until: float = math.inf


Result = TypeVar("Result")
Steps = Generator[Wait, bool, Result]
"""Is sent whether the connection is ready."""


def run(connection: socket.socket, steps: Steps[Result]) -> Result:
    """What the ``steps`` return; this thread waits for them. ``connection`` does not block."""
    poll, wait = select.poll(), Wait(0)
    try:
        wait = next(steps)
        while True:
            poll.register(_open(connection), wait.events)
            seconds = min(max(0.0, wait.until - time.monotonic()), LONGEST)
            wait = steps.send(bool(poll.poll(math.ceil(1e3 * seconds))))
    except StopIteration as end:
        result: Result = end.value
        return result


def _open(connection: socket.socket) -> int:
    number = connection.fileno()
    if number < 0:
        raise OSError(errno.EBADF, "this connection has been closed")
    return number
