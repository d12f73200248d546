"""The driver's part when the workers average among themselves: who takes part, and whether it counts.

all report, without weights ──> REDUCE to those that are believed ──> each: a mean, in memory of its own
all have it: COMMIT;  one was lost: the others form a new group (epoch) and do it again, from what they
still have
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from sparknet.errors import TrainingError
from sparknet.spark.exchange import Frame, Kind
from sparknet.spark.members import Answered, Deadlines, Member, Message, Reduced, Task
from sparknet.spark.membership import Membership
from sparknet.spark.peers import new_store
from sparknet.weights import Vector

# Times that a group may fail in full strength before it is given up.
_TRIES = 3


class Ring:
    """Groups of members. ``holders`` have the last mean, and have been told to go on from it."""

    def __init__(self, host: str, members: Membership, deadlines: Deadlines) -> None:
        self._members, self._deadlines = members, deadlines
        self._store = new_store(host)
        self.port: int = self._store.port
        self.holders: list[Member] = []
        self.mean_bytes = 0
        self._mean: Vector | None = None
        self._group: list[Member] = []
        self._epoch = 0

    def mean(self, steps: Mapping[Member, int], *, history: bool) -> Vector | None:
        """The mean of the members' weights, float32 (P,), each counted by its steps; None if all were lost.

        With ``history`` they average that of their solvers too.
        """
        group, tries = sorted(steps, key=lambda member: member.who.partition), 0
        while group:
            answers = self._members.ask(self._tasks(group, steps, history))
            if len(answers) == len(group) and all(answer.content == Reduced() for answer in answers):
                return self._committed(group)
            left = [member for member in group if self._members.has(member)]
            tries = tries + 1 if left == group else 0
            if tries == _TRIES:
                raise TrainingError(_failure(answers))
            self._group, group = [], left
        return None

    def made(self, weights: Vector) -> bool:
        """Whether ``weights`` are the last mean itself, which its holders need not be sent."""
        mean = self._mean
        return mean is not None and weights.ctypes.data == mean.ctypes.data and weights.size == mean.size

    def close(self) -> None:
        self._store = None

    def _tasks(self, group: list[Member], steps: Mapping[Member, int], history: bool) -> dict[Member, Task]:
        if group != self._group:
            self._group, self._epoch = group, self._epoch + 1
        total = sum(steps[member] for member in group)
        place = {"epoch": self._epoch, "size": len(group), "history": history}
        return {
            member: Task(
                messages=(
                    Message(
                        Kind.REDUCE,
                        {**place, "rank": rank, "share": steps[member] / total, "send": rank == 0},
                    ),
                ),
                answers=(Kind.REDUCED,),
                read=_reduced,
                seconds=2 * self._deadlines.send,
            )
            for rank, member in enumerate(group)
        }

    def _committed(self, group: list[Member]) -> Vector:
        for member in group:
            member.prelude.append(Message(Kind.COMMIT, {}))
        self.holders = group
        self._mean = group[0].buffer.view(np.float32).copy()
        self.mean_bytes = self._mean.nbytes
        return self._mean


def _reduced(_member: Member, frames: Sequence[Frame]) -> Reduced:
    note = frames[0].note
    return Reduced() if note.get("done") else Reduced(failure=str(note.get("reason")))


def _failure(answers: Sequence[Answered]) -> str:
    reasons = {
        str(answer.member): answer.content.failure
        for answer in answers
        if isinstance(answer.content, Reduced) and answer.content.failure
    }
    who, reason = next(iter(reasons.items()), ("a worker", "no answer"))
    return (
        f"the workers could not average among themselves, though none was lost: {who}: {reason}. "
        'Open all ports between them, or let the driver do it (exchange="star")'
    )
