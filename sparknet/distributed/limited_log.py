"""LimitedLog: a log that strangers can write to, so that they cannot fill it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

SECONDS = 60.0
MOST = 5  # messages in that time


class LimitedLog:
    """Passes ``most`` warnings in ``seconds`` on to ``log``, and then, once it is over, how many more."""

    def __init__(
        self,
        log: logging.Logger,
        *,
        most: int = MOST,
        seconds: float = SECONDS,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log, self._most, self._seconds, self._now = log, most, seconds, now
        self._lock = threading.Lock()
        self._began, self._passed, self._held = now(), 0, 0

    def warning(self, message: str, *arguments: object) -> None:
        with self._lock:
            if self._now() - self._began >= self._seconds:
                self._begin_again()
            if self._passed >= self._most:
                self._held += 1
                return
            self._passed += 1
        self._log.warning(message, *arguments)

    def flush(self) -> None:
        """Say how many were held back, if any were."""
        with self._lock:
            self._begin_again()

    def _begin_again(self) -> None:
        if self._held:
            self._log.warning("%d more such warnings in %.0f s", self._held, self._now() - self._began)
        self._began, self._passed, self._held = self._now(), 0, 0
