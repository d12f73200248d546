"""What is slow in a run, in words: the worker that holds up the others, the phase that takes the time.

    worker 3 (attempt 3, ip-10-0-0-9, process 812) took 4.10 s for 10 steps, 2.7 times the others' median
    worker 1 (attempt 1, ip-10-0-0-7, process 344) waited 1.60 s for its data in round 7, 80 % of its time
    starting workers took 8.2 s in round 12, 41 times as long as usual
    worker 2 (attempt 2, ip-10-0-0-8, process 377) has left: its machine is taken back
    exchanging weights takes 71 % of a round: with a tau of 93 it would be 20 %

Each is said when it begins, and again from time to time while it lasts.
"""

from __future__ import annotations

import math
from collections import deque
from statistics import median

from sparknet.reporting.costs import Cost
from sparknet.rounds import Report, Round

# A worker is a straggler from this many times the others' median on, a phase is slow from this many times its
# own; and what costs fewer seconds is not reported.
_STRAGGLES, _SLOW, _SECONDS = 1.5, 5.0, 0.25
# Share of a round that the exchange of weights may take in the long run.
_EXCHANGE = 0.5
# Share of its time that a worker may wait for batches.
_DATA = 0.3
# Rounds that are looked back on, rounds that make a habit, and rounds until what lasts is said again.
_MEMORY, _USUAL, _SILENCE = 30, 5, 50

_DEPARTURE = "has left: its machine is taken back"
_STRAGGLER = "times the others' median"


class Watch:
    """Sees one round after the other; ``notes`` says what is worth saying about it."""

    def __init__(self) -> None:
        self._phases: dict[str, deque[float]] = {}
        self._said: dict[str, int] = {}

    def notes(self, done: Round) -> tuple[str, ...]:
        found = {
            **self._straggler(done),
            **self._starved(done),
            **self._slow_phases(done),
            **self._costly_exchange(done),
            **{f"{who} leaves": f"{who} {_DEPARTURE}" for who in done.result.left},
        }
        for name, seconds in _phases(done).items():
            self._phases.setdefault(name, deque(maxlen=_MEMORY)).append(seconds)
        return tuple(text for topic, text in found.items() if self._is_news(topic, done.number))

    def _straggler(self, done: Round) -> dict[str, str]:
        slowest = max(done.merged, key=_pace)
        others = [_pace(report) for report in done.merged if report is not slowest]
        if not others or slowest.steps * (_pace(slowest) - median(others)) < _SECONDS:
            return {}
        times = _pace(slowest) / median(others)
        if times < _STRAGGLES:
            return {}
        of = "of" if slowest in done.reports else "that count in"
        text = (
            f"took {slowest.seconds:.2f} s for {slowest.steps} steps {of} round {done.number}, "
            f"{times:.1f} {_STRAGGLER}"
        )
        return {f"worker {slowest.member}": f"{_name(done, slowest)} {text}"}

    def _starved(self, done: Round) -> dict[str, str]:
        hungriest = max(done.reports, key=lambda report: report.data_seconds)
        waited, share = hungriest.data_seconds, hungriest.data_seconds / max(hungriest.seconds, 1e-9)
        if waited < _SECONDS or share < _DATA:
            return {}
        text = f"waited {waited:.2f} s for its data in round {done.number}, {100 * share:.0f} % of its time"
        return {"data": f"{_name(done, hungriest)} {text}"}

    def _slow_phases(self, done: Round) -> dict[str, str]:
        found = {}
        for name, seconds in _phases(done).items():
            past = self._phases.get(name, ())
            usual = median(past) if len(past) >= _USUAL else math.inf
            if seconds - usual > _SECONDS and seconds > _SLOW * usual:
                than = f"{seconds / usual:.0f} times as long as" if usual > 1e-3 else "more than"
                found[name] = f"{name} took {seconds:.1f} s in round {done.number}, {than} usual"
        return found

    def _costly_exchange(self, done: Round) -> dict[str, str]:
        """Said of the median of past rounds, once there are enough of them."""
        past = {name: median(self._phases.get(name, [0.0])) for name in ("computing", "exchanging weights")}
        if len(self._phases.get("computing", ())) < _MEMORY:
            return {}
        cost = Cost(step_seconds=past["computing"] / done.tau, sync_seconds=past["exchanging weights"])
        if cost.sync_seconds < _SECONDS or cost.overhead(done.tau) < _EXCHANGE:
            return {}
        text = (
            f"exchanging weights takes {100 * cost.overhead(done.tau):.0f} % of a round: with a tau of "
            f"{cost.tau_for(0.2)} it would be 20 %"
        )
        return {"exchange": text}

    def _is_news(self, topic: str, number: int) -> bool:
        last = self._said.get(topic)
        if last is not None and number - last < _SILENCE:
            return False
        self._said[topic] = number
        return True


def is_straggler(note: str) -> bool:
    """Whether a note is of a worker that holds up the others."""
    return note.endswith(_STRAGGLER)


def is_departure(note: str) -> bool:
    """Whether a note is of a worker that has left, which the record says by itself."""
    return note.endswith(_DEPARTURE)


def _name(done: Round, report: Report) -> str:
    return done.result.names.get(report.member, f"worker {report.member}")


def _pace(report: Report) -> float:
    """Seconds a step: workers that a time cap stopped did fewer of them."""
    return report.seconds / report.steps


def _phases(done: Round) -> dict[str, float]:
    phases = {
        "computing": done.compute_seconds,
        "exchanging weights": done.exchange_seconds,
        "starting workers": done.joining_seconds,
    }
    return {**phases, "testing": done.test_seconds} if done.scores else phases
