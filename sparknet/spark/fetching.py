"""Vectors that come from the workers to the driver when somebody asks for them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from sparknet.spark import answers
from sparknet.spark.exchange import Kind, raw
from sparknet.spark.members import Deadlines, Fetched, Member, Message, Task
from sparknet.spark.membership import Membership
from sparknet.weights import Vector


class Fetching:
    """From ``members``; ``take_bytes`` says how many came."""

    def __init__(self, members: Membership, deadlines: Deadlines) -> None:
        self._members, self._deadlines = members, deadlines
        self._bytes = 0

    def vector(self, keepers: Iterable[Member], what: str = "weights") -> Vector | None:
        """float32 (P,), read-only, from one of those that have it, the idle ones first; None if all fail."""
        for member in sorted(keepers, key=lambda member: member.task is not None):
            vector = np.empty(member.size, np.float32)
            task = Task(
                messages=(Message(Kind.FETCH, {"what": what}),),
                answers=(Kind.WEIGHTS,),
                read=answers.fetched,
                seconds=self._deadlines.round,
                into={Kind.WEIGHTS: raw(vector)},
            )
            for answer in self._members.ask({member: task}):
                if answer.content == Fetched(size=vector.nbytes):
                    self._bytes += answer.received
                    vector.flags.writeable = False
                    return vector
        return None

    def take_bytes(self) -> int:
        """Since the last call."""
        count, self._bytes = self._bytes, 0
        return count
