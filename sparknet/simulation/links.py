"""How long bytes take: rates, delays, and what TCP loses while it finds out how fast it may send."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from functools import partial
from itertools import count

from sparknet.simulation.events import EventQueue

# Bytes that TCP sends before it has heard anything: ten segments (RFC 6928).
_FIRST_WINDOW = 14_600
# After a pause of this many seconds and a round trip, Linux's least timeout, the window is halved, and again
# after each further one (RFC 2861); BBR keeps it.
_TIMEOUT_SECONDS = 0.2


def slow_start(size: float, rate: float, round_trip: float, first: float = _FIRST_WINDOW) -> float:
    """Seconds that a connection waits for acknowledgements while its window doubles every ``round_trip``.

    ``size`` bytes at ``rate`` bytes a second, ``first`` the window at the beginning; nothing once it fills
    the link.

    >>> round(slow_start(582_312, 1.25e6, 0.1), 3)
    0.225
    """
    window, sent, lost = first, 0.0, 0.0
    while sent + window < size and window < rate * round_trip:
        lost += round_trip - window / rate
        sent, window = sent + window, 2 * window
    return lost


class SharedLink:
    """One direction of a machine's link: ``rate`` bytes a second, of which transfers under way have equal
    shares, none more than ``most``."""

    def __init__(self, events: EventQueue, rate: float, most: float) -> None:
        self._events, self._rate, self._most = events, rate, most
        self._active: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._served = self._since = 0.0  # bytes that each transfer has had that began with the link
        self._turn = 0

    def send(self, size: float, done: Callable[[], None]) -> None:
        """Begin to send ``size`` bytes; ``done`` when the last has left."""
        self._progress()
        heapq.heappush(self._active, (self._served + size, next(self._order), done))
        self._wait()

    @property
    def _speed(self) -> float:
        return min(self._most, self._rate / max(1, len(self._active)))

    def _progress(self) -> None:
        now = self._events.now()
        self._served += (now - self._since) * self._speed
        self._since = now

    def _wait(self) -> None:
        self._turn += 1
        if self._active:
            left = max(0.0, self._active[0][0] - self._served)
            self._events.after(left / self._speed, partial(self._finish, self._turn))

    def _finish(self, turn: int) -> None:
        if turn != self._turn:
            return  # others have come since, and it takes longer
        self._progress()
        self._served = max(self._served, self._active[0][0])  # whatever rounding has made of it
        while self._active and self._active[0][0] <= self._served:
            heapq.heappop(self._active)[2]()
        self._wait()


class Connection:
    """One direction of a worker's connection with the driver, over the driver's ``link``.

    ``latency`` is from one end to the other, in seconds; ``keeps_window`` says that TCP goes on after a pause
    as fast as before it.
    """

    def __init__(
        self, events: EventQueue, link: SharedLink, latency: float, *, keeps_window: bool = False
    ) -> None:
        self._events, self._link, self._latency = events, link, latency
        self._keeps_window = keeps_window
        self._used, self._window = -math.inf, float(_FIRST_WINDOW)

    def send(self, size: float, arrived: Callable[[], None]) -> None:
        """``arrived`` when all ``size`` bytes are at the other end."""
        began = self._events.now()
        first = self._window_at(began)

        def sent() -> None:
            self._used = self._events.now()
            rate = size / max(self._used - began, 1e-9)
            lost = slow_start(size, rate, 2 * self._latency, first)
            # a full link makes round trips longer, which ends the doubling (RFC 9406)
            self._window = max(first, min(size, 2 * rate * 2 * self._latency))
            self._events.after(self._latency + lost, arrived)

        self._link.send(size, sent)

    def _window_at(self, time: float) -> float:
        """What TCP has left of its window."""
        if self._keeps_window or self._used == -math.inf:
            return self._window
        timeouts = (time - self._used) / (_TIMEOUT_SECONDS + 2 * self._latency)
        return max(_FIRST_WINDOW, math.ldexp(self._window, -int(min(timeouts, 64))))
