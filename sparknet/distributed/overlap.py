"""Which workers have begun the next round before this one's average is known (``sparknet/overlap.py``).

Only workers that were in the last average run ahead. Whoever was not in it, a newcomer or one that missed it,
waits for a round that all begin together: the round under way is then the last that overlaps.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sparknet import clock
from sparknet.distributed.messages import Member
from sparknet.training import RoundPlan


class Overlap:
    """``used`` once a round has been run whose workers may run ahead."""

    def __init__(self) -> None:
        self.used = False
        self._asked = 0.0

    def runners(
        self, members: list[Member], ahead: RoundPlan | None
    ) -> tuple[list[Member], RoundPlan | None]:
        """Who takes part in the round, and with what plan they go on before its average is known, if any."""
        late = [member for member in members if member.is_ahead]
        if not late:
            return members, ahead
        return late, ahead if len(late) == len(members) else None

    def head_start(self, runners: Sequence[Member]) -> float:
        """For how many seconds they have worked at the round that they are about to be asked for."""
        before, self._asked = self._asked, clock.now()
        return self._asked - before if any(member.is_ahead for member in runners) else 0.0

    def ran(self, members: Iterable[Member], kept: Iterable[Member], ahead: RoundPlan | None) -> None:
        """A round is over: ``kept`` are in its average, and go on with the plan ``ahead``."""
        self.used = self.used or ahead is not None
        self.drop(members)
        for member in kept:
            member.is_ahead = ahead is not None

    def drop(self, members: Iterable[Member]) -> None:
        """What ``members`` have begun does not count."""
        for member in members:
            member.is_ahead = False
