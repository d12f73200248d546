"""Ctrl-C, SIGTERM and SIGHUP as one exception, and stretches of code they must not cut in two.

with interrupts_raise():            # the command line, around a verb
    with interrupts_held():         # around a call that makes something: its answer must not be lost
        ...                         # an interrupt in here is raised at its end
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from infra.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_held = 0
_pending: str | None = None


@contextmanager
def interrupts_raise() -> Iterator[None]:
    """Inside, each of ``SIGNALS`` raises Interrupted in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _on_signal) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def interrupts_held() -> Iterator[None]:
    """Inside, an interrupt waits; it is raised at the end. Only the main thread is ever interrupted."""
    global _held, _pending
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _held += 1
    try:
        yield
    finally:
        _held -= 1
    if _held == 0 and _pending is not None:
        name, _pending = _pending, None
        raise Interrupted(f"stopped by {name}")


def _on_signal(number: int, _frame: FrameType | None) -> None:
    global _pending
    name = signal.Signals(number).name
    if _held:
        _pending = name
        return
    raise Interrupted(f"stopped by {name}")
