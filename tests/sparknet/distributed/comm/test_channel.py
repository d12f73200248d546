"""Frames: what arrives is what was sent, in its order, or the connection is of no use."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import numpy as np
import pytest

from sparknet.distributed.comm.channel import Channel, ExchangeError, ForgedError, Kind, raw
from sparknet.distributed.comm.handshake import Identity, admit, introduce
from sparknet.distributed.comm.steps import run
from sparknet.training import Settings, train
from tests.sparknet.distributed.fixtures import shards_of
from tests.sparknet.distributed.in_process import in_process
from tests.sparknet.small import digest, small_recipe

DOWN, UP = b"d" * 32, b"u" * 32
WEIGHTS = np.arange(1000, dtype=np.float32)


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        return near, server.accept()[0]


def taken(end: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += end.recv(1 << 20)
    return data


def written(*headers: dict[str, int], key: bytes | None = DOWN) -> list[bytes]:
    """The bytes of authenticated frames with ``WEIGHTS``, frame by frame."""
    near, far = pair()
    with near, far:
        channel = Channel(near)
        if key:
            channel.authenticate(sent=key, received=UP)
        frames = []
        for header in headers:
            channel.send(Kind.TRAIN, header, raw(WEIGHTS), seconds=5)
            frames.append(taken(far, channel.sent - sum(map(len, frames))))
    return frames


def read(*frames: bytes) -> list[tuple[dict[str, int], float]]:
    """The headers of the frames, and the sums of what came with them."""
    near, far = pair()
    with near, far:
        channel = Channel(near)
        channel.authenticate(sent=UP, received=DOWN)
        far.sendall(b"".join(frames))
        buffer = np.empty_like(WEIGHTS)
        found = []
        for _ in frames:
            frame = channel.receive(Kind.TRAIN, into={Kind.TRAIN: raw(buffer)}, seconds=5)
            found.append((frame.header, float(buffer.sum())))
    return found


def test_what_was_sent_arrives() -> None:
    frames = written({"tau": 1}, {"tau": 2})
    assert read(*frames) == [({"tau": 1}, WEIGHTS.sum()), ({"tau": 2}, WEIGHTS.sum())]


FORGERIES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a bit of the weights": lambda frames: [
        frames[0][:2000] + bytes([frames[0][2000] ^ 1]) + frames[0][2001:]
    ],
    "a digit of the header": lambda frames: [frames[0].replace(b'"tau": 1', b'"tau": 9')],
    "the MAC": lambda frames: [frames[0][:-1] + bytes([frames[0][-1] ^ 128])],
    "one again": lambda frames: [frames[0], frames[0]],
    "one left out": lambda frames: [frames[1]],
    "two exchanged": lambda frames: [frames[1], frames[0]],
    "another key": lambda frames: written({"tau": 1}, key=b"x" * 32),
    "no MAC, and another frame's bytes for it": lambda frames: [written({"tau": 1}, key=None)[0] + bytes(16)],
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_frame_that_was_tampered_with_is_not_believed(forge: Callable[[list[bytes]], list[bytes]]) -> None:
    with pytest.raises(ForgedError, match="not as it was sent"):
        read(*forge(written({"tau": 1}, {"tau": 2})))


def test_a_frame_for_the_other_direction_is_not_believed() -> None:
    with pytest.raises(ForgedError):
        read(*written({"tau": 1}, key=UP))


def test_both_ends_draw_the_same_keys_and_each_connection_its_own() -> None:
    who = Identity(partition=0, attempt=0, host="here", pid=1)
    first_bytes = []
    for _ in range(2):
        near, far = pair()
        driver, worker = Channel(near), Channel(far)
        thread = threading.Thread(target=introduce, args=(worker, b"t" * 32, who))
        thread.start()
        run(near, admit(driver, b"t" * 32, lambda _: None))
        thread.join(5)
        driver.send(Kind.PING, {}, seconds=5)
        first_bytes.append(far.recv(1 << 10, socket.MSG_PEEK))
        assert worker.receive(Kind.PING, seconds=5).kind is Kind.PING
        worker.send(Kind.READY, {"records": 1}, seconds=5)
        assert driver.receive(Kind.READY, seconds=5).header == {"records": 1}
        driver.close()
        worker.close()
    assert first_bytes[0][:-16] == first_bytes[1][:-16]
    assert first_bytes[0][-16:] != first_bytes[1][-16:]


@pytest.mark.parametrize("size", [1, 1 << 18, (1 << 20) + 12, 5 << 20])
def test_payloads_of_any_size_arrive_whole_and_are_counted(size: int) -> None:
    near, far = pair()
    sender, receiver = Channel(near), Channel(far)
    sender.authenticate(sent=DOWN, received=UP)
    receiver.authenticate(sent=UP, received=DOWN)
    data = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    buffer = np.zeros_like(data)
    thread = threading.Thread(target=sender.send, args=(Kind.DELTA, {}, raw(data)), kwargs={"seconds": 20})
    thread.start()
    frame = receiver.receive(Kind.DELTA, into={Kind.DELTA: raw(buffer)}, seconds=20)
    thread.join(20)
    assert frame.size == size
    assert np.array_equal(buffer, data)
    assert sender.sent == receiver.received == 20 + 2 + size + 16
    sender.close()
    receiver.close()


def test_waiting_has_an_end_on_both_sides() -> None:
    near, far = pair()
    channel, silent = Channel(near), Channel(far)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        channel.receive(Kind.PING, seconds=0.2)
    with pytest.raises(TimeoutError):  # nobody takes it
        channel.send(Kind.TRAIN, {}, raw(np.zeros(8 << 20, np.uint8)), seconds=0.2)
    assert time.monotonic() - started < 10
    channel.close()
    silent.close()


def test_a_payload_that_nobody_asked_for_is_refused_before_it_is_read() -> None:
    near, far = pair()
    with near, far:
        channel = Channel(near)
        channel.authenticate(sent=UP, received=DOWN)
        far.sendall(written({"tau": 1})[0])
        with pytest.raises(ExchangeError, match="payload of 4,000 bytes"):
            channel.receive(Kind.TRAIN, seconds=5)


def test_a_forged_frame_costs_the_connection_and_the_round_but_not_the_worker() -> None:
    """What a worker sends is changed on its way, once: it is dropped, comes back and goes on."""
    with in_process(small_recipe(), shards_of(2)) as workers:
        rounds = train(workers, Settings(rounds=1_000_000, tau=2))
        assert next(rounds).members == (0, 1)
        victim = workers.coordinator.membership.all[1]
        victim.channel._incoming.next()  # type: ignore[union-attr]  # a MAC that is never to match again
        assert "not as it was sent" in " ".join(next(rounds).result.lost)
        deadline = time.monotonic() + 20
        while next(rounds).members != (0, 1):
            assert time.monotonic() < deadline
        assert workers.endings == {}
        assert digest(workers.coordinator._versions.vector)
