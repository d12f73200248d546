"""Weights that the workers compute for themselves and keep, and the driver's copies of them.

The driver fetches them from one of those that have them when somebody asks for them: for a checkpoint, for a
worker that has just joined, at the end. And it fetches them before a worker leaves, and every ``copy_every``
rounds: if all that had the last ones are lost at once, training goes on from that copy.
"""

from __future__ import annotations

import numpy as np

from sparknet.distributed.averaging import COPY_EVERY
from sparknet.distributed.averaging.remote_weights import Fetcher, Versions
from sparknet.distributed.comm.channel import NOTHING, raw
from sparknet.distributed.membership import Membership
from sparknet.distributed.messages import Member
from sparknet.distributed.timeouts import Timeouts
from sparknet.errors import TrainingError, UsageError, WorkersLost
from sparknet.outer import Average, Outer
from sparknet.weights import Vector, Weights

# The number of weights that nobody has.
_GONE = -1


class WorkerWeights:
    """Weights that the workers computed and have; ``fetch`` brings them to the driver."""

    def __init__(self, kept: KeptWeights, number: int) -> None:
        self.number, self._kept = number, kept
        self._vector: Vector | None = None

    def fetch(self) -> Vector:
        """float32 (P,), read-only: as long as they are the current ones, those that the next round begins
        from, which are older if all that had them are lost. Raises WorkersLost if nobody has them any more.
        """
        if self._vector is None:
            self._vector = self._kept.fetched(self.number)
        return self._vector

    def stepped(self, outer: Outer, lr: float) -> WorkerWeights | None:
        """The weights after the outer step, which those that have these take; None if they cannot.

        These are gone then, unless they have been fetched.
        """
        if isinstance(outer, Average):
            return self
        if not self._kept.take_step(self.number, outer, lr):
            return None
        after, self.number = WorkerWeights(self._kept, self.number), _GONE
        return after


class KeptWeights:
    """Those of ``members``, by the numbers that ``versions`` gives them."""

    def __init__(
        self, versions: Versions, members: Membership, timeouts: Timeouts, copy_every: int = COPY_EVERY
    ) -> None:
        if copy_every < 1:
            raise UsageError(f"a copy of the weights every {copy_every} rounds: at least 1 is needed")
        self._copy_every, self._closed = copy_every, False
        self._versions, self._members = versions, members
        self._fetcher = Fetcher(members, timeouts)

    def begin(self, weights: Weights) -> None:
        self.publish(weights)
        if self._versions.number - self._versions.fetched >= self._copy_every:
            self.secure()

    def secure(self) -> None:
        """Bring to the driver what only workers have, if they still have it."""
        self._current()

    def can_send(self, member: Member) -> bool:
        """Whether it could be sent the weights at once: it has them, the driver has, or an idle worker."""
        keepers = self._keepers(self._versions.number)
        here = self._versions.number in (member.version, self._versions.fetched)
        return here or not keepers or any(keeper.is_idle for keeper in keepers)

    def publish(self, weights: Weights) -> None:
        """These are the current weights. Raises TrainingError if the workers have gone on from them."""
        if not isinstance(weights, WorkerWeights):
            assert isinstance(weights, np.ndarray)
            self._versions.publish(weights)
        elif weights.number != self._versions.number:
            raise TrainingError("these weights are of an earlier round: the workers have gone on from them")

    def whole(self, member: Member) -> memoryview:
        """The weights for a member that has not got them."""
        if member.version == self._versions.number:
            return NOTHING
        payload = raw(self._current())
        member.version = self._versions.number
        return payload

    def fetched(self, number: int) -> Vector:
        """The weights of this number, or what has taken their place. Raises WorkersLost if nobody has them
        any more, and training has gone on."""
        if number == self._versions.fetched:
            return self._versions.vector
        if number == self._versions.number and not self._closed:
            return self._current()
        vector = self._fetcher.vector(self._keepers(number))
        if vector is None:
            raise WorkersLost(
                "the workers that had these weights are gone, or have gone on from them: ask for them "
                "before the next round, and before the workers are closed"
            )
        return vector

    def take_fetched(self) -> int:
        """Bytes of weights that were fetched since the last call."""
        return self._fetcher.take_bytes()

    def take_step(self, number: int, outer: Outer, lr: float) -> bool:
        """Have the workers take the outer step from the weights of this number; False if they cannot."""
        del number, outer, lr
        return False

    def close(self) -> None:
        """The workers will not be asked any more."""
        self._closed = True

    def _current(self) -> Vector:
        """The current weights; if all that had them are gone, the last that the driver has."""
        versions = self._versions
        if versions.fetched != versions.number:
            vector = self._fetcher.vector(self._keepers(versions.number))
            if vector is not None:
                versions.arrived(vector)
            else:
                behind = versions.go_back()
                self._members.record_loss(
                    f"all that had the last average: going on from that of {behind} rounds before"
                )
        return versions.vector

    def _keepers(self, number: int) -> list[Member]:
        """Those that have the weights of this number."""
        return [member for member in self._members.all if member.start_version == number]
