"""Carries out the plans of ``shard_assignment.py``: has workers yield, assigns shards, submits tasks again.

    driver ── YIELD ───────────────────> worker    hands its shards over and ends its task
    driver <─ STATE, YIELDED(records) ── worker
    driver ── ASSIGN(shard: position) ─> worker    all it is to train on; maps what it has not, drops the rest
    driver <─ ASSIGNED(shard: records) ─ worker

Only between rounds, with workers that have nothing to do.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import replace

from sparknet.distributed.comm.channel import Frame, Header, Kind
from sparknet.distributed.membership import Membership
from sparknet.distributed.messages import (
    Assigned,
    Member,
    Message,
    Request,
    Yielded,
    read_assigned,
    read_yielded,
)
from sparknet.training import WorkerState

log = logging.getLogger(__name__)

# Seconds without a newcomer after which those who are here are all that the slots can hold.
_QUIET_SECONDS = 3.0

Submit = Callable[[Sequence[int]], None]
"""Gives Spark the tasks of these shards once more."""


class Rebalancer:
    """For ``members``; ``states`` are the last known of each shard, and are kept up to date here.

    ``slots`` says how many tasks can run at once, if that is known.
    """

    def __init__(
        self,
        members: Membership,
        states: MutableMapping[int, WorkerState],
        submit: Submit | None = None,
        slots: Callable[[], int] | None = None,
    ) -> None:
        self._members, self._assignment, self._states = members, members.assignment, states
        self._submit, self._slots = submit or _nothing, slots
        self._full = False
        members.settle = self.settle

    @property
    def due(self) -> bool:
        """Whether ``settle`` would move somebody, if all were idle."""
        if self._assignment.settled:
            return False
        plan = self._assignment.plan(time.monotonic(), stay=self._stay, full=self._is_full())
        return bool(plan.yields or plan.assignments or plan.submit)

    def settle(self) -> bool:
        """Take the next step towards every shard having a worker; whether that moved anybody."""
        if self._assignment.settled:
            return False
        plan = self._assignment.plan(time.monotonic(), stay=self._stay, full=self._is_full())
        moved = self._yield(plan.yields) + self._assign(plan.assignments)
        if plan.submit:
            log.info("the shards %s wait for workers of their own", ", ".join(map(str, plan.submit)))
            self._submit(plan.submit)
            self._assignment.submitted(plan.submit)
        return moved > 0

    def progressed(self, worker: int, shard: int, iteration: int, position: int) -> None:
        """The worker has trained: where whoever takes over one of its shards goes on."""
        self._states[shard] = WorkerState(iteration=iteration, position=position)
        for other in {worker, *self._assignment.of(worker)} - {shard}:
            self._states[other] = replace(self._states.get(other, WorkerState()), iteration=iteration)

    def send_positions(self) -> None:
        """The states have been replaced: send the positions to every worker with further shards."""
        held = {member.who.partition: frozenset(member.shards) for member in self._members.all}
        self._assign({worker: shards for worker, shards in held.items() if shards - {worker}})

    @property
    def _stay(self) -> int:
        """At least half of the workers go on training while others yield."""
        return len(self._members.all) // 2 if self._members.assembled else 0

    def _is_full(self) -> bool:
        """Whether no slot is free: before training begins that is known once nobody comes any more."""
        if self._members.assembled or self._slots is None:
            return False
        quiet = time.monotonic() - self._members.changed >= _QUIET_SECONDS
        self._full = self._full or (quiet and 0 < self._slots() <= len(self._members.all))
        return self._full

    def _yield(self, workers: Iterable[int]) -> int:
        requests = {
            member: self._request(Kind.YIELD, {}, answers=(Kind.STATE, Kind.YIELDED), read=read_yielded)
            for member in self._idle(workers)
        }
        for answer in self._members.ask(requests):
            member, content = answer.member, answer.content
            if isinstance(content, Yielded):
                log.info("%s yielded its slot to a shard that had no worker", member)
                self._states[member.who.partition] = content.state
                self._members.dismiss(member)
                now = time.monotonic()
                self._assignment.yielded(member.who.partition, content.records, content.place, now)
        return len(requests)

    def _assign(self, assignments: Mapping[int, Iterable[int]]) -> int:
        requests = {
            member: self._request(
                Kind.ASSIGN,
                {"shards": self._positions(assignments[member.who.partition])},
                answers=(Kind.ASSIGNED,),
                read=read_assigned,
            )
            for member in self._idle(assignments)
        }
        for answer in self._members.ask(requests):
            if isinstance(answer.content, Assigned):
                member = answer.member
                member.shards = dict(answer.content.records)
                log.info("%s trains on the shards %s", member, ", ".join(map(str, sorted(member.shards))))
                self._assignment.confirmed(member.who.partition, member.shards, time.monotonic())
        return len(requests)

    def _idle(self, workers: Iterable[int]) -> list[Member]:
        wanted = set(workers)
        return [m for m in self._members.all if m.who.partition in wanted and m.request is None]

    def _positions(self, shards: Iterable[int]) -> dict[str, int]:
        return {str(shard): self._states.get(shard, WorkerState()).position for shard in shards}

    def _request(
        self,
        kind: Kind,
        header: Header,
        *,
        answers: tuple[Kind, ...],
        read: Callable[[Member, Sequence[Frame]], Yielded | Assigned],
    ) -> Request:
        seconds = self._members.timeouts.round
        return Request(messages=(Message(kind, header),), answers=answers, read=read, seconds=seconds)


def _nothing(_shards: Sequence[int]) -> None:
    """There is no Spark that could be given a task."""
