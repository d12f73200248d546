"""Outer optimisers and schedules of tau: what is made of a round's mean, and how long a round is.

A worker leaves a round with w_k; the mean of w - w_k over the workers plays the part of a gradient ("D"
below):

    Average   w <- mean                              SparkNet, arXiv 1511.06051
    SlowMo    u <- b u + D / lr;  w <- w - a lr u     slow momentum, arXiv 1910.00643
    DiLoCo    SGD with Nesterov momentum on D         arXiv 2311.08105

All three are written as the mean plus what they add to it, so that one whose extras are nothing gives the
mean itself, bit for bit, not the mean after a trip through D.

SlowMo and DiLoCo replace the momentum the workers carry from round to round: SlowMo's authors set it to
zero in every round (``Settings(momentum="reset")``). DiLoCo was tried on language models with AdamW inside;
on nets trained by SGD with momentum it steps lr / (1 - momentum) times as far, so start well below its
defaults.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from sparknet.errors import UsageError
from sparknet.weights import Vector, Weights, fetch

# Numbers that are stepped at a time: intermediate results stay in a core's cache.
_BLOCK = 1 << 14

# Rates are far below 1: what is larger has no rate at which a round would end.
_LARGEST_GROWTH = 1e9

Schedule = Callable[[int, float | None], int]
"""(round from 1, the last round's learning rate or None in the first) -> SGD steps of the round."""


class Outer(Protocol):
    """Turns the weights a round began with and the mean it ended with into the next round's weights."""

    @property
    def state(self) -> Mapping[str, Vector]:
        """What must be kept to go on later; give it to ``resume``."""
        ...

    def resume(self, state: Mapping[str, Vector]) -> None: ...

    def step(self, weights: Vector, mean: Vector, lr: float) -> Vector:
        """``weights`` and ``mean`` float32 (P,), neither is changed; ``lr`` is the workers' learning rate."""
        ...


@runtime_checkable
class RemoteMean(Protocol):
    """An average that stays on the workers."""

    def stepped(self, outer: Outer, lr: float) -> Weights | None:
        """The weights after the outer step, which the workers take; None if it has to be taken here."""
        ...


@runtime_checkable
class Repeatable(Protocol):
    """An outer optimiser that can be made again elsewhere: workers that have the weights take its step there.

    ``settings`` are the numbers it was made of, ``memory`` its whole state, float32 (P,), which may
    be with the workers; None before the first step.
    """

    memory: Weights | None

    @property
    def settings(self) -> Mapping[str, float]: ...

    def step(self, weights: Vector, mean: Vector, lr: float) -> Vector: ...


class Average:
    """The mean itself: SparkNet."""

    @property
    def state(self) -> Mapping[str, Vector]:
        return {}

    def resume(self, state: Mapping[str, Vector]) -> None:
        pass

    def step(self, weights: Vector, mean: Vector, lr: float) -> Vector:  # noqa: ARG002 - the mean is all
        return mean


class _WithMomentum:
    """An outer optimiser with one vector of momentum, zero at first."""

    def __init__(self) -> None:
        self.memory: Weights | None = None

    @property
    def state(self) -> Mapping[str, Vector]:
        """The momentum. Raises WorkersLost if the workers have had it, and are gone."""
        return {} if self.memory is None else {"momentum": fetch(self.memory)}

    def resume(self, state: Mapping[str, Vector]) -> None:
        self.memory = state.get("momentum")

    def step(self, weights: Vector, mean: Vector, lr: float) -> Vector:
        before = None if self.memory is None else fetch(self.memory)
        after, memory = np.empty_like(mean), np.empty_like(mean)
        for begin in range(0, mean.size, _BLOCK):
            part = slice(begin, begin + _BLOCK)
            remembered = None if before is None else before[part]
            after[part], memory[part] = self._stepped(weights[part], mean[part], remembered, lr)
        self.memory = memory
        return after

    def _stepped(
        self, weights: Vector, mean: Vector, before: Vector | None, lr: float
    ) -> tuple[Vector, Vector]:
        """The step of a chunk of the vectors: its weights and its momentum."""
        raise NotImplementedError


class SlowMo(_WithMomentum):
    """Slow momentum: ``step_size`` a (1 in the paper) and ``momentum`` b (0.4 to 0.8; less for K < 8)."""

    def __init__(self, step_size: float = 1.0, momentum: float = 0.5) -> None:
        super().__init__()
        self.step_size, self.momentum = _positive("step_size", step_size), _fraction("momentum", momentum)

    @property
    def settings(self) -> Mapping[str, float]:
        return {"step_size": self.step_size, "momentum": self.momentum}

    def _stepped(
        self, weights: Vector, mean: Vector, before: Vector | None, lr: float
    ) -> tuple[Vector, Vector]:
        if not lr > 0:
            raise UsageError(f"SlowMo divides by the learning rate, which is {lr}: use Average")
        difference = weights - mean
        velocity = _velocity(difference / np.float32(lr), self.momentum, before)
        # w - a lr (b u + D / lr) = mean + (1 - a) D - a b lr u
        parts = [(1 - self.step_size, difference), (-self.step_size * self.momentum * lr, before)]
        return _plus(mean, parts), velocity


class DiLoCo(_WithMomentum):
    """SGD with Nesterov momentum on D, as in torch.optim.SGD: u <- m u + D; w <- w - lr (D + m u)."""

    def __init__(self, lr: float = 0.7, momentum: float = 0.9) -> None:
        super().__init__()
        self.lr, self.momentum = _positive("lr", lr), _fraction("momentum", momentum)

    @property
    def settings(self) -> Mapping[str, float]:
        return {"lr": self.lr, "momentum": self.momentum}

    def _stepped(
        self,
        weights: Vector,
        mean: Vector,
        before: Vector | None,
        lr: float,  # noqa: ARG002 - the inner one plays no part
    ) -> tuple[Vector, Vector]:
        difference = weights - mean
        velocity = _velocity(difference, self.momentum, before)
        after = _plus(mean, [(1 - self.lr, difference), (-self.lr * self.momentum, velocity)])
        return after, velocity


_REPEATABLE: Mapping[str, Callable[..., Repeatable]] = {"SlowMo": SlowMo, "DiLoCo": DiLoCo}


def settings_of(outer: Repeatable) -> dict[str, dict[str, float]]:
    """What ``from_settings`` makes another of; empty for an optimiser of the user's own."""
    return {name: dict(outer.settings) for name, kind in _REPEATABLE.items() if type(outer) is kind}


def from_settings(settings: Mapping[str, Mapping[str, float]]) -> Repeatable:
    """An outer optimiser with the same settings, which remembers nothing. Raises UsageError for another's."""
    ((name, numbers),) = settings.items()
    if name not in _REPEATABLE:
        raise UsageError(f"there is no outer optimiser {name}: {', '.join(_REPEATABLE)}")
    return _REPEATABLE[name](**numbers)


def constant(tau: int) -> Schedule:
    """The same ``tau`` in every round."""
    return lambda _number, _lr: tau


def post_local(tau: int, initial_lr: float, before: int = 1) -> Schedule:
    """Post-local SGD (arXiv 1808.07217): ``before`` steps a round until the rate falls, then ``tau``."""
    return PostLocal(tau=tau, initial_lr=initial_lr, before=before)


def quadratic(base: int, a: float) -> Schedule:
    """The quadratic synchronisation rule (Gu and others, 2024): max(base, floor((a / lr)^2)) steps."""
    return Quadratic(base=base, a=a)


@dataclass(frozen=True, kw_only=True)
class PostLocal:
    """What ``post_local`` gives."""

    tau: int
    initial_lr: float
    before: int = 1

    def __call__(self, _number: int, lr: float | None) -> int:
        return self.before if lr is None or lr >= self.initial_lr else self.tau

    def __str__(self) -> str:
        return f"{self.before} until the rate falls below {self.initial_lr:g}, then {self.tau}"


@dataclass(frozen=True, kw_only=True)
class Quadratic:
    """What ``quadratic`` gives."""

    base: int
    a: float

    def __post_init__(self) -> None:
        if not 0 < self.a <= _LARGEST_GROWTH:
            raise UsageError(
                f"the a of the quadratic rule is {self.a}: above 0 and at most {_LARGEST_GROWTH:g} is needed"
            )

    def __call__(self, _number: int, lr: float | None) -> int:
        return max(self.base, math.floor((self.a / lr) ** 2)) if lr else self.base

    def __str__(self) -> str:
        return f"({self.a:g} / rate)^2, at least {self.base}"


def _velocity(difference: Vector, momentum: float, before: Vector | None) -> Vector:
    """momentum u + difference; the difference itself where there has been nothing."""
    return difference if before is None or momentum == 0 else np.float32(momentum) * before + difference


def _plus(mean: Vector, parts: list[tuple[float, Vector | None]]) -> Vector:
    """``mean`` plus the sum of factor * vector; terms of nothing are left out, so that no bit changes."""
    for factor, vector in parts:
        if factor and vector is not None:
            mean = mean + np.float32(factor) * vector
    return mean


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise UsageError(f"the outer optimiser's {name} is {value}: it must be positive")
    return value


def _fraction(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise UsageError(f"the outer optimiser's {name} is {value}: it must be at least 0 and below 1")
    return value
