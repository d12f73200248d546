"""One connection of the driver's: it admits a worker, then passes requests to it and its answers on.

It decides nothing: whatever happens becomes an ``Event`` in one queue, which the coordinator reads. Its work
is done in steps, by a loop that has those of other connections too (``comm/event_loop.py``).
"""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

from sparknet.codecs import Codec
from sparknet.distributed.comm.channel import Channel, ExchangeError, Frame, Kind, raw
from sparknet.distributed.comm.event_loop import EventLoop, Task
from sparknet.distributed.comm.handshake import Identity, admit
from sparknet.distributed.comm.steps import Steps, Wait
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
    RequestQueue,
    records_in,
)
from sparknet.distributed.timeouts import Timeouts

log = logging.getLogger(__name__)

# Seconds that a connection waits past a request's deadline, so that the coordinator drops the worker.
_GRACE_SECONDS = 5.0


class _ReportedError(ExchangeError):
    """A worker has said why it ends, which the driver hears by itself."""


class Events(Protocol):
    """Where events are put."""

    def put(self, event: Event, /) -> None: ...


class Accepting(Protocol):
    """What has accepted a connection: it knows the job, and who may join it."""

    token: bytes
    size: int
    codec: Codec
    timeouts: Timeouts
    strangers: LimitedLog

    @property
    def events(self) -> Events: ...

    def refusal(self, who: Identity) -> str | None:
        """Why this attempt is refused, or None."""
        ...

    def authenticated(self) -> None:
        """A connection has been authenticated, or has ended."""
        ...

    def ended(self, connection: Connection) -> None: ...


class Connection:
    """``channel`` to whoever has come to the ``listener``; ``member`` once it has joined."""

    def __init__(self, listener: Accepting, channel: Channel) -> None:
        self.listener, self.channel = listener, channel
        self.member: Member | None = None
        self._task: Task | None = None

    def begin(self, loop: EventLoop) -> None:
        self._task = loop.add(self.channel.socket, self._steps())

    def _steps(self) -> Steps[None]:
        reason, who = "its connection ended", None
        try:
            who = yield from self._admitted()
            self.listener.events.put(Arriving(who))
            self.member = yield from self._joined(who)
            self.listener.events.put(Joined(self.member))
            yield from self._serve(self.member)
        except (OSError, EOFError, ExchangeError) as error:
            reason = str(error) or type(error).__name__
            if self.member is None and not isinstance(error, _ReportedError):
                # whoever is not known to be a worker may come as often as he likes
                told = log if who else self.listener.strangers
                told.warning("dropped a connection: %s", reason)
        finally:
            self.channel.hang_up()
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
            self.channel.hang_up()

    def _admitted(self) -> Steps[Identity]:
        try:
            return (yield from admit(self.channel, self.listener.token, self.listener.refusal))
        finally:
            self.listener.authenticated()

    def _joined(self, who: Identity) -> Steps[Member]:
        frame = yield from self._receive(who, Kind.READY, self.listener.timeouts.join)
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
            requests=RequestQueue(self._wake),
        )

    def _wake(self) -> None:
        if self._task:
            self._task.wake()

    def _serve(self, member: Member) -> Steps[None]:
        seconds = self.listener.timeouts.send
        while True:
            yield from self._until_asked(member)
            if not member.requests:
                yield from self.channel.sending(Kind.PING, {}, seconds=seconds)
                continue
            request = member.requests.take()
            if request is None:
                yield from self.channel.sending(Kind.STOP, {}, seconds=seconds)
                return
            answered = yield from self._carry_out(member, request)
            self.listener.events.put(answered)

    def _until_asked(self, member: Member) -> Steps[None]:
        """Wait for a request, no longer than until the next ping. A member that has nothing to do says
        nothing, unless it ends."""
        until = time.monotonic() + self.listener.timeouts.ping
        while not member.requests and time.monotonic() < until:
            if (yield Wait(select.POLLIN, until)):
                yield from self._receive(member.who, Kind.FAILED, self.listener.timeouts.send)

    def _carry_out(self, member: Member, request: Request) -> Steps[Answered]:
        sent, received = self.channel.sent, self.channel.received
        for message in (*member.pending, *request.messages):
            yield from self.channel.sending(
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
        frames = []
        for kind in request.answers:
            frames.append((yield from self._answer(member, request, kind, into)))
        leaving = bool([frame for frame in frames if frame.header.pop("leaving", False)])
        content = self._read(member, request, frames)
        sent, received = self.channel.sent - sent, self.channel.received - received
        return Answered(member, request, content, sent, received, leaving)

    def _answer(
        self, member: Member, request: Request, kind: Kind, into: Mapping[Kind, memoryview]
    ) -> Steps[Frame]:
        while True:
            seconds = request.deadline + _GRACE_SECONDS - time.monotonic()
            frame = yield from self._pinging(
                self._receive(member.who, kind, seconds, into, busy=(Kind.BUSY,), moves=request.gets_on)
            )
            if frame.kind is kind:
                return frame

    def _pinging(self, steps: Steps[Frame]) -> Steps[Frame]:
        """Ping a worker whose answer is on its way: it may have nothing more to do, and waits."""
        timeouts, pinged = self.listener.timeouts, time.monotonic()
        try:
            wait = next(steps)
            while True:
                ready = yield Wait(wait.events, min(wait.until, pinged + timeouts.ping))
                if time.monotonic() >= pinged + timeouts.ping:
                    pinged = time.monotonic()
                    yield from self.channel.sending(Kind.PING, {}, seconds=timeouts.send)
                wait = steps.send(ready)
        except StopIteration as end:
            frame: Frame = end.value
            return frame

    def _read(self, member: Member, request: Request, frames: Sequence[Frame]) -> Content:
        """A worker whose answer cannot be read, as one of another version of this program, counts as failed:
        it would come back and send it again."""
        try:
            return request.read(member, frames)
        except ExchangeError as error:
            self.listener.events.put(Failed(member.who, str(error), final=False))
            raise

    def _receive(
        self,
        who: Identity,
        due: Kind,
        seconds: float,
        into: Mapping[Kind, memoryview] | None = None,
        *,
        busy: tuple[Kind, ...] = (),
        moves: Callable[[], None] | None = None,
    ) -> Steps[Frame]:
        """A frame of the kind that is ``due``, or that says that the worker is ``busy``."""
        stall = min(seconds, self.listener.timeouts.send)
        frame = yield from self.channel.receiving(
            due, Kind.FAILED, *busy, into=into, seconds=seconds, stall=stall, moves=moves
        )
        if frame.kind is Kind.FAILED:
            reason = str(frame.header.get("reason"))
            self.listener.events.put(Failed(who, reason, bool(frame.header.get("final"))))
            raise _ReportedError(reason)
        if frame.kind is due and into and due in into and frame.size not in (0, into[due].nbytes):
            raise ExchangeError(f"{who} sent {frame.size:,} bytes where {into[due].nbytes:,} were due")
        return frame
