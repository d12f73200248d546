"""What workers bring after the round it was for: it counts in the round in which it comes.

    worker k:  round r, from w_r ──────────────────────────> y_k     counts in round s, as w_s + (y_k - w_r)
    others:    round r ──> w_(r+1) ─ round r + 1 ──> ... w_s ─ round s ──┘

That is the delay-corrected rule (``sparknet/overlap.py``): the progress of a late worker is kept, and nothing
of the others' is undone. Of work that is many rounds old too little is known: it does not count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparknet.distributed.membership import Membership
from sparknet.distributed.messages import Answered, Member, Request
from sparknet.training import Report
from sparknet.weights import Vector

# Rounds that an answer may come too late, as a worker hangs that takes ten times as long as others.
_ROUNDS = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class LateWork:
    """``report`` of ``member``, whose weights had gone ``delta`` float32 (P,) from where they began.
    ``moved`` is its L2 norm."""

    member: Member
    report: Report
    delta: Vector
    moved: float


class LateAnswers:
    """Waits for those that were late, and keeps what they bring until it is merged."""

    def __init__(self, members: Membership) -> None:
        self._members = members
        self._round = 0
        self._due: dict[Request, tuple[Member, int]] = {}
        self._work: list[LateWork] = []

    def begin(self) -> None:
        """Another round begins."""
        self._round += 1

    def expect(self, member: Member, request: Request) -> None:
        """It has not answered within the round."""
        self._due[request] = member, self._round

    def collect(self) -> list[Answered]:
        """Take what has come since the last call; before the members that it is of are given another request.

        What is too old, or of one that has gone meanwhile, is left out, and recorded as lost.
        """
        found = []
        for request, (member, number) in list(self._due.items()):
            answer = self._members.claim(member, request)
            if answer is None and self._members.has(member):
                continue
            del self._due[request]
            if answer is None or not isinstance(answer.content, Report) or not self._members.has(member):
                continue
            if self._round - number > _ROUNDS:
                self._members.lost(member, f"its work came {self._round - number} rounds too late")
                continue
            found.append(answer)
            delta = np.subtract(member.vector, member.base)
            self._work.append(LateWork(member=member, report=answer.content, delta=delta, moved=member.moved))
        return found

    def take(self) -> list[LateWork]:
        """What is to be merged."""
        work, self._work = self._work, []
        return work

    def drop(self) -> None:
        """What is on its way does not count."""
        for request, (member, _) in self._due.items():
            if self._members.claim(member, request) is None:
                request.given_up = True
        self._due.clear()
        self._work.clear()
