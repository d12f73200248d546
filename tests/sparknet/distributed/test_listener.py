"""Who is admitted, and who is refused: strangers, impostors, and members that break the protocol."""

from __future__ import annotations

import logging
import socket
import threading
from contextlib import suppress

import numpy as np
import pytest

from sparknet.distributed.comm.channel import Channel, ExchangeError, Kind
from sparknet.distributed.comm.handshake import Identity, Refused, introduce
from sparknet.training import Settings, train
from tests.sparknet.distributed.fixtures import (
    SETTINGS,
    TEST,
    reference,
    shards_of,
    wait_for,
)
from tests.sparknet.distributed.in_process import TOKEN, in_process
from tests.sparknet.small import digest, small_recipe


@pytest.mark.parametrize(
    "words",
    [
        b"GET / HTTP/1.1\r\nHost: driver\r\n\r\n",
        b"\x00" * 100,
        b"SPKN" + b"\xff" * 16,
        b"SPKN\x02\x00\x00\x00" + (200).to_bytes(4, "big") + (1 << 60).to_bytes(8, "big"),
        b"SPKN\x02\x00\x00\x00" + (2).to_bytes(4, "big") + bytes(8) + b"{}",
        b"SPKN\x02\x00\x00\x00" + (9).to_bytes(4, "big") + bytes(8) + b"[[[[[[[[[",
        b"",
    ],
    ids=["http", "zeros", "unknown kind", "oversized", "not an answer", "not JSON", "nothing"],
)
def test_strangers_are_dropped_and_training_is_unmoved(
    words: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    expected = reference(2)
    with (
        in_process(small_recipe(test_batch_size=8), shards_of(2), TEST) as workers,
        caplog.at_level(logging.WARNING),
    ):
        rounds = train(workers, SETTINGS)
        next(rounds)
        with socket.create_connection(workers.address, timeout=5) as stranger, suppress(OSError):
            stranger.sendall(words)
            stranger.shutdown(socket.SHUT_WR)
            while stranger.recv(4096):  # to the end, or until the connection is closed
                pass
        done = list(rounds)
        assert not [r for r in done if r.result.lost]
    assert digest(done[-1].weights) == digest(expected[-1].weights)
    assert "dropped a connection" in caplog.text


def test_a_silent_stranger_holds_up_nobody() -> None:
    with in_process(small_recipe(), shards_of(1)) as workers:
        strangers = [socket.create_connection(workers.address, timeout=5) for _ in range(20)]
        assert next(train(workers, Settings(rounds=1))).members == (0,)
        for stranger in strangers:
            stranger.close()


def test_only_the_token_admits_a_worker(caplog: pytest.LogCaptureFixture) -> None:
    with in_process(small_recipe(), shards_of(1)) as workers, caplog.at_level(logging.DEBUG):
        channel = Channel.connect(workers.address, 5)
        with pytest.raises(Refused, match="the token is wrong"):
            introduce(channel, b"x" * 32, Identity(partition=0, attempt=9, host="there", pid=1))
        channel.close()
        assert next(train(workers, Settings(rounds=1))).members == (0,)
    assert TOKEN.decode() not in caplog.text


def test_a_driver_without_the_token_is_not_believed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as impostor:

        def pretend() -> None:
            channel = Channel(impostor.accept()[0])
            channel.send(Kind.CHALLENGE, {"nonce": "0"}, seconds=5)
            channel.receive(Kind.ANSWER, seconds=5)
            channel.send(Kind.WELCOME, {"proof": "0" * 64}, seconds=5)
            channel.close()

        threading.Thread(target=pretend, daemon=True).start()
        channel = Channel.connect(impostor.getsockname(), 5)
        with pytest.raises(ExchangeError, match="not the driver of this job"):
            introduce(channel, TOKEN, Identity(partition=0, attempt=0, host="here", pid=1))
        channel.close()


def test_a_member_that_breaks_the_rules_is_dropped() -> None:
    """It joins properly and then announces more weights than there are."""
    with in_process(small_recipe(), shards_of(2)[:1], workers=2) as workers:
        channel = Channel.connect(workers.address, 5)
        introduce(channel, TOKEN, Identity(partition=1, attempt=1, host="there", pid=1))
        size = workers.initial.size
        channel.send(Kind.READY, {"shards": {"1": 5}, "size": size, "iteration": 0, "history": 0}, seconds=5)
        wait_for(workers, 0, 1)
        huge = np.zeros(2 * size, np.float32)

        def misbehave() -> None:
            channel.receive(Kind.TRAIN, into={Kind.TRAIN: memoryview(bytearray(4 * size))}, seconds=5)
            with suppress(OSError):  # the driver need not hear it to the end
                channel.send(Kind.REPORT, {}, huge.data.cast("B"), seconds=5)

        threading.Thread(target=misbehave, daemon=True).start()
        done = next(train(workers, Settings(rounds=1)))
        channel.close()
    assert done.members == (0,)
    assert "announced" in done.result.lost[0]
