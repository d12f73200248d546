"""A wait ends with what it waited for, with what its check raises, or with an error that names what
is missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from infra import polling
from infra.errors import DeadlineExceeded, SetupError
from infra.polling import Pending, poll


@dataclass
class Clock:
    """Time that passes in ``sleep`` alone."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(polling, "time", made)
    return made


def waiting(said: str) -> Pending:
    return Pending(lambda: DeadlineExceeded(said))


def one_after_the_other(*answers: object) -> Callable[[], object]:
    left = iter(answers)
    return lambda: next(left)


def test_what_is_there_at_once_is_not_waited_for(clock: Clock) -> None:
    assert poll(lambda: "here", deadline_seconds=10, every=1, sleep=clock.sleep) == "here"
    assert clock.slept == []


@pytest.mark.parametrize("there", [None, 0, "", []])
def test_only_pending_means_not_yet(clock: Clock, there: object) -> None:
    check = one_after_the_other(waiting("no"), there)
    assert poll(check, deadline_seconds=10, every=1, sleep=clock.sleep) == there
    assert clock.slept == [1]


def test_at_the_deadline_the_last_look_is_told(clock: Clock) -> None:
    looks = itertools.count(1)

    def check() -> Pending:
        number = next(looks)
        return waiting(f"look {number}")

    with pytest.raises(DeadlineExceeded, match="look 5"):
        poll(check, deadline_seconds=3, every=1, sleep=clock.sleep)
    assert clock.now == 4


def test_the_error_is_made_at_the_deadline_alone(clock: Clock) -> None:
    made = []

    def overdue() -> Exception:
        made.append(clock.now)
        return DeadlineExceeded("late")

    with pytest.raises(DeadlineExceeded, match="late"):
        poll(lambda: Pending(overdue), deadline_seconds=5, every=2, sleep=clock.sleep)
    assert made == [6]


def test_a_deadline_of_nothing_still_looks_once(clock: Clock) -> None:
    assert poll(lambda: 1, deadline_seconds=0, every=1, sleep=clock.sleep) == 1


def test_what_the_check_raises_ends_the_wait(clock: Clock) -> None:
    def check() -> Pending:
        raise SetupError("it is gone")

    with pytest.raises(SetupError, match="it is gone"):
        poll(check, deadline_seconds=10, every=1, sleep=clock.sleep)


def test_a_state_may_have_less_time_than_the_wait(clock: Clock) -> None:
    rejected = Pending(lambda: SetupError("rejected"), deadline_seconds=2)
    booting = waiting("booting")
    answers = itertools.chain([booting] * 5, itertools.repeat(rejected))
    with pytest.raises(SetupError, match="rejected"):
        poll(lambda: next(answers), deadline_seconds=100, every=1, sleep=clock.sleep)
    assert clock.now == 5  # five looks while it booted; the first rejection came too late
