"""Frames on a socket between the driver and its workers.

A frame is a prefix of fixed length, a header (JSON, a few hundred bytes) and a payload (bytes of a vector, or
nothing):

    "SPKN" | kind 1 byte | zero 3 | header length 4 | payload length 8 | header | payload | MAC 16

Lengths are checked before a byte is read or allocated, nothing is ever unpickled, every wait has a deadline
(``progress.py``).
The MAC (``auth.py``) is there once both ends have shown that they know the job's token (``handshake.py``);
nothing is done with a frame before it has been checked. What is sent is not encrypted, as Spark's own traffic
is not by default.
"""

from __future__ import annotations

import json
import select
import socket
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Any, Self

from sparknet import clock
from sparknet.codecs import Bytes
from sparknet.distributed.comm.auth import MAC_BYTES, FrameAuthenticator, Mac
from sparknet.distributed.comm.progress import Progress
from sparknet.distributed.comm.spread import AT_ONCE, Spread
from sparknet.distributed.comm.steps import Steps, Wait, run
from sparknet.distributed.timeouts import LEAST_RATE
from sparknet.errors import TrainingError
from sparknet.weights import Vector

_PREFIX = struct.Struct("!4sB3xIQ")
_MAGIC = b"SPKN"
_HEADER_LIMIT = 1 << 16
# Bytes of a payload that are authenticated and sent, or received and checked, while in a core's cache.
_CHUNK = 1 << 20
# Bytes for which a thread is woken: not for each packet.
_WORTH_WAKING, _PACKET = 1 << 18, 1 << 12

Header = Mapping[str, Any]
NOTHING = memoryview(b"")


class Kind(IntEnum):
    """What a frame is for. ``d`` is sent by the driver, ``w`` by a worker."""

    CHALLENGE = 1  # d
    ANSWER = 2  # w
    WELCOME = 3  # d
    REFUSED = 4  # d: the reason; do not come back
    READY = 5  # w: how many records it drained
    TRAIN = 6  # d: a round's plan, and the weights unless the worker has them
    REPORT = 7  # w: what it did, and its weights
    TEST = 8  # d: a slice, and the weights unless the worker has them
    SCORES = 9  # w
    PING = 10  # d: still here, nothing to do
    STOP = 11  # d: the job is done
    FAILED = 12  # w: an exception
    SAVE = 13  # d: send your state
    STATE = 14  # w: its state, the solver's history as payload
    RESTORE = 15  # d: go on from this state; not answered
    DELTA = 16  # d: how the weights differ from the last ones, encoded; no reply
    REDUCE = 17  # d: average with the others
    REDUCED = 18  # w: whether that went well
    COMMIT = 19  # d: the others have it too, go on from it, or from the outer step; not answered
    FETCH = 20  # d: send the weights the round would start from, or the outer optimiser's memory
    WEIGHTS = 21  # w: these
    YIELD = 22  # d: hand your shards over and end, another task needs the slot
    YIELDED = 23  # w: what it handed over, and where
    ASSIGN = 24  # d: the shards to train on from now on, and how far each has been read
    ASSIGNED = 25  # w: those it trains on
    OUTER = 26  # d: the outer optimiser whose steps a worker takes, and whether its memory follows
    MEMORY = 27  # d: this
    BUSY = 28  # w: still at what was asked, and getting on


class ExchangeError(TrainingError):
    """The other end broke the protocol: not a frame of ours, too long, or not of the kind that was due."""


class ForgedError(ConnectionError):
    """A frame is not as it was sent: this connection cannot be trusted any more."""


def raw(vector: Vector | Bytes) -> memoryview:
    """The bytes of ``vector``, not a copy of them."""
    return vector.data.cast("B") if vector.size else NOTHING


@dataclass(frozen=True, kw_only=True)
class Frame:
    """``size`` bytes of payload lie at the start of the buffer the frame was received into."""

    kind: Kind
    header: dict[str, Any]
    size: int


class Channel:
    """One connection. ``sent`` and ``received`` count bytes, of whole frames; ``peer`` is ``host:port`` of
    the other end.

    ``send`` and ``receive`` let the calling thread wait; ``sending`` and ``receiving`` are the same in steps.
    A frame may take as long as its bytes flow, at ``least_rate`` bytes in a second or more.
    """

    def __init__(self, connection: socket.socket, least_rate: float = LEAST_RATE) -> None:
        self.socket, self.peer = connection, _name_of(connection)
        self._least_rate = least_rate
        self._outgoing: FrameAuthenticator | None = None
        self._incoming: FrameAuthenticator | None = None
        self._prefix = memoryview(bytearray(_PREFIX.size))
        self._mac = memoryview(bytearray(MAC_BYTES))
        self._wakes_at = 1
        self.sent = self.received = 0
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    @classmethod
    def connect(cls, address: tuple[str, int], seconds: float) -> Self:
        """Raises OSError when nobody answers within ``seconds``."""
        return cls(socket.create_connection(address, timeout=seconds))

    @property
    def host(self) -> str:
        """The address of this end: the one by which the other end's network reaches this machine."""
        return str(self.socket.getsockname()[0])

    def authenticate(self, *, sent: bytes, received: bytes) -> None:
        """From here on every frame carries a MAC, by these keys of 32 bytes."""
        self._outgoing, self._incoming = FrameAuthenticator(sent), FrameAuthenticator(received)

    def send(
        self,
        kind: Kind,
        header: Header,
        payload: memoryview = NOTHING,
        *,
        seconds: float,
        spread: Spread = AT_ONCE,
    ) -> None:
        """Send a frame. Raises OSError if the connection breaks, TimeoutError if the other end takes nothing
        for ``seconds``, or less than the least rate and ``seconds`` allow.

        The payload is ``spread`` over some time that does not count among these.
        """
        run(self.socket, self.sending(kind, header, payload, seconds=seconds, spread=spread))

    def receive(
        self,
        *due: Kind,
        into: Mapping[Kind, memoryview] | None = None,
        seconds: float,
        stall: float | None = None,
    ) -> Frame:
        """Wait for a frame of one of the kinds that are ``due``; its payload goes to the start of
        ``into[kind]``.

        Raises TimeoutError if none begins within ``seconds``, or one that has begun does not go on for
        ``stall`` seconds, as many if these are not given, or falls below the least rate by more than these;
        EOFError when the other end hangs up, OSError when the connection breaks or the frame was forged,
        ExchangeError for anything that is not such a frame or does not fit.
        """
        return run(self.socket, self.receiving(*due, into=into, seconds=seconds, stall=stall))

    def sending(
        self,
        kind: Kind,
        header: Header,
        payload: memoryview = NOTHING,
        *,
        seconds: float,
        spread: Spread = AT_ONCE,
    ) -> Steps[None]:
        """The steps of ``send``."""
        text = json.dumps(header).encode()
        head = _PREFIX.pack(_MAGIC, kind, len(text), payload.nbytes) + text
        mac = self._outgoing.next() if self._outgoing else None
        if mac:
            mac.add(head)
        size = len(head) + payload.nbytes + (MAC_BYTES if mac else 0)
        progress = self._progress("took nothing", f"a {kind.name} frame", seconds, size)
        starts = spread.cut(payload.nbytes, _CHUNK)
        began = clock.now()
        for number, (start, stop) in enumerate(pairwise([*starts, max(1, payload.nbytes)])):
            if spread.seconds:
                yield from _pause(began + spread.due(number, len(starts)), progress)
            chunk = payload[start:stop]
            if mac:
                mac.add(chunk)
            tail = mac.finish() if mac and stop >= payload.nbytes else b""
            yield from self._push(progress, head, chunk, tail)
            head = b""
        self.sent += size

    def receiving(
        self,
        *due: Kind,
        into: Mapping[Kind, memoryview] | None = None,
        seconds: float,
        stall: float | None = None,
        moves: Callable[[], None] | None = None,
    ) -> Steps[Frame]:
        """The steps of ``receive``; ``moves`` is called when bytes have come."""
        what = f"a {due[0].name} frame" + (" or another" if len(due) > 1 else "")
        progress = self._progress("sent nothing", what, seconds, _PREFIX.size, moves)
        stall = seconds if stall is None else stall
        mac = self._incoming.next() if self._incoming else None
        yield from self._fill(progress, mac, stall, self._prefix)
        magic, kind, header_size, size = _PREFIX.unpack(self._prefix)
        if magic != _MAGIC:
            raise ExchangeError(f"{self.peer} sent something that is not a frame of this program")
        if kind not in due:
            raise ExchangeError(
                f"{self.peer} sent a frame of kind {kind} where {', '.join(d.name for d in due)} was due"
            )
        buffer = (into or {}).get(kind, NOTHING)
        if header_size > _HEADER_LIMIT or size > buffer.nbytes:
            raise ExchangeError(
                f"{self.peer} announced a header of {header_size:,} and a payload of {size:,} bytes; "
                f"at most {_HEADER_LIMIT:,} and {buffer.nbytes:,} are due"
            )
        text = bytearray(header_size)
        whole = _PREFIX.size + header_size + size + (MAC_BYTES if mac else 0)
        progress.what, progress.total = f"a {Kind(kind).name} frame", whole
        yield from self._fill(progress, mac, stall, memoryview(text), buffer[:size])
        if mac:
            yield from self._fill(progress, None, stall, self._mac)
            if not mac.matches(self._mac):
                raise ForgedError(f"a frame from {self.peer} is not as it was sent")
        self._wake_at(0)
        self.received += whole
        return Frame(kind=Kind(kind), header=_parsed(text, self.peer), size=size)

    def hang_up(self) -> None:
        """End the connection, whoever waits on this channel: that wakes with an error, and closes it."""
        with suppress(OSError):  # never connected, or closed by the other end
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the connection and give it back to the system: for the thread that uses it."""
        self.hang_up()
        self.socket.close()

    def _progress(
        self,
        verb: str,
        what: str,
        seconds: float,
        total: int,
        moves: Callable[[], None] | None = None,
    ) -> Progress:
        doing, rate = f"{self.peer} {verb}", self._least_rate
        return Progress(doing, what, seconds=seconds, rate=rate, total=total, moves=moves)

    def _push(self, progress: Progress, *parts: bytes | memoryview) -> Steps[None]:
        left = [memoryview(part) for part in parts if part]
        while left:
            try:
                count = self.socket.sendmsg(left)
            except BlockingIOError:
                progress.check()
                yield Wait(select.POLLOUT, progress.until)
                continue
            progress.moved(count)
            left = _after(left, count)

    def _fill(self, progress: Progress, mac: Mac | None, stall: float, *views: memoryview) -> Steps[None]:
        left = [view for view in views if view]
        while left:
            try:
                count = self.socket.recvmsg_into(_first(left, _CHUNK))[0]
            except BlockingIOError:
                progress.check()
                self._wake_at(sum(map(len, left)))
                yield Wait(select.POLLIN, progress.until)
                continue
            if not count:
                raise EOFError(f"{self.peer} hung up")
            progress.moved(count, seconds=stall)
            if mac:
                for view in _first(left, count):
                    mac.add(view)
            left = _after(left, count)

    def _wake_at(self, left: int) -> None:
        """Whoever waits to receive is woken when all that is left is there, or much of it: no thread wakes,
        and asks for Python's lock, for each packet. What is there when a wait has ended is received in any
        case."""
        count = min(left, _WORTH_WAKING) if left > _PACKET else 1
        if count != self._wakes_at:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
            self._wakes_at = count


def _pause(until: float, progress: Progress) -> Steps[None]:
    """Wait in the middle of a frame, unless its connection ends."""
    began = now = clock.now()
    while now < until:
        ended = yield Wait(0, until)
        now = clock.now()
        if ended:
            break
    progress.paused(now - began)


def _first(views: list[memoryview], count: int) -> list[memoryview]:
    """The first ``count`` bytes in ``views``."""
    found = []
    for view in views:
        found.append(view[:count])
        count -= len(found[-1])
        if not count:
            break
    return found


def _after(views: list[memoryview], count: int) -> list[memoryview]:
    """What comes after the first ``count`` bytes in ``views``."""
    for number, view in enumerate(views):
        if count < len(view):
            return [view[count:], *views[number + 1 :]]
        count -= len(view)
    return []


def _name_of(connection: socket.socket) -> str:
    try:
        host, port, *_ = connection.getpeername()
    except OSError:
        return "a closed connection"
    return f"{host}:{port}"


def _parsed(text: bytearray, peer: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as wrong:
        raise ExchangeError(f"{peer} sent a header that is not JSON") from wrong
    if not isinstance(header, dict):
        raise ExchangeError(f"{peer} sent a header that is not a JSON object")
    return header
