"""What a round costs: SparkNet's model (arXiv 1511.06051, section 3), and the tau that follows from it.

    seconds of a round = tau * C + S        C a step of the slowest worker, S the exchange of the weights

A larger tau spends less on the exchange and learns less in each step: how much less is measured, not
modelled (``fastest``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from sparknet.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Cost:
    """``step_seconds`` is C, ``sync_seconds`` is S.

    >>> paper = Cost(step_seconds=2, sync_seconds=20)
    >>> [round(paper.overhead(tau), 4) for tau in (1, 10, 50, 100)]
    [0.9091, 0.5, 0.1667, 0.0909]
    """

    step_seconds: float
    sync_seconds: float

    @classmethod
    def fit(cls, rounds: Mapping[int, float]) -> Self:
        """The cost that explains ``rounds``, seconds by tau, with the least relative error.

        Raises UsageError for fewer than two taus: one says nothing of what the steps are and what the rest.
        """
        if len(rounds) < 2:
            raise UsageError("a cost model needs the seconds of a round at two taus or more")
        taus, seconds = (np.array(list(column), np.float64) for column in (rounds.keys(), rounds.values()))
        terms = np.stack([taus, np.ones_like(taus)], axis=1) / seconds[:, None]
        (step, sync), *_ = np.linalg.lstsq(terms, np.ones_like(taus), rcond=None)
        return cls(step_seconds=max(float(step), 0.0), sync_seconds=max(float(sync), 0.0))

    def seconds(self, tau: int) -> float:
        """A round of ``tau`` steps."""
        return tau * self.step_seconds + self.sync_seconds

    def overhead(self, tau: int) -> float:
        """The share of a round that is not spent on steps, 0 to 1."""
        return self.sync_seconds / self.seconds(tau) if self.sync_seconds else 0.0

    def tau_for(self, overhead: float) -> int:
        """The smallest tau whose overhead is at most ``overhead``, between 0 and 1."""
        if not 0 < overhead < 1:
            raise UsageError(f"an overhead of {overhead:g} is asked for: it lies between 0 and 1")
        if not self.step_seconds:
            raise UsageError("steps that take no time have no share of a round")
        wanted = self.sync_seconds * (1 - overhead) / overhead / self.step_seconds
        return max(1, math.ceil(wanted - 1e-9))

    def speedup(self, workers: int) -> float:
        """What K ``workers`` gain at most that share each batch and exchange after it: C / (C/K + S)."""
        return self.step_seconds / (self.step_seconds / workers + self.sync_seconds)

    def fastest(self, rounds_needed: Mapping[int, float]) -> int:
        """The tau that reaches the goal soonest, of those whose number of rounds to it is known."""
        if not rounds_needed:
            raise UsageError("no tau has reached the goal: train longer, or set a lower one")
        return min(rounds_needed, key=lambda tau: rounds_needed[tau] * self.seconds(tau))


def rounds_to(goal: float, accuracies: Mapping[int, float]) -> float | None:
    """Rounds until the accuracy, given by round, first reached ``goal``; None if it never did.

    Between two tests it is taken to have grown evenly.

    >>> rounds_to(0.5, {10: 0.3, 20: 0.7})
    15.0
    """
    before_round, before = 0, 0.0
    for number, accuracy in sorted(accuracies.items()):
        if accuracy >= goal:
            part = (goal - before) / (accuracy - before) if accuracy > before else 1.0
            return before_round + part * (number - before_round)
        before_round, before = number, accuracy
    return None
