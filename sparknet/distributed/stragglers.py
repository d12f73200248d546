"""How long late workers are waited for, once others have answered."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

from sparknet import clock
from sparknet.distributed.messages import Answered, Request
from sparknet.distributed.timeouts import Timeouts

# A worker that takes this many times as long as the faster half does not straggle: it hangs.
_HANGS = 10.0
# What late workers have by default, as a share of what the quorum took: more than steps differ by themselves.
_GRACE = 0.25
# Answers from which it is known how long one takes.
_REMEMBERED = 32


class StragglerPolicy:
    """For the answers of ``workers`` workers, all asked now, who have worked at them for ``head_start``
    seconds already; ``quorum`` is the share that is enough: of all that are ``here``, so that those who are
    still at an earlier round do not make it smaller, round by round.

    Two things end it before the round's own deadline: the grace after a quorum, whose late workers only miss
    the round, and a silence too long for a difference in speed, after which they are given up.
    """

    def __init__(
        self, workers: int, quorum: float, timeouts: Timeouts, head_start: float = 0.0, here: int = 0
    ) -> None:
        self._workers, self._timeouts = workers, timeouts
        self._enough = min(workers, math.ceil(quorum * max(workers, here)))
        self._began = clock.now() - head_start
        self._answers = 0
        self._grace = 0.0
        self._grace_ends = self._hangs = math.inf

    @property
    def until(self) -> float:
        """On the clock of ``clock.now``."""
        return min(self._grace_ends, self._hangs)

    @property
    def over(self) -> bool:
        return clock.now() >= self.until

    @property
    def given_up(self) -> bool:
        """Whether those that are late hang, as far as one can tell."""
        return self._hangs < self._grace_ends

    @property
    def late_seconds(self) -> float:
        """How long those have, from when they were asked, that only miss this round."""
        return max(self._timeouts.hang, _HANGS * (clock.now() - self._began))

    @property
    def reason(self) -> str:
        """Why those that are late do not count."""
        if not self.given_up:
            return f"it was more than {self._grace:.3g} s later than the others"
        waited = self._hangs - self._began
        return f"it hangs: no answer in {waited:.3g} s, of which half of the workers needed a tenth at most"

    def answered(self) -> None:
        """Another one has answered."""
        self._answers += 1
        now = clock.now()
        if self._answers == self._enough:
            given = self._timeouts.grace
            self._grace = _GRACE * (now - self._began) if given is None else given
            self._grace_ends = now + self._grace
        if 2 * self._answers >= self._workers and self._hangs == math.inf:
            self._hangs = self._began + max(self._timeouts.hang, _HANGS * (now - self._began))


class Pace:
    """How long requests take that workers are given one after the other, each for some ``work``: steps, or
    records. One that takes ten times as long as the median of the last ones hangs, as one does that is late
    in a round.
    """

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._seconds: deque[float] = deque(maxlen=_REMEMBERED)  # for a unit of work
        self._median = math.inf

    def answered(self, answer: Answered, work: int, head_start: float = 0.0) -> None:
        """It came, of a worker that had begun ``head_start`` seconds before it was asked."""
        self._seconds.append((answer.at - answer.request.made + head_start) / work)
        self._median = median(self._seconds)

    def until(self, request: Request, work: int, head_start: float = 0.0) -> float:
        """When a worker that has not answered hangs, on the clock of ``clock.now``; never as long as
        nothing is known."""
        return request.made - head_start + max(self._timeouts.hang, _HANGS * self._median * work)

    def reason(self, request: Request) -> str:
        waited = clock.now() - request.made
        return f"it hangs: no answer in {waited:.3g} s, where half of the answers took a tenth at most"
