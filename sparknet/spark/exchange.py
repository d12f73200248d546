"""Frames on a socket between the driver and its workers, and the handshake that lets only them talk.

A frame is a fixed header, a note (JSON, a few hundred bytes) and a payload (bytes of a vector, or nothing):

    "SPKN" | kind 1 byte | zero 3 | length of the note 4 | length of the payload 8 | note | payload

Lengths are checked before a byte is read or allocated, nothing is ever unpickled, every wait has a deadline.

    driver ── CHALLENGE(nonce d) ──────────────────────────────> worker
    driver <─ ANSWER(nonce w, who, HMAC(token, d, w, who)) ────── worker
    driver ── WELCOME(HMAC(token, w, d)) or REFUSED(reason) ───> worker

The token is drawn for each job and travels inside the Spark task. The handshake proves that both ends hold
it; the frames after it are neither signed nor encrypted, as Spark's own traffic is not unless it is told
to.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import struct
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any, Self

from sparknet.errors import TrainingError
from sparknet.weights import Vector
from sparknet.wire import Bytes

_HEADER = struct.Struct("!4sB3xIQ")
_MAGIC = b"SPKN"
_NOTE_LIMIT = 1 << 16

HANDSHAKE_SECONDS = 10.0

Note = Mapping[str, Any]
NOTHING = memoryview(b"")


class Kind(IntEnum):
    """What a frame is for. ``d`` is sent by the driver, ``w`` by a worker."""

    CHALLENGE = 1  # d
    ANSWER = 2  # w
    WELCOME = 3  # d
    REFUSED = 4  # d: the reason; do not come back
    READY = 5  # w: how many records it drained
    TRAIN = 6  # d: an order, and the weights unless the worker holds them
    REPORT = 7  # w: what it did, and its weights
    TEST = 8  # d: a slice, and the weights unless the worker holds them
    SCORES = 9  # w
    PING = 10  # d: still here, nothing to do
    STOP = 11  # d: the job is done
    FAILED = 12  # w: an exception
    SAVE = 13  # d: send your state
    STATE = 14  # w: its state, the solver's history as payload
    RESTORE = 15  # d: go on from this state; not answered
    CHANGE = 16  # d: how the weights differ from the last ones, encoded; not answered
    REDUCE = 17  # d: average with the others
    REDUCED = 18  # w: whether that went well; the mean, if it was asked for
    COMMIT = 19  # d: the others have it too, go on from it; not answered


class ExchangeError(TrainingError):
    """The other end broke the rules: not a frame of ours, too long, or not what was due."""


class Refused(TrainingError):  # noqa: N818 - what the driver did
    """The driver will not have this worker: another attempt took its place, or the token is wrong."""


def raw(vector: Vector | Bytes) -> memoryview:
    """The bytes of ``vector``, not a copy of them."""
    return vector.data.cast("B") if vector.size else NOTHING


@dataclass(frozen=True, kw_only=True)
class Frame:
    """``size`` bytes of payload lie at the start of the buffer the frame was received into."""

    kind: Kind
    note: dict[str, Any]
    size: int


class Channel:
    """One connection. ``sent`` and ``received`` count bytes, frames' headers included."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self.sent = self.received = 0
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

    def send(self, kind: Kind, note: Note, payload: memoryview = NOTHING, *, seconds: float) -> None:
        """Send a frame. Raises OSError, TimeoutError past ``seconds``, if the other end does not take it."""
        text = json.dumps(note).encode()
        self._socket.settimeout(seconds)
        self._socket.sendall(_HEADER.pack(_MAGIC, kind, len(text), payload.nbytes) + text)
        if payload:
            self._socket.sendall(payload)
        self.sent += _HEADER.size + len(text) + payload.nbytes

    def receive(self, *due: Kind, into: Mapping[Kind, memoryview] | None = None, seconds: float) -> Frame:
        """Wait for a frame of one of the kinds that are ``due``; its payload goes to the start of
        ``into[kind]``.

        Raises TimeoutError past ``seconds``, EOFError when the other end hangs up, OSError when the
        connection breaks, ExchangeError for anything that is not such a frame or does not fit.
        """
        deadline = time.monotonic() + seconds
        header = bytearray(_HEADER.size)
        self._fill(memoryview(header), deadline)
        magic, kind, note_size, size = _HEADER.unpack(header)
        if magic != _MAGIC:
            raise ExchangeError(f"{self.peer} sent something that is not a frame of this program")
        if kind not in due:
            raise ExchangeError(
                f"{self.peer} sent a frame of kind {kind} where {', '.join(d.name for d in due)} was due"
            )
        buffer = (into or {}).get(kind, NOTHING)
        if note_size > _NOTE_LIMIT or size > buffer.nbytes:
            raise ExchangeError(
                f"{self.peer} announced a note of {note_size:,} and a payload of {size:,} bytes; "
                f"at most {_NOTE_LIMIT:,} and {buffer.nbytes:,} are due"
            )
        text = bytearray(note_size)
        self._fill(memoryview(text), deadline)
        self._fill(buffer[:size], deadline)
        self.received += _HEADER.size + note_size + size
        return Frame(kind=Kind(kind), note=_parsed(text, self.peer), size=size)

    def close(self) -> None:
        """Hang up; a thread that waits on this channel wakes with an error."""
        with suppress(OSError):  # never connected, or the other end was faster
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _fill(self, view: memoryview, deadline: float) -> None:
        while view:
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError(f"{self.peer} sent nothing more in time")
            self._socket.settimeout(remaining)
            count = self._socket.recv_into(view)
            if not count:
                raise EOFError(f"{self.peer} hung up")
            view = view[count:]


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which attempt of which partition is speaking, and from where; Spark numbers attempts but once."""

    partition: int
    attempt: int
    host: str
    pid: int

    def __str__(self) -> str:
        return f"worker {self.partition} (attempt {self.attempt}, {self.host}, process {self.pid})"


def admit(channel: Channel, token: bytes, refusal: Callable[[Identity], str | None]) -> Identity:
    """The driver's side of the handshake: find out who is there, and let it in unless ``refusal`` names a
    reason.

    Raises ExchangeError when the other end does not hold the token or is refused.
    """
    mine = secrets.token_hex(16)
    channel.send(Kind.CHALLENGE, {"nonce": mine}, seconds=HANDSHAKE_SECONDS)
    who, theirs, proof = _answer(channel.receive(Kind.ANSWER, seconds=HANDSHAKE_SECONDS), channel.peer)
    genuine = _same(_proof(token, "worker", mine, theirs, who), proof)
    reason = refusal(who) if genuine else "the token is wrong"
    if reason:
        channel.send(Kind.REFUSED, {"reason": reason}, seconds=HANDSHAKE_SECONDS)
        raise ExchangeError(f"{channel.peer} was refused: {reason}")
    channel.send(
        Kind.WELCOME, {"proof": _proof(token, "driver", theirs, mine, who)}, seconds=HANDSHAKE_SECONDS
    )
    return who


def introduce(channel: Channel, token: bytes, who: Identity) -> None:
    """The worker's side. Raises Refused if the driver says so, ExchangeError if it is not the driver."""
    challenge = channel.receive(Kind.CHALLENGE, seconds=HANDSHAKE_SECONDS)
    theirs, mine = str(challenge.note.get("nonce")), secrets.token_hex(16)
    note = {**asdict(who), "nonce": mine, "proof": _proof(token, "worker", theirs, mine, who)}
    channel.send(Kind.ANSWER, note, seconds=HANDSHAKE_SECONDS)
    verdict = channel.receive(Kind.WELCOME, Kind.REFUSED, seconds=HANDSHAKE_SECONDS)
    if verdict.kind is Kind.REFUSED:
        raise Refused(f"the driver refused {who}: {verdict.note.get('reason')}")
    if not _same(_proof(token, "driver", mine, theirs, who), str(verdict.note.get("proof"))):
        raise ExchangeError(f"{channel.peer} is not the driver of this job: it does not hold its token")


def _answer(frame: Frame, peer: str) -> tuple[Identity, str, str]:
    note = frame.note
    try:
        who = Identity(
            partition=int(note["partition"]),
            attempt=int(note["attempt"]),
            host=str(note["host"])[:255],
            pid=int(note["pid"]),
        )
        return who, str(note["nonce"]), str(note["proof"])
    except (KeyError, TypeError, ValueError, OverflowError) as wrong:
        raise ExchangeError(f"{peer} sent an answer that cannot be read") from wrong


def _proof(token: bytes, role: str, first_nonce: str, second_nonce: str, who: Identity) -> str:
    text = json.dumps([role, first_nonce, second_nonce, *asdict(who).values()])
    return hmac.new(token, text.encode(), "sha256").hexdigest()


def _same(proof: str, given: str) -> bool:
    return hmac.compare_digest(proof.encode(), given.encode(errors="replace"))


def _parsed(text: bytearray, peer: str) -> dict[str, Any]:
    try:
        note = json.loads(text)
    except (ValueError, RecursionError) as wrong:
        raise ExchangeError(f"{peer} sent a note that is not JSON") from wrong
    if not isinstance(note, dict):
        raise ExchangeError(f"{peer} sent a note that is not a JSON object")
    return note
