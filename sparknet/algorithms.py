"""The algorithms a run can choose by name: what becomes of the workers' weights at the end of a round.

    chosen = algorithm("slowmo")
    for done in chosen.train(workers, chosen.settings(rounds=100, tau=10), chosen.outer()): ...

To add one, add a line to ``ALGORITHMS``: ``Trainer`` and the apps offer it from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sparknet import training
from sparknet.errors import UsageError
from sparknet.outer import Average, Outer, SlowMo
from sparknet.training import Momentum, Round, Settings


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """``outer`` makes its outer optimiser, ``momentum`` is what becomes of the workers' own by default.

    ``train`` is its loop, with the arguments of ``training.train``. ``summary`` is a line for people.
    """

    summary: str
    outer: Callable[[], Outer] = Average
    momentum: Momentum = "keep"
    train: Callable[..., Iterator[Round]] = training.train

    def settings(self, *, momentum: Momentum | None = None, **values: Any) -> Settings:
        """As ``Settings``; ``momentum`` is the algorithm's unless it is given."""
        return Settings(momentum=momentum or self.momentum, **values)


ALGORITHMS: Mapping[str, Algorithm] = {
    "average": Algorithm(summary="the average, as in SparkNet (arXiv 1511.06051)"),
    # its momentum takes the place of the workers' own
    "slowmo": Algorithm(summary="slow momentum (arXiv 1910.00643)", outer=SlowMo, momentum="reset"),
}


def algorithm(name: str | Algorithm) -> Algorithm:
    """The algorithm of this name, or the one that is given. Raises UsageError for a name there is not."""
    if isinstance(name, Algorithm):
        return name
    if name not in ALGORITHMS:
        raise UsageError(f"there is no algorithm {name!r}: {', '.join(ALGORITHMS)}")
    return ALGORITHMS[name]
