"""The driver's part when the workers average among themselves: who takes part, and whether it counts.

all report, without weights ──> REDUCE ──> each: the mean in a buffer, and how far its weights had moved
all finished, none was rejected as an outlier: COMMIT
one was lost or rejected: the others form a new group and average again, from the weights they still have

A group whose members all have a GPU of their own averages there, by NCCL; the others do in host memory, by
gloo (``rendezvous.py``). One that fails on its GPUs though nobody was lost goes on in host memory.

Where gradients are averaged the group is formed before the round, and its members begin with it while they
compute: what they are asked for by REDUCE has gone most of its way then.

The mean stays with the workers (``kept_weights.py``).
"""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace

from sparknet import clock
from sparknet.codecs import Float32
from sparknet.distributed.averaging import COPY_EVERY
from sparknet.distributed.averaging.kept_weights import KeptWeights, WorkerWeights
from sparknet.distributed.averaging.remote_outer import RemoteOuter
from sparknet.distributed.averaging.remote_weights import Versions
from sparknet.distributed.averaging.rendezvous import AbortFlag, Backend, choose_backend, new_store
from sparknet.distributed.comm.channel import Frame, Header, Kind
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
from sparknet.errors import TrainingError
from sparknet.gradients import unused_by_all
from sparknet.merge import OUTLIER, Merged, rejections
from sparknet.outer import Outer
from sparknet.training import Report, RoundPlan

log = logging.getLogger(__name__)

# Times that a group may fail in full strength before it is given up.
_TRIES = 3
# Bytes of a vector that are averaged in a second where links are slow.
SLOW = 5e6


class Ring(KeptWeights):
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
        super().__init__(versions, members, timeouts, copy_every)
        self.codec = Float32()  # of what the driver is sent; the workers use their own among themselves
        self._timeouts = timeouts
        self._store = new_store(bind)
        self.port: int = self._store.port
        self._group: list[Member] = []
        self._key = ""
        self._backend: Backend = "gloo"
        self._sent_bytes = 0
        self._in_host_memory = self._anew = self._of_gradients = False
        self.outer = RemoteOuter(members, self._fetcher)
        self._spread = AT_ONCE
        self._is_slow = False

    def secure(self) -> None:
        super().secure()
        self.outer.secure()

    def take_step(self, number: int, outer: Outer, lr: float) -> bool:
        return self.outer.take_step(number, outer, lr)

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

    def form(self, members: Sequence[Member], plan: RoundPlan) -> None:
        """These begin a round: where gradients are averaged, as a group, in host memory."""
        if plan.gradients != self._of_gradients:
            self._of_gradients, self._group = plan.gradients, []
        if plan.gradients and list(members) != self._group:
            self._in_host_memory = True
            self._form(list(members), on_host=True)

    def train(self, member: Member, header: Header) -> list[Message]:
        payload, equipment = self.whole(member), self.outer.equip(member)
        member.version, member.start_version = 0, self._versions.number
        group = {}
        if header["gradients"]:
            rank = self._group.index(member)
            group["group"] = {"key": self._key, "rank": rank, "size": len(self._group)}
        return [*equipment, Message(Kind.TRAIN, {**header, "ring": True, **group}, payload)]

    def read(self, member: Member, frames: Sequence[Frame]) -> Report:
        return read_bare_report(member, frames)

    def merge(self, done: Sequence[Answered], reports: Sequence[Report], plan: RoundPlan) -> Merged | None:
        """The mean without outliers; None if all that had it were lost while they averaged it.

        Outliers are found by how far the weights had moved, which is measured while they are averaged; of
        gradients only those do not count that are not finite.
        """
        steps = {answer.member: report.steps for answer, report in zip(done, reports, strict=True)}
        history = plan.momentum == "average"
        group = self._averaged(steps, history=history)
        reasons = _outliers(group, math.inf if plan.gradients else OUTLIER)
        if reasons:
            believed = {member: steps[member] for member in group if member not in reasons}
            group = self._averaged(believed, history=history)
        if not group:
            return None
        kept = tuple(k for k, answer in enumerate(done) if answer.member in group)
        unused = unused_by_all(reports[k].unused for k in kept) if plan.gradients else ()
        number = self._commit(group, {"unused": unused} if unused else {})
        if plan.gradients:
            for member in self._members.all:
                member.is_new = member.is_new or member not in group  # it has not taken this step
        rejected = {k: reasons[answer.member] for k, answer in enumerate(done) if answer.member in reasons}
        return Merged(WorkerWeights(self, number), kept, rejected, self._take_sent())

    def close(self) -> None:
        super().close()
        self._store = None
        self.outer.closed = True

    def _take_sent(self) -> int:
        """Bytes that members sent to each other since the last call."""
        count, self._sent_bytes = self._sent_bytes, 0
        return count

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

    def _commit(self, group: Sequence[Member], header: Header) -> int:
        """All of them go on from the mean; the number of the weights that it is."""
        number = self._versions.made_by_workers()
        for member in group:
            member.pending.append(Message(Kind.COMMIT, header))
            member.version = member.start_version = number
        return number


def _outliers(group: Sequence[Member], outlier: float) -> dict[Member, str]:
    """The members whose weights must not count, and why. Raises TrainingError if that is all of them."""
    if not group:
        return {}
    return {group[k]: reason for k, reason in rejections([member.moved for member in group], outlier).items()}


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
