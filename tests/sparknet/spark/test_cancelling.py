"""A task that can never succeed has its stage cancelled, by those alone who have the token."""

from __future__ import annotations

import socket
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from sparknet.spark import cancelling
from sparknet.spark.cancelling import Canceller, Listener


class Context:
    """What a listener needs of a SparkContext."""

    def __init__(self) -> None:
        self.cancelled: list[tuple[int, str]] = []
        self.arrived = threading.Event()
        self._jsc = SimpleNamespace(sc=lambda: self)

    def getConf(self) -> Any:
        return {"spark.driver.host": "127.0.0.1"}

    def cancelStage(self, stage: int, reason: str) -> None:
        self.cancelled.append((stage, reason))
        self.arrived.set()


@pytest.fixture
def context() -> Context:
    return Context()


@pytest.fixture(autouse=True)
def in_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    task = SimpleNamespace(stageId=lambda: 7)
    monkeypatch.setattr(cancelling, "TaskContext", SimpleNamespace(get=lambda: task))
    monkeypatch.setattr(cancelling, "_PATIENCE", 0.0)


def test_the_stage_of_the_task_is_cancelled_with_its_sentence(context: Context) -> None:
    Listener(context).canceller("column a, row 3: NULL")  # type: ignore[arg-type]
    assert context.arrived.wait(5)
    assert context.cancelled == [(7, "column a, row 3: NULL")]


@pytest.mark.parametrize(
    "sent", [b"", b"{}\n", b"x" * 10_000, b'{"token": "no", "stage": 1, "reason": ""}\n']
)
def test_strangers_cancel_nothing_and_are_no_hindrance(context: Context, sent: bytes) -> None:
    canceller = Listener(context).canceller  # type: ignore[arg-type]
    with socket.create_connection(canceller.address, 5) as stranger:
        stranger.sendall(sent)
    canceller("the sentence")
    assert context.arrived.wait(5)
    assert context.cancelled == [(7, "the sentence")]


def test_a_driver_that_is_gone_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    Canceller(address, "token")("the sentence")


def test_a_token_is_never_shown() -> None:
    assert "secret" not in repr(Canceller(("127.0.0.1", 1), "secret"))
