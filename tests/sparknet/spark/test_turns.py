"""Fits that share slots: each waits for all that it needs, in the order in which they came."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from sparknet.errors import TrainingError
from sparknet.spark.turns import Turns


def holding(
    turns: Turns, wanted: int, there: int, log: list[str], name: str, over: threading.Event
) -> threading.Thread:
    def hold() -> None:
        with turns.turn(wanted, there):
            log.append(name)
            over.wait(10)

    thread = threading.Thread(target=hold, daemon=True)
    thread.start()
    return thread


def until(condition: object, seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.01)


def test_two_fits_that_fit_run_side_by_side_and_a_third_waits_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    turns, log = Turns(), []  # type: ignore[var-annotated]
    ends = [threading.Event() for _ in range(3)]
    threads = [holding(turns, 1, 2, log, str(k), ends[k]) for k in range(2)]
    until(lambda: len(log) == 2)
    with caplog.at_level(logging.WARNING):
        threads.append(holding(turns, 2, 2, log, "2", ends[2]))
        until(lambda: caplog.records)
    assert "a fit waits for its turn: it needs 2 of 2 slots, and others hold 2" in caplog.text
    ends[0].set()
    time.sleep(0.1)
    assert sorted(log) == ["0", "1"]  # half of what it needs is free
    ends[1].set()
    until(lambda: len(log) == 3)
    assert log[-1] == "2"
    ends[2].set()
    for thread in threads:
        thread.join(5)


def test_who_asked_first_is_served_first() -> None:
    turns, log = Turns(), []  # type: ignore[var-annotated]
    first, rest = threading.Event(), threading.Event()
    threads = [holding(turns, 2, 2, log, "first", first)]
    until(lambda: log)
    for name in ("large", "small"):
        threads.append(holding(turns, 2 if name == "large" else 1, 2, log, name, rest))
        until(lambda: len(turns._waiting) == len(threads) - 1)
    first.set()
    until(lambda: len(log) == 2)
    assert log == ["first", "large"]
    rest.set()
    for thread in threads:
        thread.join(5)


def test_more_workers_than_slots_take_all_of_them() -> None:
    turns = Turns()
    with (
        turns.turn(5, 2),
        pytest.raises(TrainingError, match=r"no 1 of 2 slots became free in 0 s"),
        turns.turn(1, 2, deadline_seconds=0.05),
    ):
        raise AssertionError("there was a slot")
    with turns.turn(2, 2):
        pass


def test_slots_are_free_again_after_an_error() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns.turn(2, 2):
        raise ZeroDivisionError
    with turns.turn(2, 2, deadline_seconds=0.1):
        pass
