"""Rounds of as many steps as make exchanges cheap: what is chosen, and when it is chosen anew."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sparknet.auto_tau import AutoTau
from sparknet.errors import UsageError
from sparknet.outer import post_local, quadratic
from sparknet.training import Report, Round, RoundResult, Settings


def round_of(
    auto: AutoTau, number: int, step: float, exchange: float, workers: int = 2, drained: bool = True
) -> Round:
    """A round of a cluster whose steps and exchanges take so many seconds."""
    tau = auto(number, 0.1)
    reports = tuple(
        Report(member=k, steps=tau, images=tau, loss=1, lr=0.1, iteration=0, position=0, seconds=tau * step)
        for k in range(workers)
    )
    waits = exchange if drained else max(0.0, exchange - tau * step)
    result = RoundResult(mean=np.zeros(1, np.float32), reports=reports)
    return Round(
        number=number,
        rounds=99,
        tau=tau,
        outcome=result.mean,
        result=result,
        seconds=tau * step + waits,
        drained=drained,
    )


def shown(auto: AutoTau, rounds: int, step: float, exchange: float, workers: int = 2, first: int = 1) -> None:
    for number in range(first, first + rounds):
        auto.observe(round_of(auto, number, step, exchange, workers, auto.is_measuring or not auto.overlap))


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_exchanges_cost_no_more_than_their_share(share: float) -> None:
    told: list[str] = []
    auto = AutoTau(share, tell=told.append)
    shown(auto, 4, step=0.04, exchange=1.07)
    assert auto.tau == math.ceil(1.07 * (1 - share) / share / 0.04)
    assert 1.07 / (auto.tau * 0.04 + 1.07) <= share
    assert 1.07 / ((auto.tau - 1) * 0.04 + 1.07) > share
    assert len(told) == 1
    assert f"tau {auto.tau}: a step takes 40 ms and an exchange 1.07e+03 ms with 2 workers" in told[0]


def test_where_rounds_overlap_an_exchange_takes_no_longer_than_the_steps() -> None:
    auto = AutoTau(overlap=True)
    shown(auto, 4, step=0.042, exchange=1.07)
    assert 1.07 <= auto.tau * 0.042 < 1.3 * 1.07


def test_the_first_round_is_left_out_and_then_all_wait_until_it_is_known() -> None:
    auto = AutoTau(overlap=True)
    settings = Settings(rounds=50, tau=auto, overlap=True)
    assert auto.is_measuring
    assert settings.ahead(1, None) is None
    auto.observe(round_of(auto, 1, step=0.04, exchange=30.0))
    shown(auto, 3, step=0.04, exchange=0.4, first=2)
    assert not auto.is_measuring
    assert auto.tau == 13
    ahead = settings.ahead(5, 0.1)
    assert ahead is not None
    assert ahead.tau == 13


def test_it_is_measured_again_when_the_cluster_has_changed() -> None:
    told: list[str] = []
    auto = AutoTau(0.05, tell=told.append)
    shown(auto, 4, step=0.01, exchange=0.02)
    before = auto.tau
    shown(auto, 2, step=0.01, exchange=0.02, workers=1)  # one that was lost and is back
    shown(auto, 1, step=0.01, exchange=0.02, workers=2)
    assert not auto.is_measuring
    shown(auto, 7, step=0.01, exchange=0.04, workers=4)
    assert auto.tau == pytest.approx(2 * before, abs=2)
    assert len(told) == 2
    assert "with 4 workers" in told[1]


def test_it_is_measured_again_when_exchanges_have_become_dear() -> None:
    auto = AutoTau(overlap=True)
    shown(auto, 4, step=0.01, exchange=0.1)
    shown(auto, 20, step=0.01, exchange=0.1, first=5)
    assert auto.tau == 13
    shown(auto, 9, step=0.01, exchange=0.5, first=25)
    assert auto.tau == 63


def test_a_share_that_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="exchanges may cost is 0"):
        AutoTau(0)


def test_schedules_say_what_they_are() -> None:
    assert str(post_local(50, 0.1)) == "1 until the rate falls below 0.1, then 50"
    assert str(quadratic(4, 0.2)) == "(0.2 / rate)^2, at least 4"
    assert "at most 5%" in str(AutoTau())
