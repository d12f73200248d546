"""Clock: simulated time, which can run faster than the machine's, and what is to happen at a moment of it."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate

log = logging.getLogger(__name__)


class Clock:
    """Simulated seconds since the epoch. Actions run one after the other in a thread of the clock's own."""

    def __init__(self, speed: float = 1.0) -> None:
        self._changed = threading.Condition()
        self._speed = speed
        self._since, self._time_then = time.monotonic(), time.time()
        self._pending: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="clock", daemon=True)
        self._thread.start()

    def now(self) -> float:
        return self._time_then + (time.monotonic() - self._since) * self._speed

    def timestamp(self, seconds_from_now: float = 0.0) -> str:
        """As EC2 writes it, to the second."""
        moment = datetime.fromtimestamp(self.now() + seconds_from_now, UTC)
        return moment.strftime("%Y-%m-%dT%H:%M:%SZ")

    def utcnow(self) -> datetime:
        """As moto keeps moments: of UTC, and without saying so."""
        return datetime.fromtimestamp(self.now(), UTC).replace(tzinfo=None)

    def date(self) -> str:
        """As the header of an HTTP answer tells it."""
        return formatdate(self.now(), usegmt=True)

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Run ``action`` once ``seconds`` of simulated time have passed."""
        with self._changed:
            heapq.heappush(self._pending, (self.now() + seconds, next(self._order), action))
            self._changed.notify()

    def set_speed(self, speed: float) -> None:
        with self._changed:
            self._since, self._time_then, self._speed = time.monotonic(), self.now(), speed
            self._changed.notify()

    def advance(self, seconds: float) -> None:
        """Jump ahead: what was due in between is due now."""
        with self._changed:
            self._time_then += seconds
            self._changed.notify()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(5)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._ended and (not self._pending or self._pending[0][0] > self.now()):
                    wait = (self._pending[0][0] - self.now()) / self._speed if self._pending else None
                    self._changed.wait(wait)
                if self._ended:
                    return
                _, _, action = heapq.heappop(self._pending)
            try:
                action()
            except Exception:
                log.exception("an action of the simulated clock failed")  # the others are still to come
