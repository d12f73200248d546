"""The learning rate of every policy, against the formulas of Caffe's proto and the rates it printed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest

from sparknet.caffe.solver.lr_policies import POLICIES, rate
from sparknet.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Schedule:
    lr_policy: str
    base_lr: float = 0.5
    gamma: float = 0.25
    power: float = 0.75
    stepsize: int = 10
    stepvalue: tuple[int, ...] = (3, 5, 6)
    max_iter: int = 100


FORMULAS = {
    "fixed": lambda i: 0.5,
    "step": lambda i: 0.5 * 0.25 ** (i // 10),
    "exp": lambda i: 0.5 * 0.25**i,
    "inv": lambda i: 0.5 / (1 + 0.25 * i) ** 0.75,
    "poly": lambda i: 0.5 * (1 - i / 100) ** 0.75,
    "sigmoid": lambda i: 0.5 / (1 + math.exp(-0.25 * (i - 10))),
}


@pytest.mark.parametrize("iteration", [0, 1, 9, 10, 25, 100])
@pytest.mark.parametrize("name", sorted(FORMULAS))
def test_a_policy_follows_its_formula(name: str, iteration: int) -> None:
    assert rate(Schedule(lr_policy=name), iteration).lr == pytest.approx(FORMULAS[name](iteration), rel=1e-6)


def test_every_policy_is_tested() -> None:
    assert set(FORMULAS) | {"multistep"} == set(POLICIES)


def test_multistep_steps_at_each_value() -> None:
    step, rates = 0, []
    for iteration in range(8):
        now = rate(Schedule(lr_policy="multistep", base_lr=1.0), iteration, step)
        step = now.current_step
        rates.append(now.lr)
    assert rates == [1, 1, 1, 0.25, 0.25, 0.0625, 0.015625, 0.015625]


def test_multistep_takes_one_step_an_iteration_at_most() -> None:
    late = rate(Schedule(lr_policy="multistep"), 50, 0)
    assert late.current_step == 1
    assert rate(Schedule(lr_policy="multistep"), 51, late.current_step).current_step == 2


def test_multistep_stays_after_its_last_value() -> None:
    assert rate(Schedule(lr_policy="multistep"), 1000, 3).current_step == 3


def test_poly_stays_at_nought_past_the_end() -> None:
    assert rate(Schedule(lr_policy="poly"), 150).lr == 0


def test_a_rate_is_a_float32_number() -> None:
    assert rate(Schedule(lr_policy="fixed", base_lr=0.1), 0).lr == 0.10000000149011612


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (Schedule(lr_policy="Step"), "the policies are fixed, step"),
        (Schedule(lr_policy="step", stepsize=0), "needs a stepsize"),
        (Schedule(lr_policy="poly", max_iter=0), "needs max_iter"),
        (Schedule(lr_policy="sigmoid", gamma=-1), "gamma of at least 0"),
    ],
)
def test_a_schedule_that_cannot_be_says_what_is_missing(schedule: Schedule, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        rate(schedule, 0)
