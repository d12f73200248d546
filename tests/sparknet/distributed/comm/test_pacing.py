"""Frames in parts: the rate at which they leave falls, and their deadlines hold.

A test moves the sender's clock, and takes its bytes from a real socket.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable
from itertools import accumulate

import numpy as np
import pytest

from sparknet import clock
from sparknet.distributed.comm.channel import Channel, Kind, raw
from sparknet.distributed.comm.spread import AT_ONCE, SHARE, Spread
from sparknet.distributed.timeouts import Timeouts

SIZE = 3_000_000
VECTOR = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)
SECONDS = 5.0


class SlowSender:
    """A channel whose clock stands still but for pauses; ``taken`` has the bytes at each time."""

    def __init__(self, receives: Callable[[float], bool] = lambda _: True) -> None:
        self.now = 100.0
        self.receives = receives
        self.taken: list[tuple[float, int]] = []

    def send(self, spread: Spread) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            near = socket.socket()
            for end in (server, near):  # little fits in between
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            near.connect(server.getsockname())
            channel, far = Channel(near), server.accept()[0]
        with far, clock.of(lambda: self.now):
            far.setblocking(False)
            steps = channel.sending(Kind.TRAIN, {}, raw(VECTOR), seconds=SECONDS, spread=spread)
            try:
                wait = next(steps)
                while True:
                    self.drain(far)
                    ready = bool(wait.events) and self.has_room(channel)
                    if not ready:
                        self.now = wait.until
                    wait = steps.send(ready)
            except StopIteration:
                self.drain(far, whole=True)
            finally:
                channel.close()

    def has_room(self, channel: Channel) -> bool:
        return self.receives(self.now) and bool(select.select([], [channel.socket], [], 2)[1])

    def drain(self, far: socket.socket, *, whole: bool = False) -> None:
        while self.receives(self.now):
            left = SIZE + 22 - sum(count for _, count in self.taken)
            if not select.select([far], [], [], 2 if whole and left else 0.01)[0]:
                return
            self.taken.append((self.now, len(far.recv(1 << 20))))

    def peak(self, seconds: float) -> int:
        """The most bytes that left within so many seconds."""
        times = sorted({at for at, _ in self.taken})
        return max(
            sum(count for at, count in self.taken if start <= at < start + seconds - 1e-9) for start in times
        )


@pytest.mark.parametrize("parts", [2, 5, 12])
def test_the_peak_rate_falls_by_as_many_parts_as_there_are(parts: int) -> None:
    """In no time as long as a part has more than a part leaves, and evenly; at once, all of it does."""
    at_once, spread = SlowSender(), SlowSender()
    at_once.send(AT_ONCE)
    spread.send(Spread(parts=parts, seconds=12.0))
    assert at_once.peak(0.001) == SIZE + 22
    piece = min(1 << 20, -(-SIZE // parts))  # what is authenticated at a time is the most
    pieces = -(-SIZE // piece)
    assert spread.peak(12.0 / pieces) <= piece + 22
    sums = list(accumulate(count for _, count in spread.taken))
    assert sums[-1] == SIZE + 22
    for (at, _), total in zip(spread.taken, sums, strict=True):
        assert total <= piece * (1 + (at - 100.0) / 12.0 * pieces) + 23


def test_pauses_between_parts_do_not_count_against_the_deadline() -> None:
    """Longer in all than a frame may take, and each longer than nothing may move."""
    sender = SlowSender()
    sender.send(Spread(parts=5, seconds=20 * SECONDS))
    assert sender.now == 100 + 0.8 * 20 * SECONDS
    assert sum(count for _, count in sender.taken) == SIZE + 22


def test_a_part_that_nobody_takes_has_the_deadline_of_any_frame() -> None:
    stops = 100 + 2 * SECONDS
    sender = SlowSender(receives=lambda now: now < stops)
    with pytest.raises(TimeoutError, match=r"took nothing for 5 s, after [\d,]+ of the 3,000,022 bytes"):
        sender.send(Spread(parts=30, seconds=30 * SECONDS))
    assert stops <= sender.now - SECONDS <= stops + 3 * SECONDS  # the system had room for some parts


@pytest.mark.parametrize("round_seconds", [0.1, 3.0, 50.0, 4000.0])
@pytest.mark.parametrize("parts", [2, 8, 100])
@pytest.mark.parametrize("timeouts", [Timeouts(), Timeouts(send=10, ping=1), Timeouts(send=3, ping=60)])
def test_whoever_receives_parts_waits_for_the_next_one_long_enough(
    round_seconds: float, parts: int, timeouts: Timeouts
) -> None:
    """A worker waits for six pings, the driver for ``send`` seconds, both without the pauses."""
    spread = Spread.over(parts, SHARE * round_seconds, timeouts)
    assert spread.seconds <= SHARE * round_seconds
    for seconds in (6 * timeouts.ping, timeouts.send):
        assert spread.due(parts, parts) <= seconds / 2
