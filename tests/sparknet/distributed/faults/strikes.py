"""Faults inside a worker's process, at the protocol events of its end of the conversation."""

from __future__ import annotations

import json
import mmap
import os
import signal
import socket
import struct
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from sparknet.distributed.comm.channel import NOTHING, Channel, Frame, Header, Kind
from sparknet.distributed.comm.spread import AT_ONCE, Spread
from tests.sparknet.distributed.faults.plan import Strike

CUT_SECONDS = 4.0
"""A cut heals after so long even if no round is made meanwhile."""

NOTICE = "notice"
"""In the folder of a host, the file that says that it is taken back."""

PAUSE_SECONDS = 0.3
"""Of a worker that is slow for once."""


class Board:
    """What the processes of a run tell each other, in shared memory: the driver's round, and which strikes
    have come."""

    _SLOTS = 512

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8 * self._SLOTS)

    @property
    def round(self) -> int:
        return self._at(0)

    @round.setter
    def round(self, number: int) -> None:
        self._put(0, number)

    def struck(self, number: int) -> bool:
        return self._at(number + 1) > 0

    def strike(self, number: int) -> None:
        self._put(number + 1, 1 + self.round)

    def struck_in(self, number: int) -> int:
        """The driver's round in which it came."""
        return self._at(number + 1) - 1

    def _at(self, place: int) -> int:
        return int(struct.unpack_from("q", self._memory, 8 * place)[0])

    def _put(self, place: int, value: int) -> None:
        struct.pack_into("q", self._memory, 8 * place, value)


class Arm:
    """The strikes of one worker's process, by their numbers in the plan."""

    def __init__(self, board: Board, strikes: Mapping[int, Strike]) -> None:
        self._board, self._strikes = board, dict(strikes)
        self._came: Counter[str] = Counter()
        self.cut: tuple[int, float] | None = None

    def come_to(self, event: str, channel: FaultyChannel | None = None) -> None:
        self._came[event] += 1
        for number, strike in list(self._strikes.items()):
            if strike.event == event and strike.nth <= self._came[event]:
                del self._strikes[number]
                self._board.strike(number)
                self._do(strike, channel)

    @property
    def is_cut(self) -> bool:
        if self.cut is None:
            return False
        until, latest = self.cut
        if self._board.round >= until or time.monotonic() >= latest:
            self.cut = None
        return self.cut is not None

    def _do(self, strike: Strike, channel: FaultyChannel | None) -> None:
        match strike.what:
            case "notice":
                put_down(Path(os.environ["SPARK_LOCAL_DIRS"]))
            case "kill" | "host":
                os.kill(os.getpid(), signal.SIGKILL)
            case "torn":
                if channel:
                    channel.tear()
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "cut":
                self.cut = (self._board.round + strike.rounds, time.monotonic() + CUT_SECONDS)
                FaultyChannel.silence_all()
            case "hang up":
                FaultyChannel.hang_up_all()
            case "slow":
                time.sleep(PAUSE_SECONDS)
            case "error":
                raise RuntimeError("struck")


def put_down(folder: Path) -> None:
    """The notice of a machine that is taken back now."""
    new = folder / "notice.new"
    new.write_text(json.dumps({"action": "terminate", "time": "now", "seconds": 0}))
    new.rename(folder / NOTICE)


_arm: Arm | None = None


def arm(board: Board, strikes: Mapping[int, Strike]) -> None:
    global _arm
    _arm = Arm(board, strikes)


def come_to(event: str, channel: FaultyChannel | None = None) -> None:
    if _arm is not None:
        _arm.come_to(event, channel)


class FaultyChannel(Channel):
    """A worker's channel to the driver."""

    _open: list[FaultyChannel] = []  # noqa: RUF012 - those of this process
    _kept: list[object] = []  # noqa: RUF012 - the sockets of cut connections, which must not be closed

    @classmethod
    def connect(cls, address: tuple[str, int], seconds: float) -> Self:
        if _arm is not None and _arm.is_cut:
            time.sleep(0.02)
            raise TimeoutError("timed out")
        made = super().connect(address, seconds)
        cls._open.append(made)
        return made

    def send(
        self,
        kind: Kind,
        header: Header,
        payload: memoryview = NOTHING,
        *,
        seconds: float,
        spread: Spread = AT_ONCE,
    ) -> None:
        come_to(f"sends {kind.name}", self)
        super().send(kind, header, payload, seconds=seconds, spread=spread)
        come_to(f"sent {kind.name}", self)

    def receive(self, *due: Kind, into: Mapping[Kind, memoryview] | None = None, seconds: float) -> Frame:
        frame = super().receive(*due, into=into, seconds=seconds)
        come_to(f"received {frame.kind.name}", self)
        return frame

    def tear(self) -> None:
        """Send the beginning of a frame and nothing more."""
        self.socket.sendall(b"SPKN\x07\0\0\0\0\0")

    @classmethod
    def silence_all(cls) -> None:
        """From here on nothing comes or goes, and neither end is told."""
        for channel in cls._open:
            silent, other = socket.socketpair()
            silent.setblocking(False)
            cls._kept += [channel.socket, other]
            channel.socket = silent
        cls._open.clear()

    @classmethod
    def hang_up_all(cls) -> None:
        for channel in cls._open:
            channel.close()
        cls._open.clear()


def strikes_of(strikes: Sequence[Strike], shard: int, life: int) -> dict[int, Strike]:
    """By number in the plan."""
    return {
        number: strike
        for number, strike in enumerate(strikes)
        if strike.shard == shard and strike.life == life
    }
