"""One thread that does the work of many connections, in steps (``steps.py``): whichever can go on does.

A thread for each connection would wait for Python's lock with all the others, every one of them waking 200
times a second to ask for it: of 256 connections that took half of the driver's time.

What is under way comes first. Work that has been woken, because there is something new to be done, begins
when no other can go on: few transfers are under way at a time where links are fast, and their bytes are still
in the processor's cache when they are used; and all of them where links are slow.
"""

from __future__ import annotations

import heapq
import logging
import math
import os
import select
import socket
import threading
import time
from collections import deque
from itertools import count
from operator import itemgetter

from sparknet.distributed.comm.steps import Steps, Wait

log = logging.getLogger(__name__)

# Work that has been woken waits no longer than this for another to begin, however busy the loop is.
_BEGIN_SECONDS = 0.05

_EVENTS = itemgetter(1)


class Task:
    """The steps of one connection's work in a loop; ``number`` is its file descriptor."""

    def __init__(self, loop: EventLoop, connection: socket.socket, steps: Steps[None]) -> None:
        self.connection, self.number, self.steps = connection, connection.fileno(), steps
        self.wait: Wait | None = None
        self.looked_at = math.inf  # when the loop looks whether its time is over
        self._loop = loop

    def wake(self) -> None:
        """There is something new for it to do; may be called from any thread."""
        self._loop.wake(self)


class EventLoop(threading.Thread):
    """Works until it is closed."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._bell, select.EPOLLIN)
        self._has_rung = False
        self._woken: deque[Task] = deque()
        self._tasks: dict[int, Task] = {}
        self._timers: list[tuple[float, int, Task]] = []  # numbered, so that no tasks are compared
        self._counter = count()
        self._last_begun = 0.0
        self._closed = False

    @property
    def tasks(self) -> int:
        """How many it has, as far as another thread can know."""
        return len(self._tasks) + len(self._woken)

    def add(self, connection: socket.socket, steps: Steps[None]) -> Task:
        """Begin these steps, before what is only woken; when they end the ``connection`` is closed. It does
        not block."""
        task = Task(self, connection, steps)
        self._woken.appendleft(task)
        self._ring()
        return task

    def wake(self, task: Task) -> None:
        """May be called from any thread."""
        self._woken.append(task)
        self._ring()

    def close(self) -> None:
        """End, whatever is under way."""
        if self._closed:
            return
        self._closed = True
        os.eventfd_write(self._bell, 1)
        self.join()
        self._epoll.close()
        os.close(self._bell)

    def run(self) -> None:
        while not self._closed:
            busy = False
            for number, _ in sorted(self._poll(), key=_EVENTS):  # receives before it sends
                if number == self._bell:
                    os.eventfd_read(self._bell)
                    self._has_rung = False  # only now, and before it is looked at who has been woken
                elif number in self._tasks:
                    busy = True
                    self._resume(self._tasks[number], ready=True)
            self._resume_the_late()
            if self._woken and not (busy and time.monotonic() < self._last_begun + _BEGIN_SECONDS):
                self._begin(self._woken.popleft())
        for task in (*self._tasks.values(), *self._woken):
            task.steps.close()
            task.connection.close()

    def _ring(self) -> None:
        """The loop is to look at who has been woken."""
        if not self._has_rung:
            self._has_rung = True
            os.eventfd_write(self._bell, 1)

    def _poll(self) -> list[tuple[int, int]]:
        """File descriptors, and what they are ready for."""
        if self._woken:
            return self._epoll.poll(0)
        return self._epoll.poll(max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None)

    def _begin(self, task: Task) -> None:
        self._last_begun = time.monotonic()
        if task.connection.fileno() >= 0:  # it has not ended meanwhile
            self._resume(task, ready=False)

    def _resume(self, task: Task, *, ready: bool) -> None:
        try:
            wait = next(task.steps) if task.wait is None else task.steps.send(ready)
        except StopIteration:
            self._end(task)
            return
        except Exception:
            log.exception("a connection has ended by an error of this program")
            self._end(task)
            return
        if task.wait is None:
            self._tasks[task.number] = task
            self._epoll.register(task.number, wait.events)
        elif wait.events != task.wait.events:
            self._epoll.modify(task.number, wait.events)
        task.wait = wait
        self._time(task, wait.until)

    def _end(self, task: Task) -> None:
        """Its connection would leave ``epoll`` by itself when it is closed, but not where a process that was
        forked holds it too: then it would be told to be ready for ever."""
        if task.wait is not None:
            del self._tasks[task.number]
            self._epoll.unregister(task.number)
        task.connection.close()

    def _time(self, task: Task, until: float) -> None:
        """Look at the task then. Whoever is looked at earlier is timed anew when that time has come: most
        waits end long before theirs, and would otherwise fill the heap."""
        if until < task.looked_at:
            task.looked_at = until
            heapq.heappush(self._timers, (until, next(self._counter), task))

    def _resume_the_late(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            looked_at, _, task = heapq.heappop(self._timers)
            if looked_at != task.looked_at or task.connection.fileno() < 0 or not task.wait:
                continue
            task.looked_at = math.inf
            if task.wait.until <= now:
                self._resume(task, ready=False)
            else:
                self._time(task, task.wait.until)
