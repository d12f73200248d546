"""The driver's part when the workers average among themselves: who takes part, and whether it counts.

all report, without weights ──> REDUCE ──> each: the mean in a buffer, and how far its weights had moved
all finished, none was rejected as an outlier: COMMIT
one was lost or rejected: the others form a new group and average again, from the weights they still have

A group whose members all have a GPU of their own averages there, by NCCL; the others do in host memory, by
gloo (``rendezvous.py``). One that fails on its GPUs though nobody was lost goes on in host memory.

The mean stays with the workers. The driver fetches it from one of them when somebody asks for it: for a
checkpoint, for a worker that has just joined, at the end. And it fetches it before a worker leaves, and every
``copy_every`` rounds: if all that had the last mean are lost at once, training goes on from that copy.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from sparknet import clock
from sparknet.codecs import Float32
from sparknet.distributed.averaging import COPY_EVERY
from sparknet.distributed.averaging.remote_outer import RemoteOuter
from sparknet.distributed.averaging.remote_weights import Fetcher, Versions
from sparknet.distributed.averaging.rendezvous import AbortFlag, Backend, choose_backend, new_store
from sparknet.distributed.comm.channel import NOTHING, Frame, Header, Kind, raw
from sparknet.distributed.comm.spread import AT_ONCE, SHARE, Spread
from sparknet.distributed.membership import Membership
from sparknet.distributed.messages import (
    Answered,
    Member,
    Message,
    Reduced,
    Request,
    read_bare_report,
    read_reduced,
)
from sparknet.distributed.timeouts import Timeouts
from sparknet.errors import TrainingError, UsageError, WorkersLost
from sparknet.merge import Merged, rejections
from sparknet.outer import Average, Outer
from sparknet.training import Report, RoundPlan
from sparknet.weights import Vector, Weights

log = logging.getLogger(__name__)

# Times that a group may fail in full strength before it is given up.
_TRIES = 3
# Bytes of a vector that are averaged in a second where links are slow.
SLOW = 5e6
# The number of weights that nobody has.
_GONE = -1


class WorkerWeights:
    """Weights that the workers computed and have; ``fetch`` brings them to the driver."""

    def __init__(self, ring: Ring, number: int) -> None:
        self.number, self._ring = number, ring
        self._vector: Vector | None = None

    def fetch(self) -> Vector:
        """float32 (P,), read-only: as long as they are the current ones, those that the next round begins
        from, which are older if all that had them are lost. Raises WorkersLost if nobody has them any more.
        """
        if self._vector is None:
            self._vector = self._ring.fetched(self.number)
        return self._vector

    def stepped(self, outer: Outer, lr: float) -> WorkerWeights | None:
        """The weights after the outer step, which those that have these take; None if they cannot.

        These are gone then, unless they have been fetched.
        """
        if isinstance(outer, Average):
            return self
        if not self._ring.outer.take_step(self.number, outer, lr):
            return None
        after, self.number = WorkerWeights(self._ring, self.number), _GONE
        return after


class Ring:
    """Groups of members that average. ``port`` of ``bind`` is where they find each other."""

    name = "ring"
    answers: tuple[Kind, ...] = (Kind.REPORT,)

    def __init__(
        self,
        bind: str,
        versions: Versions,
        members: Membership,
        timeouts: Timeouts,
        copy_every: int = COPY_EVERY,
    ) -> None:
        if copy_every < 1:
            raise UsageError(f"a copy of the weights every {copy_every} rounds: at least 1 is needed")
        self._copy_every, self._closed = copy_every, False
        self.codec = Float32()  # of what the driver is sent; the workers use their own among themselves
        self._versions, self._members, self._timeouts = versions, members, timeouts
        self._store = new_store(bind)
        self.port: int = self._store.port
        self._group: list[Member] = []
        self._key = ""
        self._backend: Backend = "gloo"
        self._fetcher = Fetcher(members, timeouts)
        self._sent_bytes = 0
        self._in_host_memory = self._anew = False
        self.outer = RemoteOuter(members, self._fetcher)
        self._spread = AT_ONCE
        self._is_slow = False

    def begin(self, weights: Weights) -> None:
        self.publish(weights)
        if self._versions.number - self._versions.fetched >= self._copy_every:
            self.secure()

    def secure(self) -> None:
        """Bring to the driver what only workers have, if they still have it."""
        self._current()
        self.outer.secure()

    def can_send(self, member: Member) -> bool:
        """Whether it could be sent the weights at once: it has them, the driver has, or an idle worker."""
        keepers = self._keepers(self._versions.number)
        here = self._versions.number in (member.version, self._versions.fetched)
        return here or not keepers or any(keeper.is_idle for keeper in keepers)

    def overlap(self, members: Sequence[Member]) -> None:
        """The next round is one whose workers may run ahead, and train while they average: in host memory.

        Where none has, they forget what rounding took away so far: a run that is resumed there does the same.
        """
        self._anew = not any(member.is_ahead for member in members)
        if not self._in_host_memory:
            self._in_host_memory, self._group = True, []

    def spread(self, over: Spread) -> None:
        """The workers may take that long to average this round."""
        self._spread = replace(over, seconds=SHARE * over.seconds)

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

    def train(self, member: Member, header: Header) -> list[Message]:
        payload, equipment = self.whole(member), self.outer.equip(member)
        member.version, member.start_version = 0, self._versions.number
        return [*equipment, Message(Kind.TRAIN, {**header, "ring": True}, payload)]

    def read(self, member: Member, frames: Sequence[Frame]) -> Report:
        return read_bare_report(member, frames)

    def merge(self, done: Sequence[Answered], reports: Sequence[Report], plan: RoundPlan) -> Merged | None:
        """The mean without outliers; None if all that had it were lost while they averaged it.

        Outliers are found by how far the weights had moved, which is measured while they are averaged.
        """
        steps = {answer.member: report.steps for answer, report in zip(done, reports, strict=True)}
        history = plan.momentum == "average"
        group = self._averaged(steps, history=history)
        reasons = _outliers(group)
        if reasons:
            believed = {member: steps[member] for member in group if member not in reasons}
            group = self._averaged(believed, history=history)
        if not group:
            return None
        number = self._commit(group)
        kept = tuple(k for k, answer in enumerate(done) if answer.member in group)
        rejected = {k: reasons[answer.member] for k, answer in enumerate(done) if answer.member in reasons}
        return Merged(WorkerWeights(self, number), kept, rejected, self._take_sent())

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

    def close(self) -> None:
        self._store, self._closed = None, True
        self.outer.closed = True

    def _take_sent(self) -> int:
        """Bytes that members sent to each other since the last call."""
        count, self._sent_bytes = self._sent_bytes, 0
        return count

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

    def _averaged(self, steps: Mapping[Member, int], *, history: bool) -> list[Member]:
        """Those that have the mean now, each counted by its steps, uncommitted; none if all were lost."""
        group, tries = sorted(steps, key=lambda member: member.who.partition), 0
        while group:
            if group != self._group:
                self._form(group, on_host=tries > 0)
            began = clock.now()
            done = self._members.ask(self._requests(steps, history), at_loss=self._abort)
            if len(done) == len(group) and not any(_failure(answer) for answer in done):
                self._is_slow = 4 * group[0].size < SLOW * (clock.now() - began)
                for answer in done:
                    assert isinstance(answer.content, Reduced)
                    self._sent_bytes += answer.content.sent
                    answer.member.moved = answer.content.moved
                return group
            left = [member for member in group if self._members.has(member)]
            tries = tries + 1 if left == group else 0
            if tries == _TRIES:
                raise TrainingError(_why(done))
            if tries and self._backend == "nccl":
                log.warning("these workers will average in host memory: %s", _failures(done))
            self._group, group = [], left
        return []

    def _form(self, group: list[Member], *, on_host: bool) -> None:
        """A new group, which averages on its members' GPUs if it can, and has not failed at that before."""
        self._group, self._key = group, secrets.token_hex(16)
        self._backend = (
            "gloo" if on_host or self._in_host_memory else choose_backend([member.gpu for member in group])
        )

    def _abort(self) -> None:
        """The others need not wait for the one that is lost."""
        AbortFlag.of(self._store).set(self._key)

    def _requests(self, steps: Mapping[Member, int], history: bool) -> dict[Member, Request]:
        group = self._group
        place = {
            "backend": self._backend,
            "key": self._key,
            "steps": [steps[member] for member in group],
            "history": history,
            **({"anew": True} if self._anew else {}),
            **({"slow": True} if self._is_slow and self._backend == "gloo" else {}),
            **({"spread": vars(self._spread)} if self._spread != AT_ONCE else {}),
        }
        return {
            member: Request(
                messages=(Message(Kind.REDUCE, {**place, "rank": rank}),),
                answers=(Kind.REDUCED,),
                read=read_reduced,
                seconds=2 * self._timeouts.send + self._spread.seconds,  # workers say when they get on
                flows=True,
            )
            for rank, member in enumerate(group)
        }

    def _commit(self, group: Sequence[Member]) -> int:
        """All of them go on from the mean; the number of the weights that it is."""
        number = self._versions.made_by_workers()
        for member in group:
            member.pending.append(Message(Kind.COMMIT, {}))
            member.version = member.start_version = number
        return number


def _outliers(group: Sequence[Member]) -> dict[Member, str]:
    """The members whose weights must not count, and why. Raises TrainingError if that is all of them."""
    if not group:
        return {}
    return {group[k]: reason for k, reason in rejections([member.moved for member in group]).items()}


def _failure(answer: Answered) -> str:
    return answer.content.failure if isinstance(answer.content, Reduced) else "no answer"


def _failures(done: Sequence[Answered]) -> str:
    """The first of them, and whose it was."""
    reasons = (f"{answer.member}: {_failure(answer)}" for answer in done if _failure(answer))
    return next(reasons, "a worker: no answer")


def _why(done: Sequence[Answered]) -> str:
    return (
        f"the workers could not average among themselves, though none was lost: {_failures(done)}. "
        'Open all ports between them, or let the driver do it (exchange="star")'
    )
