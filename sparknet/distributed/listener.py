"""Accepts the connections of workers: a listening socket, and some loops that work on all connections.

What happens on them becomes an ``Event`` in one queue, which the coordinator reads.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
from contextlib import suppress
from typing import Protocol

from sparknet.codecs import Codec
from sparknet.distributed.comm.channel import Channel
from sparknet.distributed.comm.event_loop import EventLoop
from sparknet.distributed.comm.handshake import Identity
from sparknet.distributed.connection import Connection
from sparknet.distributed.limited_log import LimitedLog
from sparknet.distributed.messages import Event
from sparknet.distributed.timeouts import Timeouts

log = logging.getLogger(__name__)

# Connections that may be unauthenticated at a time; further ones are closed at once.
_UNAUTHENTICATED = 64
# Loops at most, each a thread: large vectors are received, checked and measured by as many cores; more would
# wait for Python's lock.
_LOOPS = 4


class EventSource(Protocol):
    """Where events wait until the coordinator reads them."""

    def put(self, event: Event, /) -> None: ...

    def get(self, *, timeout: float) -> Event:
        """The next one. Raises queue.Empty after ``timeout`` seconds without any."""
        ...


class Joining(Protocol):
    """Lets workers join, from a ``port``; what becomes of them are ``events``. ``Listener`` does so over
    sockets."""

    timeouts: Timeouts
    port: int

    @property
    def events(self) -> EventSource: ...

    def close(self) -> None: ...


class Listener:
    """Listens on a free port of ``bind`` for workers that hold ``token``; ``size`` is the length P of their
    weights, which come back as ``codec`` writes them.

    Of two attempts of one partition only the newer is accepted.
    """

    def __init__(self, *, bind: str, token: bytes, size: int, codec: Codec, timeouts: Timeouts) -> None:
        self.token, self.size, self.codec, self.timeouts = token, size, codec, timeouts
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self.strangers = LimitedLog(log)
        self._socket = socket.create_server((bind, 0), backlog=128)
        self.port: int = self._socket.getsockname()[1]
        self._unauthenticated = threading.Semaphore(_UNAUTHENTICATED)
        self._changed = threading.Condition()
        self._newest: dict[int, int] = {}
        self._connections: set[Connection] = set()
        self._closed = False
        cores = len(os.sched_getaffinity(0))
        self._loops = [EventLoop(f"sparknet-connections-{k}") for k in range(min(_LOOPS, cores))]
        self._thread = threading.Thread(target=self._accept, name="sparknet-listener", daemon=True)
        for thread in (*self._loops, self._thread):
            thread.start()

    def close(self) -> None:
        """Ask every worker to leave; hang up on those that have not within ``timeouts.stop``."""
        with self._changed:
            self._closed = True
            connections = list(self._connections)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
        self._socket.close()
        for connection in connections:
            connection.end()
        with self._changed:
            self._changed.wait_for(lambda: not self._connections, self.timeouts.stop)
        for loop in self._loops:
            loop.close()
        self._thread.join(1.0)
        self.strangers.flush()

    def refusal(self, who: Identity) -> str | None:
        """Why this attempt is refused, or None; remembers it as the newest of its partition."""
        with self._changed:
            newest = self._newest.get(who.partition, -1)
            if self._closed:
                return "the job is over"
            if who.attempt < newest:
                return f"attempt {newest} of partition {who.partition} has taken its place"
            self._newest[who.partition] = who.attempt
            return None

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._socket.accept()
            except OSError:
                return  # closed
            if not self._unauthenticated.acquire(blocking=False):
                self.strangers.warning(
                    "turned a connection away: %d others have not proved themselves yet", _UNAUTHENTICATED
                )
                accepted.close()
                continue
            self._start(Connection(self, Channel(accepted)))

    def _start(self, connection: Connection) -> None:
        with self._changed:
            if self._closed:
                connection.channel.close()
                return
            self._connections.add(connection)
            connection.begin(min(self._loops, key=lambda loop: loop.tasks))

    def authenticated(self) -> None:
        """A connection has been authenticated, or has ended."""
        self._unauthenticated.release()

    def ended(self, connection: Connection) -> None:
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()
