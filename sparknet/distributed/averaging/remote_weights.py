"""Which weights are where, and how the driver fetches those that the workers have.

Every vector that a round or a test may start from has a number. A member's ``version`` is the one
that its net has now, its ``start_version`` the one that its round began from.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sparknet import clock
from sparknet.distributed.comm.channel import Kind, raw
from sparknet.distributed.membership import Membership
from sparknet.distributed.messages import Fetched, Member, Message, Request, read_fetched
from sparknet.distributed.timeouts import Timeouts
from sparknet.weights import Vector


class Versions:
    """``number`` is that of the current weights; ``vector`` float32 (P,) are those of number ``fetched``.

    ``losses`` counts how often the current ones were lost, and older ones took their place.
    """

    def __init__(self) -> None:
        self.number = self.fetched = self.losses = 0
        self.vector: Vector = np.empty(0, np.float32)

    def publish(self, weights: Vector) -> None:
        """These are the current weights, and the driver has them."""
        if weights is not self.vector or self.fetched != self.number:
            self.vector = weights
            self.number += 1
            self.fetched = self.number

    def made_by_workers(self) -> int:
        """The workers have made new ones among themselves; their number."""
        self.number += 1
        return self.number

    def arrived(self, weights: Vector) -> None:
        """The current weights have come to the driver."""
        self.vector, self.fetched = weights, self.number

    def go_back(self) -> int:
        """The current weights are lost: the driver's are the current ones now. How many rounds that is."""
        behind, self.fetched = self.number - self.fetched, self.number
        self.losses += 1
        return behind


class Fetcher:
    """From ``members``; ``take_bytes`` says how many came."""

    def __init__(self, members: Membership, timeouts: Timeouts) -> None:
        self._members, self._timeouts = members, timeouts
        self._bytes = 0

    def vector(self, keepers: Iterable[Member], what: str = "weights") -> Vector | None:
        """float32 (P,), read-only, from one of those that have it, the idle ones first; None if all fail."""
        for member in sorted(keepers, key=lambda member: not member.is_idle):
            vector = np.empty(member.size, np.float32)
            request = Request(
                messages=(Message(Kind.FETCH, {"what": what}),),
                answers=(Kind.WEIGHTS,),
                read=read_fetched,
                seconds=self._seconds(member, vector.nbytes),
                flows=True,
                into={Kind.WEIGHTS: raw(vector)},
            )
            for answer in self._members.ask({member: request}):
                if answer.content == Fetched(size=vector.nbytes):
                    self._bytes += answer.received
                    vector.flags.writeable = False
                    return vector
        return None

    def _seconds(self, member: Member, size: int) -> float:
        """How long a member has: one that has something else to do does that first."""
        busy = max((request.deadline for request in member.unanswered), default=0.0) - clock.now()
        return max(0.0, busy) + self._timeouts.transfer(size)

    def take_bytes(self) -> int:
        """Since the last call."""
        count, self._bytes = self._bytes, 0
        return count
