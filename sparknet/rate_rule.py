"""How the learning rate that suits one worker is changed through a run of several."""

from __future__ import annotations

from dataclasses import dataclass

from sparknet.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class RateRule:
    """The learning rate rises to ``scale`` times what was set, stays there, and falls back to what was set.

    It rises over the share ``warm_up`` of the rounds and falls from the share ``hold`` on, both evenly from
    round to round. Several workers that average make fewer steps over the same images, and longer ones are
    due (Goyal et al., arXiv 1706.02677, sections 2.1 and 2.2); in the end the rate is the one worker's again.
    Raises UsageError for what cannot be.

    >>> rule = RateRule(scale=3, warm_up=0.25, hold=0.5)
    >>> [rule.factor(number, 8) for number in range(1, 9)]
    [2.0, 3.0, 3.0, 3.0, 2.5, 2.0, 1.5, 1.0]
    """

    scale: float
    warm_up: float = 0.0
    hold: float = 1.0

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise UsageError(f"the learning rate cannot be {self.scale:g} times as high: a number above 0")
        if not 0 <= self.warm_up <= self.hold <= 1:
            raise UsageError(
                f"warm_up {self.warm_up:g} and hold {self.hold:g} are shares of the rounds, 0 to 1, and the "
                "rate rises before it falls"
            )

    def __str__(self) -> str:
        return (
            f"up to {self.scale:g} times the learning rate, reached after {self.warm_up:.0%} of the rounds, "
            f"and down to it again from {self.hold:.0%} on"
        )

    def factor(self, number: int, rounds: int) -> float:
        """Of the rate in round ``number``, from 1 on, of ``rounds``."""
        share = number / rounds
        if share < self.warm_up:
            return 1 + (self.scale - 1) * share / self.warm_up
        if share <= self.hold:
            return self.scale
        return self.scale + (1 - self.scale) * (share - self.hold) / (1 - self.hold)
