"""Frames on a socket between the driver and its workers.

A frame is a prefix of fixed length, a header (JSON, a few hundred bytes) and a payload (bytes of a vector, or
nothing):

    "SPKN" | kind 1 byte | zero 3 | header length 4 | payload length 8 | header | payload | MAC 16

Lengths are checked before a byte is read or allocated, nothing is ever unpickled, every wait has a deadline.
The MAC (``auth.py``) is there once both ends have shown that they know the job's token (``handshake.py``);
nothing is done with a frame before it has been checked. What is sent is not encrypted, as Spark's own traffic
is not by default.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Any, Self

from sparknet.codecs import Bytes
from sparknet.distributed.comm.auth import MAC_BYTES, FrameAuthenticator, Mac
from sparknet.distributed.comm.spread import AT_ONCE, Spread
from sparknet.errors import TrainingError
from sparknet.weights import Vector

_PREFIX = struct.Struct("!4sB3xIQ")
_TIMEVAL = struct.Struct("@ll")
_MAGIC = b"SPKN"
_HEADER_LIMIT = 1 << 16
# Bytes of a payload that are authenticated and sent, or received and checked, while in a core's cache.
_CHUNK = 1 << 20

# Seconds that a kernel can count.
_LONGEST = 1e9

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
    """One connection. ``sent`` and ``received`` count bytes, of whole frames."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._outgoing: FrameAuthenticator | None = None
        self._incoming: FrameAuthenticator | None = None
        self._prefix = memoryview(bytearray(_PREFIX.size))
        self.sent = self.received = 0
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    @classmethod
    def connect(cls, address: tuple[str, int], seconds: float) -> Self:
        """Raises OSError when nobody answers within ``seconds``."""
        return cls(socket.create_connection(address, timeout=seconds))

    @property
    def peer(self) -> str:
        """``host:port`` of the other end."""
        try:
            host, port, *_ = self._socket.getpeername()
        except OSError:
            return "a closed connection"
        return f"{host}:{port}"

    @property
    def host(self) -> str:
        """The address of this end: the one by which the other end's network reaches this machine."""
        return str(self._socket.getsockname()[0])

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
        """Send a frame. Raises OSError, TimeoutError past ``seconds``, if the other end does not take it.

        The payload is ``spread`` over some time that does not count among these.
        """
        deadline = time.monotonic() + seconds + spread.seconds
        text = json.dumps(header).encode()
        head = _PREFIX.pack(_MAGIC, kind, len(text), payload.nbytes) + text
        mac = self._outgoing.next() if self._outgoing else None
        if mac:
            mac.add(head)
        starts = spread.cut(payload.nbytes, _CHUNK)
        for start, stop in spread.paced(pairwise([*starts, max(1, payload.nbytes)]), len(starts)):
            chunk = payload[start:stop]
            if mac:
                mac.add(chunk)
            self._push(deadline, head, chunk, mac.finish() if mac and stop >= payload.nbytes else b"")
            head = b""
        self.sent += _PREFIX.size + len(text) + payload.nbytes + (MAC_BYTES if mac else 0)

    def receive(self, *due: Kind, into: Mapping[Kind, memoryview] | None = None, seconds: float) -> Frame:
        """Wait for a frame of one of the kinds that are ``due``; its payload goes to the start of
        ``into[kind]``.

        Raises TimeoutError past ``seconds``, EOFError when the other end hangs up, OSError when the
        connection breaks or the frame was forged, ExchangeError for anything that is not such a frame or does
        not fit.
        """
        deadline = time.monotonic() + seconds
        mac = self._incoming.next() if self._incoming else None
        self._fill(self._prefix, deadline, mac)
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
        self._fill(memoryview(text), deadline, mac)
        self._fill(buffer[:size], deadline, mac)
        if mac:
            self._check(mac, deadline)
        self.received += _PREFIX.size + header_size + size + (MAC_BYTES if mac else 0)
        return Frame(kind=Kind(kind), header=_parsed(text, self.peer), size=size)

    def close(self) -> None:
        """Close the connection; a thread that waits on this channel wakes with an error."""
        with suppress(OSError):  # never connected, or closed by the other end
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _push(self, deadline: float, *parts: bytes | memoryview) -> None:
        """Send the parts in one call, which the kernel goes on with while it has room."""
        self._wait_at_most(socket.SO_SNDTIMEO, deadline)
        sent = self._in_time(self._socket.sendmsg, parts)
        for part in parts:
            while sent < len(part):
                self._wait_at_most(socket.SO_SNDTIMEO, deadline)
                sent += self._in_time(self._socket.send, part[sent:])
            sent -= len(part)

    def _fill(self, view: memoryview, deadline: float, mac: Mac | None) -> None:
        while view:
            self._wait_at_most(socket.SO_RCVTIMEO, deadline)
            size = min(len(view), _CHUNK)
            # the kernel waits for all of it: no thread wakes, and asks for Python's lock, for a part
            count = self._in_time(self._socket.recv_into, view, size, socket.MSG_WAITALL)
            if not count:
                raise EOFError(f"{self.peer} hung up")
            if mac:
                mac.add(view[:count])
            view = view[count:]

    def _check(self, mac: Mac, deadline: float) -> None:
        given = bytearray(MAC_BYTES)
        self._fill(memoryview(given), deadline, None)
        if not mac.matches(given):
            raise ForgedError(f"a frame from {self.peer} is not as it was sent")

    def _wait_at_most(self, what: int, deadline: float) -> None:
        """Let the kernel wait until the deadline to send or to receive.

        Not ``settimeout``: that makes a socket return as soon as there is anything.
        """
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise self._too_late()
        microseconds = max(1, int(min(remaining, _LONGEST) * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, what, _TIMEVAL.pack(*divmod(microseconds, 1_000_000)))

    def _in_time(self, call: Callable[..., int], *arguments: object) -> int:
        try:
            return call(*arguments)
        except BlockingIOError:
            raise self._too_late() from None

    def _too_late(self) -> TimeoutError:
        return TimeoutError(f"{self.peer} sent or took nothing more in time")


def _parsed(text: bytearray, peer: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as wrong:
        raise ExchangeError(f"{peer} sent a header that is not JSON") from wrong
    if not isinstance(header, dict):
        raise ExchangeError(f"{peer} sent a header that is not a JSON object")
    return header
