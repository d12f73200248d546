"""The learning rate of an iteration: Caffe's seven policies, as pure functions.

    fixed      base_lr
    step       base_lr * gamma ^ floor(iter / stepsize)
    exp        base_lr * gamma ^ iter
    inv        base_lr * (1 + gamma * iter) ^ -power
    multistep  base_lr * gamma ^ (how many of stepvalue were passed)
    poly       base_lr * (1 - iter / max_iter) ^ power
    sigmoid    base_lr / (1 + exp(-gamma * (iter - stepsize)))

Source: ``SGDSolver::GetLearningRate`` in ``src/caffe/solvers/sgd_solver.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sparknet.errors import ModelError


class Schedule(Protocol):
    """What is read of a ``SolverParameter``."""

    @property
    def lr_policy(self) -> str: ...
    @property
    def base_lr(self) -> float: ...
    @property
    def gamma(self) -> float: ...
    @property
    def power(self) -> float: ...
    @property
    def stepsize(self) -> int: ...
    @property
    def stepvalue(self) -> Sequence[int]: ...
    @property
    def max_iter(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Rate:
    """The learning rate of one iteration, and how many steps have been taken so far.

    ``current_step`` is what a solverstate keeps: multistep counts one step an iteration at most, so that the
    count is not a function of the iteration alone after a resume.
    """

    lr: float
    current_step: int


def rate(schedule: Schedule, iteration: int, current_step: int = 0) -> Rate:
    """The rate (a float32 value) of the update number ``iteration``, counted from 0.

    Raises ModelError for a policy that is not known, or one whose numbers are missing.
    """
    policy = POLICIES.get(schedule.lr_policy)
    if policy is None:
        raise ModelError(f'unknown lr_policy "{schedule.lr_policy}"; the policies are {", ".join(POLICIES)}')
    _check(schedule)
    step = _steps_taken(schedule, iteration, current_step)
    return Rate(lr=_float32(policy(schedule, iteration, step)), current_step=step)


def _check(schedule: Schedule) -> None:
    """Raises ModelError for the numbers that Caffe refuses."""
    policy = schedule.lr_policy
    if policy in ("step", "exp", "inv", "multistep", "sigmoid") and not schedule.gamma >= 0:
        raise ModelError(f'lr_policy "{policy}" needs a gamma of at least 0, not {schedule.gamma:g}')
    if policy in ("step", "sigmoid") and schedule.stepsize <= 0:
        raise ModelError(f'lr_policy "{policy}" needs a stepsize of at least 1')


def _steps_taken(schedule: Schedule, iteration: int, current_step: int) -> int:
    if schedule.lr_policy == "step":
        return iteration // schedule.stepsize
    if schedule.lr_policy == "multistep":
        values = schedule.stepvalue
        return current_step + (current_step < len(values) and iteration >= values[current_step])
    return current_step


def _stepped(schedule: Schedule, _: int, step: int) -> float:
    return schedule.base_lr * _power(schedule.gamma, step)


def _fixed(schedule: Schedule, _: int, __: int) -> float:
    return schedule.base_lr


def _exp(schedule: Schedule, iteration: int, _: int) -> float:
    return schedule.base_lr * _power(schedule.gamma, iteration)


def _inv(schedule: Schedule, iteration: int, _: int) -> float:
    return schedule.base_lr * _power(1 + schedule.gamma * iteration, -schedule.power)


def _poly(schedule: Schedule, iteration: int, _: int) -> float:
    if schedule.max_iter <= 0:
        raise ModelError('lr_policy "poly" needs max_iter: it reaches 0 there')
    # past max_iter Caffe takes a power of a negative number (NaN unless the power is whole); 0 is meant
    return schedule.base_lr * _power(max(0.0, 1 - iteration / schedule.max_iter), schedule.power)


def _sigmoid(schedule: Schedule, iteration: int, _: int) -> float:
    return schedule.base_lr / (1 + math.exp(min(700.0, -schedule.gamma * (iteration - schedule.stepsize))))


def _power(base: float, exponent: float) -> float:
    """As C's ``pow``, which says infinity or NaN where Python raises."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return -math.inf if base < 0 and exponent % 2 else math.inf
    except ValueError:
        return math.inf if base == 0 else math.nan


def _float32(value: float) -> float:
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


POLICIES: dict[str, Callable[[Schedule, int, int], float]] = {
    "fixed": _fixed,
    "step": _stepped,
    "exp": _exp,
    "inv": _inv,
    "multistep": _stepped,
    "poly": _poly,
    "sigmoid": _sigmoid,
}
