"""Whoever finds the driver's port scans, floods, crowds it: it does not harm training, and is logged."""

from __future__ import annotations

import logging
import random
import socket
import struct
import threading
import time
from contextlib import suppress

import psutil
import pytest

from sparknet.distributed import listener
from sparknet.distributed.comm import handshake
from sparknet.training import Settings, train
from tests.sparknet.distributed.fixtures import shards_of
from tests.sparknet.distributed.in_process import InProcessWorkers, in_process
from tests.sparknet.small import digest, small_recipe

ROUNDS = Settings(rounds=20, tau=2)
GIGABYTE = 1 << 30
HEADER = b"SPKN\x02\x00\x00\x00" + (200).to_bytes(4, "big") + GIGABYTE.to_bytes(8, "big")


def trained_beside(workers: InProcessWorkers, stranger: threading.Thread) -> str:
    """The digest of the weights after ``ROUNDS``, the stranger at work meanwhile."""
    rounds = train(workers, ROUNDS)
    done = [next(rounds)]
    stranger.start()
    done += list(rounds)
    stranger.join(60)
    assert not stranger.is_alive()
    assert not [one for one in done if one.result.lost]
    return digest(done[-1].weights)


@pytest.fixture(scope="module")
def undisturbed() -> str:
    with in_process(small_recipe(), shards_of(2)) as workers:
        return digest(list(train(workers, ROUNDS))[-1].weights)


@pytest.mark.parametrize("first", [b"", HEADER], ids=["zeros", "announced"])
def test_a_gigabyte_is_not_taken_in(first: bytes, undisturbed: str, caplog: pytest.LogCaptureFixture) -> None:
    taken = 0

    def flood() -> None:
        nonlocal taken
        chunk = bytes(1 << 20)
        with socket.create_connection(workers.address, timeout=20) as stranger, suppress(OSError):
            stranger.sendall(first)
            while taken < GIGABYTE:
                taken += stranger.send(chunk)

    with caplog.at_level(logging.WARNING), in_process(small_recipe(), shards_of(2)) as workers:
        assert trained_beside(workers, threading.Thread(target=flood)) == undisturbed
    assert taken < 64 << 20  # what sockets hold before their other end hangs up
    assert "dropped a connection" in caplog.text


def scan(address: tuple[str, int]) -> None:
    for _ in range(300):
        with suppress(OSError), socket.create_connection(address, timeout=5) as stranger:
            # close with a reset, as scanners do
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_port_may_be_scanned(undisturbed: str) -> None:
    with in_process(small_recipe(), shards_of(2)) as workers:
        assert trained_beside(workers, threading.Thread(target=scan, args=[workers.address])) == undisturbed


def test_whoever_finds_where_workers_meet_and_average_does_not_disturb_them(undisturbed: str) -> None:
    """torch.distributed listens there, in the driver and in every worker."""
    taken: dict[int, int] = {}
    others = listening()

    def disturb() -> None:
        for port in listening() - others - {workers.coordinator.port}:
            taken[port] = 0
            scan(("127.0.0.1", port))
            for garbage in (bytes(4096), random.Random(0).randbytes(4096)):
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as stranger:
                    stranger.sendall(garbage)
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as stranger:
                while taken[port] < GIGABYTE:
                    taken[port] += stranger.send(bytes(1 << 20))

    with in_process(small_recipe(), shards_of(2), ring=True) as workers:
        assert trained_beside(workers, threading.Thread(target=disturb)) == undisturbed
    assert len(taken) == 3  # the store, and a worker's each
    assert max(taken.values()) < 64 << 20


def listening() -> set[int]:
    connections = psutil.Process().net_connections("tcp")
    return {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}


def test_a_crowd_of_connections_delays_a_worker_for_no_longer_than_a_handshake_may_take(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(handshake, "HANDSHAKE_SECONDS", 1.0)
    with caplog.at_level(logging.WARNING), in_process(small_recipe(), [], workers=1) as workers:
        crowd = [
            socket.create_connection(workers.address, timeout=5)
            for _ in range(listener._UNAUTHENTICATED + 20)
        ]
        workers.join(0, shards_of(1)[0])
        assert next(train(workers, Settings(rounds=1))).members == (0,)
        for stranger in crowd:
            stranger.close()
    assert "turned a connection away" in caplog.text


def test_one_that_drips_is_dropped_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A byte now and then does not buy more time."""
    monkeypatch.setattr(handshake, "HANDSHAKE_SECONDS", 1.0)
    with caplog.at_level(logging.WARNING), in_process(small_recipe(), shards_of(1)) as workers:
        next(train(workers, Settings(rounds=1)))
        with socket.create_connection(workers.address, timeout=30) as stranger, suppress(OSError):
            for byte in HEADER * 50:
                stranger.send(bytes([byte]))
                if "dropped a connection" in caplog.text:
                    break
                time.sleep(0.1)
    assert "dropped a connection" in caplog.text
