"""A log that strangers can write to keeps its size."""

from __future__ import annotations

import logging
import socket

import pytest

from sparknet.distributed.limited_log import MOST, LimitedLog
from tests.sparknet.distributed.fixtures import TEST, shards_of, wait_until
from tests.sparknet.distributed.in_process import in_process
from tests.sparknet.small import small_recipe


def test_so_many_warnings_pass_in_a_while_and_then_their_number(caplog: pytest.LogCaptureFixture) -> None:
    clock = [0.0]
    limited = LimitedLog(logging.getLogger("test"), most=3, seconds=60, now=lambda: clock[0])
    for number in range(1000):
        clock[0] = number / 20
        limited.warning("stranger %d", number)
    assert caplog.messages == ["stranger 0", "stranger 1", "stranger 2"]
    clock[0] = 61
    limited.warning("later")
    assert caplog.messages[3:] == ["997 more such warnings in 61 s", "later"]
    limited.flush()
    assert len(caplog.messages) == 5


def test_a_thousand_strangers_do_not_fill_the_drivers_log(caplog: pytest.LogCaptureFixture) -> None:
    with in_process(small_recipe(test_batch_size=8), shards_of(1), TEST) as workers:
        with caplog.at_level(logging.WARNING):
            for _ in range(300):
                with socket.create_connection(workers.address, timeout=5) as stranger:
                    stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
            wait_until(lambda: len(caplog.messages) >= MOST)
        said = [one for one in caplog.messages if "connection" in one]
        assert len(said) == MOST
        caplog.clear()
    assert any("more such warnings" in one for one in caplog.messages), caplog.messages
