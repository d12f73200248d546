"""What time it is for the engine: by the machine's clock, or by one that a simulation moves.

began = clock.now()                  seconds, of a clock that only goes forward
with clock.of(simulation.time): ...  the engine waits, times and gives up by that one
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CLOCK: ContextVar[Callable[[], float]] = ContextVar("clock", default=time.monotonic)


def now() -> float:
    """Seconds since some moment: ``time.monotonic`` unless it is another's time."""
    return _CLOCK.get()()


@contextmanager
def of(other: Callable[[], float]) -> Iterator[None]:
    """Within the block this thread goes by the time of ``other``."""
    before = _CLOCK.set(other)
    try:
        yield
    finally:
        _CLOCK.reset(before)
