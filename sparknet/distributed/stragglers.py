"""How long a round's late workers are waited for, once others have reported."""

from __future__ import annotations

import math
import time

from sparknet.distributed.timeouts import Timeouts

# A worker that takes this many times as long as the faster half does not straggle: it hangs.
_HANGS = 10.0


class StragglerPolicy:
    """For the answers of ``workers`` workers, all asked now; ``quorum`` is the share that is enough.

    Two things end it before the round's own deadline: the grace after a quorum, whose late workers only miss
    the round, and a silence too long for a difference in speed, after which they are given up.
    """

    def __init__(self, workers: int, quorum: float, timeouts: Timeouts) -> None:
        self._workers, self._timeouts = workers, timeouts
        self._enough = math.ceil(quorum * workers)
        self._began = time.monotonic()
        self._answers = 0
        self._grace_ends = self._hangs = math.inf

    @property
    def until(self) -> float:
        """On the clock of ``time.monotonic``."""
        return min(self._grace_ends, self._hangs)

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.until

    @property
    def given_up(self) -> bool:
        """Whether those that are late hang, as far as one can tell."""
        return self._hangs < self._grace_ends

    @property
    def reason(self) -> str:
        """Why those that are late do not count."""
        if not self.given_up:
            return f"it was more than {self._timeouts.grace:g} s later than the others"
        waited = self._hangs - self._began
        return f"it hangs: no answer in {waited:.3g} s, of which half of the workers needed a tenth at most"

    def answered(self) -> None:
        """Another one has answered."""
        self._answers += 1
        now = time.monotonic()
        if self._answers == self._enough:
            self._grace_ends = now + self._timeouts.grace
        if 2 * self._answers >= self._workers and self._hangs == math.inf:
            self._hangs = self._began + max(self._timeouts.hang, _HANGS * (now - self._began))
