"""Simulated time: its speed, its jumps, and what is due in it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from infra.local.models.clock import Clock


@pytest.fixture
def clock() -> Iterator[Clock]:
    found = Clock(speed=1000)
    yield found
    found.end()


def test_time_runs_as_fast_as_it_is_told(clock: Clock) -> None:
    began, real = clock.now(), time.monotonic()
    time.sleep(0.05)
    passed, really = clock.now() - began, time.monotonic() - real
    assert passed == pytest.approx(1000 * really, rel=0.2)
    clock.set_speed(1)
    assert clock.now() - began < passed + 1000


def test_actions_run_when_they_are_due_in_their_order(clock: Clock) -> None:
    done: list[str] = []
    ended = threading.Event()
    clock.after(60, lambda: (done.append("second"), ended.set()))
    clock.after(20, lambda: done.append("first"))
    assert ended.wait(5)
    assert done == ["first", "second"]


def test_a_jump_makes_due_what_lies_in_between(clock: Clock) -> None:
    clock.set_speed(1)
    ended = threading.Event()
    clock.after(86400, ended.set)
    assert not ended.wait(0.05)
    clock.advance(86400)
    assert ended.wait(5)


def test_an_action_that_fails_does_not_keep_others_from_running(clock: Clock) -> None:
    ended = threading.Event()
    clock.after(10, lambda: 1 / 0)
    clock.after(20, ended.set)
    assert ended.wait(5)
