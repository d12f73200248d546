"""A straggler and a slow phase are named, once, and nothing is said of a run that is well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sparknet.reporting.watch import Watch
from sparknet.rounds import Round, RoundResult
from tests.sparknet.reporting.rounds import made_round


def paced(
    number: int, seconds: Sequence[float], *, steps: Sequence[int] | None = None, **parts: float
) -> Round:
    """A round whose workers took ``seconds``; its parts are what joining, exchange and testing took."""
    model = made_round(number, losses=(1.0,) * len(seconds), accuracy=0.5 if "test" in parts else None)
    reports = tuple(
        replace(report, seconds=spent, steps=(steps or [10] * len(seconds))[k])
        for k, (report, spent) in enumerate(zip(model.reports, seconds, strict=True))
    )
    result = RoundResult(
        mean=model.weights,
        reports=reports,
        joining_seconds=parts.get("joining", 0.0),
        names={2: "worker 2 (attempt 7, ip-10-0-0-9, process 812)"},
    )
    total = max(seconds) + parts.get("joining", 0.0) + parts.get("exchange", 0.01)
    return replace(model, result=result, seconds=total, test_seconds=parts.get("test", 0.0))


def said(rounds: Sequence[Round]) -> list[str]:
    watch = Watch()
    return [note for done in rounds for note in watch.notes(done)]


def test_the_worker_that_holds_up_the_others_is_named_with_its_place_and_by_how_much() -> None:
    assert said([paced(7, [1.0, 1.1, 2.97])]) == [
        "worker 2 (attempt 7, ip-10-0-0-9, process 812) took 2.97 s for 10 steps of round 7, "
        "2.8 times the others' median"
    ]


def test_one_that_a_time_cap_stopped_is_slow_by_the_step() -> None:
    assert "took 1.00 s for 2 steps" in said([paced(1, [1.0, 1.0, 1.0], steps=[10, 10, 2])])[0]


def test_one_that_was_late_is_named_in_the_round_in_which_its_work_counts() -> None:
    done = paced(7, [1.0, 1.1])
    late = replace(done.reports[0], member=2, seconds=8.9)
    assert said([replace(done, result=replace(done.result, late=(late,)))]) == [
        "worker 2 (attempt 7, ip-10-0-0-9, process 812) took 8.90 s for 10 steps that count in round 7, "
        "8.5 times the others' median"
    ]


def test_a_straggler_is_named_again_only_after_a_while() -> None:
    notes = said([paced(number, [1.0, 1.0, 3.0]) for number in range(1, 102)])
    assert [note.split(" of round ")[1].split(",")[0] for note in notes] == ["1", "51", "101"]


def test_nothing_is_said_of_workers_that_differ_a_little_or_by_little_time() -> None:
    assert said([paced(1, [1.0, 1.2, 1.4]), paced(2, [0.01, 0.01, 0.1]), paced(3, [5.0])]) == []


def test_a_phase_that_takes_far_longer_than_usual_is_named() -> None:
    usual = [paced(number, [1.0, 1.0], joining=0.1, exchange=0.1, test=0.2) for number in range(1, 9)]
    assert said([*usual, paced(9, [1.0, 1.0], joining=8.2)]) == [
        "starting workers took 8.2 s in round 9, 82 times as long as usual"
    ]
    assert "testing took 9.0 s" in said([*usual, paced(9, [1.0, 1.0], test=9.0)])[0]
    assert "computing took 9.0 s" in said([*usual, paced(9, [9.0, 9.0])])[0]


def test_a_worker_that_waits_for_its_data_is_named() -> None:
    done = paced(7, [2.0, 2.0, 2.0])
    starved = replace(done.reports[2], data_seconds=1.6)
    result = replace(done.result, reports=(*done.reports[:2], starved))
    assert said([replace(done, result=result)]) == [
        "worker 2 (attempt 7, ip-10-0-0-9, process 812) waited 1.60 s for its data in round 7, "
        "80 % of its time"
    ]


def test_the_first_round_is_compared_with_nothing() -> None:
    assert said([paced(1, [1.0, 1.0], joining=60.0, exchange=5.0)]) == []


def test_an_exchange_that_takes_most_of_a_run_is_named_with_the_tau_that_helps() -> None:
    notes = said([paced(number, [0.2, 0.2], exchange=0.6) for number in range(1, 60)])
    # S = 0.6 s and C = 0.02 s: 120 steps, 2.4 s, are four fifths
    assert notes == ["exchanging weights takes 75 % of a round: with a tau of 120 it would be 20 %"]
