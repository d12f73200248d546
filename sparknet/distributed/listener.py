"""Accepts the connections of workers: a listening socket, and one thread for each connection.

A connection's thread admits the worker, then passes requests to it and its answers on. It decides nothing:
whatever happens becomes an ``Event`` in one queue, which the coordinator reads.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import numpy as np

from sparknet.codecs import Codec
from sparknet.distributed.comm.channel import Channel, ExchangeError, Frame, Kind, raw
from sparknet.distributed.comm.handshake import Identity, admit
from sparknet.distributed.limited_log import LimitedLog
from sparknet.distributed.messages import (
    Answered,
    Arriving,
    Content,
    Event,
    Failed,
    Gone,
    Joined,
    Lost,
    Member,
    Request,
    records_in,
)
from sparknet.distributed.timeouts import Timeouts

log = logging.getLogger(__name__)

# Connections that may be unauthenticated at a time; further ones are closed at once.
_UNAUTHENTICATED = 64
# Seconds that a connection waits past a request's deadline, so that the coordinator drops the worker.
_GRACE_SECONDS = 5.0


class _ReportedError(ExchangeError):
    """A worker has said why it ends, which the driver hears by itself."""


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
        self._lock = threading.Lock()
        self._newest: dict[int, int] = {}
        self._connections: set[Connection] = set()
        self._closed = False
        self._thread = threading.Thread(target=self._accept, name="sparknet-listener", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask every worker to leave; hang up on those that have not within ``timeouts.stop``."""
        with self._lock:
            self._closed = True
            connections = list(self._connections)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
        self._socket.close()
        deadline = time.monotonic() + self.timeouts.stop
        for connection in connections:
            connection.end()
        for connection in connections:
            connection.join(max(0.0, deadline - time.monotonic()))
        for connection in connections:
            connection.channel.close()
            connection.join(1.0)
        self._thread.join(1.0)
        self.strangers.flush()

    def refusal(self, who: Identity) -> str | None:
        """Why this attempt is refused, or None; remembers it as the newest of its partition."""
        with self._lock:
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
        with self._lock:
            if self._closed:
                connection.channel.close()
                return
            self._connections.add(connection)
            connection.start()  # before close() can find it: a thread that has not begun cannot be joined

    def authenticated(self) -> None:
        """A connection has been authenticated, or has ended."""
        self._unauthenticated.release()

    def ended(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)


class Connection(threading.Thread):
    """The thread of one connection."""

    def __init__(self, listener: Listener, channel: Channel) -> None:
        super().__init__(name="sparknet-worker-connection", daemon=True)
        self.listener, self.channel = listener, channel
        self.member: Member | None = None

    def run(self) -> None:
        reason, who = "its connection ended", None
        try:
            who = self._admitted()
            self.listener.events.put(Arriving(who))
            self.member = self._joined(who)
            self.listener.events.put(Joined(self.member))
            self._serve(self.member)
        except (OSError, EOFError, ExchangeError) as error:
            reason = str(error) or type(error).__name__
            if self.member is None and not isinstance(error, _ReportedError):
                # whoever is not known to be a worker may come as often as he likes
                told = log if who else self.listener.strangers
                told.warning("dropped a connection: %s", reason)
        finally:
            self.channel.close()
            self.listener.ended(self)
            if self.member:
                self.listener.events.put(Lost(self.member, reason))
            elif who:
                self.listener.events.put(Gone(who))

    def end(self) -> None:
        """Ask the worker to stop once it has done what it was asked; hang up if it has not joined."""
        member = self.member
        if member:
            member.requests.put(None)
        else:
            self.channel.close()

    def _admitted(self) -> Identity:
        try:
            return admit(self.channel, self.listener.token, self.listener.refusal)
        finally:
            self.listener.authenticated()

    def _joined(self, who: Identity) -> Member:
        frame = self._receive(who, Kind.READY, self.listener.timeouts.join)
        size, held = int(frame.header["size"]), records_in(frame.header)
        if size != self.listener.size:
            reason = f"its net has {size:,} weights, the driver's has {self.listener.size:,}"
            self.listener.events.put(Failed(who, reason, final=True))
            raise ExchangeError(reason)
        return Member(
            who=who,
            channel=self.channel,
            shards={shard: count for shard, count in held.items() if count},
            place=str(frame.header.get("place", "")),
            gpu=str(frame.header.get("gpu", "")),
            is_new=not frame.header["iteration"],
            iteration=int(frame.header["iteration"]),
            shard_bytes=int(frame.header.get("shard_bytes", 0)),
            buffer=np.empty(self.listener.codec.size(size), np.uint8),  # takes up nothing until it is used
            base=np.empty(0, np.float32),
            size=size,
            history=np.empty(int(frame.header["history"]), np.float32),
        )

    def _serve(self, member: Member) -> None:
        while True:
            try:
                request = member.requests.get(timeout=self.listener.timeouts.ping)
            except queue.Empty:
                self.channel.send(Kind.PING, {}, seconds=self.listener.timeouts.send)
                continue
            if request is None:
                self.channel.send(Kind.STOP, {}, seconds=self.listener.timeouts.send)
                return
            self.listener.events.put(self._carry_out(member, request))

    def _carry_out(self, member: Member, request: Request) -> Answered:
        sent, received = self.channel.sent, self.channel.received
        for message in (*member.pending, *request.messages):
            self.channel.send(
                message.kind,
                message.header,
                message.payload,
                seconds=self.listener.timeouts.send,
                spread=message.spread,
            )
        member.pending.clear()
        into = {
            Kind.REPORT: raw(member.buffer),
            Kind.STATE: raw(member.history),
            **request.into,
        }
        until = request.deadline + _GRACE_SECONDS
        frames = [self._receive(member.who, kind, until - time.monotonic(), into) for kind in request.answers]
        leaving = bool([frame for frame in frames if frame.header.pop("leaving", False)])
        content = self._read(member, request, frames)
        sent, received = self.channel.sent - sent, self.channel.received - received
        return Answered(member, request, content, sent, received, leaving)

    def _read(self, member: Member, request: Request, frames: Sequence[Frame]) -> Content:
        """A worker whose answer cannot be read, as one of another version of this program, counts as failed:
        it would come back and send it again."""
        try:
            return request.read(member, frames)
        except ExchangeError as error:
            self.listener.events.put(Failed(member.who, str(error), final=False))
            raise

    def _receive(
        self, who: Identity, due: Kind, seconds: float, into: Mapping[Kind, memoryview] | None = None
    ) -> Frame:
        frame = self.channel.receive(due, Kind.FAILED, into=into, seconds=seconds)
        if frame.kind is Kind.FAILED:
            reason = str(frame.header.get("reason"))
            self.listener.events.put(Failed(who, reason, bool(frame.header.get("final"))))
            raise _ReportedError(reason)
        if into and due in into and frame.size not in (0, into[due].nbytes):
            raise ExchangeError(f"{who} sent {frame.size:,} bytes where {into[due].nbytes:,} were due")
        return frame
