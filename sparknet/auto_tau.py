"""``tau`` by measurement: as few steps a round as keep what exchanges cost under a share of the time.

With C seconds a step and S seconds an exchange, a round of tau steps loses S / (tau C + S) of its time where
workers wait for its average. Where averages travel while the next round is computed (``overlap.py``) nothing
is lost as long as tau C is at least S.

C and S are measured in the first rounds, at which workers wait, and again when the number of workers has
changed or when exchanges are found to cost more than they should.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from statistics import median

from sparknet.errors import UsageError
from sparknet.rounds import Round

# Steps of a round while nothing is known: as many as make the time of a step known.
_FIRST_TAU = 5
# Rounds whose median is believed, after one that warms up.
_SAMPLES = 3
# Rounds in a row that must be of other workers, or too expensive, before it is measured again.
_PATIENCE = 3
# More steps than an exchange takes: links and steps waver, and what is late is waited for.
_MARGIN = 1.25
_MOST = 100_000


SHARE = 0.05
"""Of the time, that exchanges may cost."""


def check_overhead(overhead: float, tau: object) -> None:
    """Raise UsageError unless exchanges can be held to this share of the time with such a tau."""
    AutoTau(overhead)
    if overhead != SHARE and tau != "auto":
        raise UsageError("--overhead is what --tau auto goes by: give both, or neither")


class AutoTau:
    """A schedule (``outer.py``) that learns from the rounds it is shown by ``observe``.

    ``share`` is that of the time which exchanges may cost; ``tell`` is given a sentence at every change.
    """

    def __init__(
        self, share: float = SHARE, *, overlap: bool = False, tell: Callable[[str], object] = lambda _: None
    ) -> None:
        if not 0 < share < 1:
            raise UsageError(f"the share of the time that exchanges may cost is {share}: between 0 and 1")
        self.share, self.overlap, self.tau = share, overlap, _FIRST_TAU
        self._tell = tell
        self._workers = 0
        self._waited = False
        self._others = 0
        self._warm = False
        self._measure()

    def __call__(self, _number: int, _lr: float | None) -> int:
        return self.tau

    def __str__(self) -> str:
        return f"by measurement, for exchanges to cost at most {self.share:.0%} of the time"

    @property
    def is_measuring(self) -> bool:
        """Whether all workers should wait for the average, so that the exchange can be timed."""
        return len(self._exchanges) < _SAMPLES

    def observe(self, done: Round) -> None:
        """Learn from a round that is over."""
        waited, self._waited = self._waited, done.drained
        workers = len(done.members)
        self._workers = self._workers or workers
        self._others = self._others + 1 if workers != self._workers else 0
        if self._others >= _PATIENCE:
            self._workers = workers
            self._measure()
        elif self._warm and waited and done.drained and self.is_measuring:
            self._steps.append(max(report.seconds / report.steps for report in done.reports))
            self._exchanges.append(done.exchange_seconds)
            if len(self._exchanges) == _SAMPLES:
                self._choose()
        elif not self.is_measuring:
            self._check(done)
        self._warm = True

    def _measure(self) -> None:
        """Begin to measure; the first round after a change is left out."""
        self._steps: deque[float] = deque(maxlen=_SAMPLES)
        self._exchanges: deque[float] = deque(maxlen=_SAMPLES)
        self._others = self._dear = 0
        self._warm = False

    def _check(self, done: Round) -> None:
        """Measure again if several rounds in a row lose twice as much as they may."""
        dear = done.exchange_seconds > 2 * self.share * (done.seconds - done.joining_seconds)
        self._dear = self._dear + 1 if dear else 0
        if self._dear >= _PATIENCE:
            self._measure()

    def _choose(self) -> None:
        step, exchange = median(self._steps), median(self._exchanges)
        wanted = _MARGIN * exchange if self.overlap else exchange * (1 - self.share) / self.share
        self.tau = min(_MOST, max(1, math.ceil(wanted / step)))
        does = "hide it" if self.overlap else f"keep it under {self.share:.0%} of the time"
        self._tell(
            f"tau {self.tau}: a step takes {1e3 * step:.3g} ms and an exchange {1e3 * exchange:.3g} ms with "
            f"{self._workers} workers; rounds of {self.tau} steps {does}"
        )
