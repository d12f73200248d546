"""Claim C9: a round costs tau * C + S; a tau follows from what a round costs and how many are needed."""

from __future__ import annotations

import math

import pytest

from sparknet.errors import UsageError
from sparknet.reporting.costs import Cost, rounds_to

PAPER = Cost(step_seconds=2.0, sync_seconds=20.0)
"""AlexNet on five machines, as SparkNet's paper has it."""


@pytest.mark.parametrize(("tau", "overhead"), [(1, 0.909), (10, 0.5), (50, 0.167), (100, 0.0909)])
def test_the_overhead_of_the_paper_s_cluster(tau: int, overhead: float) -> None:
    assert PAPER.overhead(tau) == pytest.approx(overhead, rel=3e-3)


def test_exchanging_after_every_step_is_slower_than_one_machine_there() -> None:
    assert PAPER.speedup(5) == pytest.approx(2 / (2 / 5 + 20))
    assert PAPER.speedup(10**9) == pytest.approx(0.1)


def test_a_fit_finds_the_cost_it_was_drawn_from() -> None:
    cost = Cost.fit({tau: 2.0 * tau + 20.0 for tau in (1, 5, 10, 50)})
    assert (cost.step_seconds, cost.sync_seconds) == pytest.approx((2.0, 20.0))


def test_a_fit_is_as_good_for_short_rounds_as_for_long_ones() -> None:
    measured = {1: 0.021, 5: 0.058, 10: 0.112, 50: 0.51}
    cost = Cost.fit(measured)
    assert max(abs(cost.seconds(tau) / seconds - 1) for tau, seconds in measured.items()) < 0.1


def test_one_tau_alone_is_no_cost_model() -> None:
    with pytest.raises(UsageError, match="at two taus"):
        Cost.fit({10: 1.0})


@pytest.mark.parametrize(("overhead", "tau"), [(0.5, 10), (0.2, 40), (0.1, 90), (0.99, 1)])
def test_the_smallest_tau_with_an_overhead(overhead: float, tau: int) -> None:
    assert PAPER.tau_for(overhead) == tau
    assert PAPER.overhead(tau) <= overhead + 1e-12


@pytest.mark.parametrize("overhead", [0.0, 1.0, math.nan])
def test_an_overhead_that_cannot_be_is_refused(overhead: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        PAPER.tau_for(overhead)


def test_the_fastest_tau_weighs_what_a_round_costs_against_how_many_are_needed() -> None:
    # 1: 22 s x 1000, 10: 40 s x 110 = 4400 s, 50: 120 s x 30 = 3600 s, 500: 1020 s x 12 = 12240 s
    assert PAPER.fastest({1: 1000, 10: 110, 50: 30, 500: 12}) == 50
    assert Cost(step_seconds=2.0, sync_seconds=0.0).fastest({1: 1000, 10: 110, 50: 30}) == 1


def test_rounds_to_a_goal_lie_between_two_tests() -> None:
    assert rounds_to(0.5, {10: 0.3, 20: 0.7, 30: 0.4}) == pytest.approx(15.0)
    assert rounds_to(0.2, {10: 0.4}) == pytest.approx(5.0)
    assert rounds_to(0.9, {10: 0.3, 20: 0.7}) is None
