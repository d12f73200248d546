"""How long a frame may take: as long as its bytes flow; every wait has an end, and says what it was for."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import numpy as np
import pytest

from sparknet.distributed.comm.channel import Channel, Kind, raw
from sparknet.distributed.timeouts import LEAST_RATE

SIZE = 1 << 20
BUFFER = 1 << 16
VECTOR = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)


@contextmanager
def ends(least_rate: float = LEAST_RATE) -> Iterator[tuple[Channel, socket.socket]]:
    """A channel, and the other end of its connection; little fits in between."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as near:
        for each in (server, near):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        near.connect(server.getsockname())
        far = server.accept()[0]
        channel = Channel(near, least_rate)
        with far:
            yield channel, far
            channel.close()


def bit_by_bit(work: Callable[[int], int], size: int, pause: float = 0.05) -> threading.Thread:
    """Take or give away ``size`` bytes in a thread, little at a time."""

    def go_on() -> None:
        done = 0
        with suppress(OSError):  # the other end has given up
            while done < size and (count := work(done)):
                done += count
                time.sleep(pause)

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    return thread


def frame_of(payload: memoryview) -> bytes:
    """A frame as it is on the wire."""
    with ends() as (channel, far):
        data = bytearray()
        thread = threading.Thread(
            target=lambda: channel.send(Kind.TRAIN, {"a": 1}, payload, seconds=10), daemon=True
        )
        thread.start()
        while len(data) < payload.nbytes + 28:
            data += far.recv(1 << 20)
        thread.join(10)
        return bytes(data)


def test_a_frame_may_take_longer_than_its_deadline_while_the_other_end_takes_it() -> None:
    with ends() as (channel, far):
        began = time.monotonic()
        taking = bit_by_bit(lambda _: len(far.recv(BUFFER)), SIZE + 28)
        channel.send(Kind.TRAIN, {"a": 1}, raw(VECTOR), seconds=0.4)
        assert time.monotonic() - began > 0.4  # it would have been too late
        taking.join(10)
        assert channel.sent == SIZE + 28


def test_a_frame_may_take_longer_than_its_deadline_while_it_arrives() -> None:
    data, into = frame_of(raw(VECTOR)), np.zeros_like(VECTOR)
    with ends() as (channel, far):
        began = time.monotonic()
        bit_by_bit(lambda done: far.send(data[done : done + BUFFER]), len(data))
        channel.receive(Kind.TRAIN, into={Kind.TRAIN: raw(into)}, seconds=0.4)
        assert time.monotonic() - began > 0.4
    assert np.array_equal(into, VECTOR)


def test_whoever_takes_nothing_more_is_given_up() -> None:
    with ends() as (channel, far):
        bit_by_bit(lambda _: len(far.recv(BUFFER)), SIZE // 4)
        late = r"took nothing for 0\.3 s, after [\d,]+ of the 1,048,604 bytes of a TRAIN frame"
        with pytest.raises(TimeoutError, match=late):
            channel.send(Kind.TRAIN, {"a": 1}, raw(VECTOR), seconds=0.3)


def test_whoever_sends_nothing_more_is_given_up() -> None:
    data = frame_of(raw(VECTOR))
    with ends() as (channel, far):
        far.sendall(data[:5000])
        began = time.monotonic()
        late = r"sent nothing for 0\.3 s, after 5,000 of the 1,048,604 bytes of a TRAIN frame"
        with pytest.raises(TimeoutError, match=late):
            channel.receive(Kind.TRAIN, into={Kind.TRAIN: raw(VECTOR.copy())}, seconds=30, stall=0.3)
        assert time.monotonic() - began < 10


def test_an_error_says_what_was_due() -> None:
    with ends() as (channel, _):
        with pytest.raises(TimeoutError, match=r"127\.0\.0\.1:\d+ sent nothing for 0\.1 s, where a PING"):
            channel.receive(Kind.PING, seconds=0.1)
        with pytest.raises(TimeoutError, match="where a TRAIN frame or another was due"):
            channel.receive(Kind.TRAIN, Kind.PING, seconds=0.1)


def test_bytes_that_only_trickle_have_an_end_too() -> None:
    """1 MB/s is the least, and it is half of that."""
    data = frame_of(raw(VECTOR))
    late = r"too little in [\d.]+ s, after [\d,]+ of .*: less than 1,000,000 bytes"
    with ends(least_rate=1e6) as (channel, far):
        bit_by_bit(lambda _: len(far.recv(BUFFER // 2)), SIZE, 0.06)
        with pytest.raises(TimeoutError, match="took " + late):
            channel.send(Kind.TRAIN, {"a": 1}, raw(VECTOR), seconds=0.3)
    with ends(least_rate=1e6) as (channel, far):
        bit_by_bit(lambda done: far.send(data[done : done + BUFFER // 2]), SIZE, 0.06)
        with pytest.raises(TimeoutError, match="sent " + late):
            channel.receive(Kind.TRAIN, into={Kind.TRAIN: raw(VECTOR.copy())}, seconds=0.3)


def test_a_connection_that_ends_wakes_whoever_waits() -> None:
    with ends() as (channel, _):
        threading.Timer(0.2, channel.hang_up).start()
        with pytest.raises((EOFError, OSError), match=re.escape(channel.peer)):
            channel.receive(Kind.PING, seconds=30)
