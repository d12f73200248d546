"""Polling: the wait for what others bring about. It looks again and again, and has a deadline.

def check() -> Node | Pending:
    node = look()
    if node.state == "running":
        return node
    return Pending(lambda: DeadlineExceeded(f"{node.id} is still {node.state}."))

node = poll(check, deadline_seconds=300, every=2)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Pending:
    """What is waited for is not there yet.

    ``overdue`` makes the error that is raised at the deadline: it says what is still missing, and is called
    only then, since it may have to fetch a log to know why. ``deadline_seconds``: what this state may take,
    counted from the start of the wait, where that is less than the wait as a whole.
    """

    overdue: Callable[[], Exception]
    deadline_seconds: float | None = None


def poll(
    check: Callable[[], T | Pending],
    *,
    deadline_seconds: float,
    every: float,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """What ``check`` returns once that is not ``Pending``; it is called every ``every`` seconds.

    It is called at least once. Raises what ``check`` raises, and after the deadline the error of its last
    ``Pending``. ``sleep`` is what a test replaces.
    """
    began = time.monotonic()
    while True:
        answer = check()
        if not isinstance(answer, Pending):
            return answer
        seconds = deadline_seconds if answer.deadline_seconds is None else answer.deadline_seconds
        if time.monotonic() - began > min(seconds, deadline_seconds):
            raise answer.overdue()
        sleep(every)
