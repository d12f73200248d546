"""The driver's part when the workers take the outer optimiser's step themselves, each on its own mean.

    first step:  OUTER(settings) [MEMORY] ──> every worker    makes one like the driver's
    each round:  COMMIT(lr) ────────────────> every worker    the mean, then the step from the round's start
    a newcomer:  OUTER, MEMORY ─────────────> it alone        with its first weights, by way of the driver

The step is elementwise, and every worker has the same start, mean and memory: so they all compute the same
weights, which are those that the driver would compute. The memory stays with the workers as the weights do;
the driver fetches it for a checkpoint and for newcomers.
"""

from __future__ import annotations

import numpy as np

from sparknet.distributed.averaging.remote_weights import Fetcher
from sparknet.distributed.comm.channel import NOTHING, Kind, raw
from sparknet.distributed.membership import Membership
from sparknet.distributed.messages import Member, Message
from sparknet.errors import WorkersLost
from sparknet.outer import Outer, Repeatable, settings_of
from sparknet.weights import Vector, fetch

# The version of those that have been sent the optimiser and have taken no step.
_BEGUN = -1


class RemoteMemory:
    """The memory that the workers have after the weights of ``number``; ``fetch`` brings it to the driver."""

    def __init__(self, outer: RemoteOuter, number: int) -> None:
        self.number, self._outer = number, outer
        self._vector: Vector | None = None

    def fetch(self) -> Vector:
        """float32 (P,), read-only: what was fetched last, if all that had it are lost. Raises WorkersLost if
        nobody has it any more, and training has gone on."""
        if self._vector is None:
            self._vector = self._outer.fetched(self)
        return self._vector


class RemoteOuter:
    """Of ``members``, which average among themselves."""

    def __init__(self, members: Membership, fetcher: Fetcher) -> None:
        self._members, self._fetcher = members, fetcher
        self._outer: Repeatable | None = None
        self._given: RemoteMemory | None = None
        self._at = 0
        self._last: Vector | None = None
        self._size = 0
        self.closed = False

    def take_step(self, number: int, outer: Outer, lr: float) -> bool:
        """Have those that are about to commit the mean of ``number`` take a step from it.

        False if they cannot: they have committed it, or the optimiser is the user's own.
        """
        keepers = [member for member in self._members.all if member.start_version == number]
        if not (keepers and all(_about_to_commit(member) for member in keepers)):
            return False
        if not (isinstance(outer, Repeatable) and settings_of(outer)):
            return False
        if self._given is None or outer.memory is not self._given:
            self._begin(outer, keepers)
        for member in keepers:
            if member.outer_version == self._at:
                member.pending[-1] = Message(Kind.COMMIT, {"lr": lr})
                member.outer_version = number
            else:  # it could not take the step: it will be sent the weights instead
                member.pending.clear()
                member.version = member.start_version = 0
        self._at = number
        outer.memory = self._given = RemoteMemory(self, number)
        return True

    def equip(self, member: Member) -> list[Message]:
        """What a worker has to be sent before a round at whose end it takes a step."""
        if self._outer is None or self._given is None or member.outer_version == self._at:
            return []
        if self._outer.memory is not self._given:
            return []  # it has been reset, and all will be sent it
        memory = self._given.fetch()
        member.outer_version = self._at
        return _messages(self._outer, memory)

    def secure(self) -> None:
        """Bring the memory to the driver."""
        if self._given is not None and self._outer is not None and self._outer.memory is self._given:
            self._given.fetch()

    def fetched(self, memory: RemoteMemory) -> Vector:
        """The memory, or what has taken its place. Raises WorkersLost if nobody has it any more."""
        having = [member for member in self._members.all if member.outer_version == memory.number]
        vector = self._fetcher.vector(having, "memory")
        if vector is None and memory is self._given and not self.closed:
            return self._lost()
        if vector is None:
            raise WorkersLost(
                "the workers that had the outer optimiser's momentum are gone, or have gone on: ask for it "
                "before the next round, and before the workers are closed"
            )
        self._last = vector
        return vector

    def _begin(self, outer: Repeatable, keepers: list[Member]) -> None:
        """Send those that commit the driver's optimiser and its memory."""
        self._outer, self._size = outer, keepers[0].size
        self._last = None if outer.memory is None else fetch(outer.memory)
        self._at = _BEGUN
        for member in self._members.all:
            member.outer_version = 0
        for member in keepers:
            member.pending[:0] = _messages(outer, self._last)
            member.outer_version = _BEGUN

    def _lost(self) -> Vector:
        """All that had the memory are gone: go on from the last that the driver has, or from none."""
        kept = "that which was fetched last" if self._last is not None else "none"
        self._members.record_loss(f"all that had the outer optimiser's momentum: going on from {kept}")
        return np.zeros(self._size, np.float32) if self._last is None else self._last


def _about_to_commit(member: Member) -> bool:
    return bool(member.pending) and member.pending[-1].kind is Kind.COMMIT


def _messages(outer: Repeatable, memory: Vector | None) -> list[Message]:
    header = {"outer": settings_of(outer), "memory": memory is not None}
    payload = NOTHING if memory is None else raw(memory)
    return [Message(Kind.OUTER, header), *([Message(Kind.MEMORY, {}, payload)] if memory is not None else [])]
