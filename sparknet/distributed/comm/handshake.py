"""How a worker and its driver prove to each other that they belong to one job.

    driver ── CHALLENGE(nonce d) ──────────────────────────────> worker
    driver <─ ANSWER(nonce w, who, HMAC(token, d, w, who)) ────── worker
    driver ── WELCOME(HMAC(token, w, d)) or REFUSED(reason) ───> worker

The token is drawn for each job and travels inside the Spark task. From token and nonces both ends then draw
one key for each direction, and every frame after these three is authenticated with it (``auth.py``).
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass

from sparknet.distributed.comm.channel import Channel, ExchangeError, Frame, Kind
from sparknet.distributed.comm.steps import Steps
from sparknet.errors import TrainingError

HANDSHAKE_SECONDS = 10.0


class Refused(TrainingError):  # noqa: N818 - what the driver did
    """The driver refused this worker: another attempt took its place, or the token is wrong."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Which attempt of which partition a worker is, and where; Spark uses an attempt's number only once."""

    partition: int
    attempt: int
    host: str
    pid: int

    def __str__(self) -> str:
        return f"worker {self.partition} (attempt {self.attempt}, {self.host}, process {self.pid})"


def admit(channel: Channel, token: bytes, refusal: Callable[[Identity], str | None]) -> Steps[Identity]:
    """The driver's side of the handshake, in steps: identify the worker, and admit it unless ``refusal``
    names a reason.

    Raises ExchangeError when the other end does not hold the token or is refused.
    """
    mine = secrets.token_hex(16)
    yield from channel.sending(Kind.CHALLENGE, {"nonce": mine}, seconds=HANDSHAKE_SECONDS)
    frame = yield from channel.receiving(Kind.ANSWER, seconds=HANDSHAKE_SECONDS)
    who, theirs, proof = _answer(frame, channel.peer)
    genuine = _same(_proof(token, "worker", mine, theirs, who), proof)
    reason = refusal(who) if genuine else "the token is wrong"
    if reason:
        yield from channel.sending(Kind.REFUSED, {"reason": reason}, seconds=HANDSHAKE_SECONDS)
        raise ExchangeError(f"{channel.peer} was refused: {reason}")
    proof = _proof(token, "driver", theirs, mine, who)
    yield from channel.sending(Kind.WELCOME, {"proof": proof}, seconds=HANDSHAKE_SECONDS)
    down, up = _keys(token, mine, theirs, who)
    channel.authenticate(sent=down, received=up)
    return who


def introduce(channel: Channel, token: bytes, who: Identity) -> None:
    """The worker's side. Raises Refused if the driver says so, ExchangeError if it is not the driver."""
    challenge = channel.receive(Kind.CHALLENGE, seconds=HANDSHAKE_SECONDS)
    theirs, mine = str(challenge.header.get("nonce")), secrets.token_hex(16)
    header = {**asdict(who), "nonce": mine, "proof": _proof(token, "worker", theirs, mine, who)}
    channel.send(Kind.ANSWER, header, seconds=HANDSHAKE_SECONDS)
    verdict = channel.receive(Kind.WELCOME, Kind.REFUSED, seconds=HANDSHAKE_SECONDS)
    if verdict.kind is Kind.REFUSED:
        raise Refused(f"the driver refused {who}: {verdict.header.get('reason')}")
    if not _same(_proof(token, "driver", mine, theirs, who), str(verdict.header.get("proof"))):
        raise ExchangeError(f"{channel.peer} is not the driver of this job: it does not hold its token")
    down, up = _keys(token, theirs, mine, who)
    channel.authenticate(sent=up, received=down)


def _answer(frame: Frame, peer: str) -> tuple[Identity, str, str]:
    header = frame.header
    try:
        who = Identity(
            partition=int(header["partition"]),
            attempt=int(header["attempt"]),
            host=str(header["host"])[:255],
            pid=int(header["pid"]),
        )
        return who, str(header["nonce"]), str(header["proof"])
    except (KeyError, TypeError, ValueError, OverflowError) as wrong:
        raise ExchangeError(f"{peer} sent an answer that cannot be read") from wrong


def _keys(token: bytes, drivers_nonce: str, workers_nonce: str, who: Identity) -> tuple[bytes, bytes]:
    """The keys of what the driver sends, and of what the worker sends."""
    down, up = (
        _code(token, way, drivers_nonce, workers_nonce, who).digest() for way in ("frames down", "frames up")
    )
    return down, up


def _proof(token: bytes, role: str, first_nonce: str, second_nonce: str, who: Identity) -> str:
    return _code(token, role, first_nonce, second_nonce, who).hexdigest()


def _code(token: bytes, role: str, first_nonce: str, second_nonce: str, who: Identity) -> hmac.HMAC:
    text = json.dumps([role, first_nonce, second_nonce, *asdict(who).values()])
    return hmac.new(token, text.encode(), "sha256")


def _same(proof: str, given: str) -> bool:
    return hmac.compare_digest(proof.encode(), given.encode(errors="replace"))
