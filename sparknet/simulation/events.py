"""Simulated time: what happens when, and what the coordinator is told of it."""

from __future__ import annotations

import heapq
import math
import queue
from collections import deque
from collections.abc import Callable
from itertools import count

from sparknet.distributed.messages import Event


class EventQueue:
    """Takes the place of the queue that the threads of connections fill.

    ``time`` is seconds since the beginning. It moves only while somebody waits: to whatever happens next.
    """

    def __init__(self) -> None:
        self.time = 0.0
        self._future: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._told: deque[Event] = deque()

    def now(self) -> float:
        return self.time

    def after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do ``action`` so many seconds from now; of those due at once, the first that was asked for."""
        heapq.heappush(self._future, (self.time + seconds, next(self._order), action))

    def put(self, event: Event, /) -> None:
        """Tell the coordinator."""
        self._told.append(event)

    def get(self, *, timeout: float) -> Event:
        """The next event. Raises queue.Empty if there is none in ``timeout`` seconds."""
        until = self.time + timeout
        while not self._told:
            if not self._step(until):
                assert until < math.inf, "it waits for what will never come"
                self.time = until
                raise queue.Empty
        return self._told.popleft()

    def work(self, seconds: float) -> None:
        """The coordinator computes for so long; the world goes on."""
        until = self.time + seconds
        while self._step(until):
            pass
        self.time = until

    def _step(self, until: float) -> bool:
        """Let the next thing happen, if that is in time."""
        if not self._future or self._future[0][0] > until:
            return False
        self.time, _, action = heapq.heappop(self._future)
        action()
        return True
