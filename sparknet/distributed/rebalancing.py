"""Carries out the plans of ``shard_assignment.py``: has workers yield, assigns shards, submits tasks again,
and ends tasks that hang.

    driver ── YIELD ───────────────────> worker    hands its shards over and ends its task; where its machine
                                                   is taken back, only says how far it came
    driver <─ STATE, YIELDED(records) ── worker
    driver ── STOP ────────────────────> worker    which ends its task when it knows that this has come
    driver ── ASSIGN(shard: position) ─> worker    all it is to train on; maps what it has not, drops the rest
    driver <─ ASSIGNED(shard: records) ─ worker

Only between rounds, with workers that have nothing to do.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Collection, Container, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace

from sparknet import clock
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
from sparknet.distributed.shard_assignment import Plan
from sparknet.training import Report, WorkerState

log = logging.getLogger(__name__)

# Seconds without a newcomer after which those who are here are all that the slots can hold.
_QUIET_SECONDS = 3.0

# Spark is asked what its tasks do no more often than this: while shards have no worker, and while all have.
_TASKS_SECONDS, _IDLE_SECONDS = 0.5, 10.0

Submit = Callable[[Sequence[int]], None]
"""Gives Spark the tasks of these shards once more."""


@dataclass(frozen=True, kw_only=True)
class TaskStatus:
    """A task of Spark's that has not ended: its ``attempt``, None while it waits for a slot, which has run
    for ``seconds``."""

    attempt: int | None = None
    seconds: float = 0.0


class Rebalancer:
    """For ``members``; ``states`` are the last known of each shard, and are kept up to date here.

    ``secure`` brings to the driver what only workers have, before one of them leaves. ``slots`` says how many
    tasks can run at once, ``tasks`` what has become of each shard's, if that is known; ``end_task`` ends an
    attempt, and Spark starts the task again.
    """

    def __init__(
        self,
        members: Membership,
        states: MutableMapping[int, WorkerState],
        *,
        secure: Callable[[], None],
        submit: Submit | None = None,
        slots: Callable[[], int] | None = None,
        tasks: Callable[[], Mapping[int, TaskStatus]] | None = None,
        end_task: Callable[[int], None] | None = None,
    ) -> None:
        self._members, self._assignment, self._states = members, members.assignment, states
        self._secure, self._submit, self._slots = secure, submit or _nothing, slots
        self._ask_for_tasks, self._end_task = tasks, end_task
        self._tasks: Mapping[int, TaskStatus] = {}
        self._asked = -math.inf
        self._full = False
        members.settle = self.settle

    @property
    def due(self) -> bool:
        """Whether ``settle`` would move somebody, if all were idle."""
        if any(member.is_leaving for member in self._members.all):
            return True
        if self._assignment.settled:
            return False
        plan = self._plan()
        return bool(plan.yields or plan.assignments or plan.submit or self._hanging(plan.hanging))

    def settle(self) -> bool:
        """Take the next step towards every shard having a worker; whether that moved anybody."""
        self.watch()
        released = self._release()
        if self._assignment.settled:
            return released > 0
        plan = self._plan()
        self._end(plan.hanging)
        moved = released + self._yield(plan.yields) + self._assign(plan.assignments)
        if plan.submit:
            log.info("the shards %s wait for workers of their own", ", ".join(map(str, plan.submit)))
            self._submit(plan.submit)
            self._assignment.submitted(plan.submit)
        return moved > 0

    def watch(self) -> None:
        """End the tasks that hold a slot in vain, whoever has their shards now."""
        seconds = _IDLE_SECONDS if self._assignment.settled else _TASKS_SECONDS
        if self._end_task is None or not self._look(seconds):
            return
        while self._members.next(clock.now()):
            pass  # it may have come
        for shard, task in self._tasks.items():
            if self._is_in_vain(shard, task):
                assert task.attempt is not None
                self._end_attempt(shard, task.attempt)
            elif task.attempt not in self._members.departed:
                self._assignment.submitted((shard,))  # Spark has a task of it, whoever asked for that

    def _is_in_vain(self, shard: int, task: TaskStatus) -> bool:
        """Whether its worker never came, or left or was given up long ago and has not ended since."""
        if task.attempt is None:
            return False
        timeouts = self._members.timeouts
        departed = self._members.departed.get(task.attempt)
        if departed is not None:
            return clock.now() - departed >= timeouts.hang
        return task.attempt != self._members.attempts.get(shard) and task.seconds >= timeouts.join / 2

    def is_behind(self, member: Member) -> bool:
        """Whether it has to take over the last known state of its shard: it has not trained yet, or others
        went on without it."""
        known = self._states.get(member.who.partition, WorkerState())
        return member.is_new or member.iteration < known.iteration

    def progressed(self, report: Report) -> None:
        """A worker has trained: where whoever takes over one of its shards goes on. Nothing goes back."""
        known = self._states.get(report.read, WorkerState())
        self._states[report.read] = WorkerState(
            iteration=max(report.iteration, known.iteration), position=report.position
        )
        for other in {report.member, *self._assignment.of(report.member)} - {report.read}:
            known = self._states.get(other, WorkerState())
            self._states[other] = replace(known, iteration=max(report.iteration, known.iteration))

    def send_positions(self) -> None:
        """The states have been replaced: send the positions to every worker with further shards."""
        held = {member.who.partition: frozenset(member.shards) for member in self._members.all}
        self._assign({worker: shards for worker, shards in held.items() if shards - {worker}})

    def _plan(self) -> Plan:
        self._look(_TASKS_SECONDS)
        now = clock.now()
        return self._assignment.plan(now, stay=self._stay, full=self._is_full(), waiting=self._waiting())

    def _look(self, seconds: float) -> bool:
        """Ask Spark what its tasks do, unless that was less than ``seconds`` ago; whether it was asked."""
        now = clock.now()
        if self._ask_for_tasks is None or now - self._asked < seconds:
            return False
        self._tasks, self._asked = self._ask_for_tasks(), now
        return True

    def _waiting(self) -> Container[int]:
        """The shards whose tasks wait for a slot, as far as is known."""
        everyone = range(self._assignment.shards)
        if self._tasks:
            return {shard for shard, task in self._tasks.items() if task.attempt is None}
        if self._slots is None or self._slots() <= len(self._members.all):
            return everyone
        return ()

    def _hanging(self, shards: Iterable[int]) -> dict[int, int]:
        """The attempts of these shards whose workers have been given up, or never came."""
        found = {}
        for shard in shards if self._end_task else ():
            task = self._tasks.get(shard, TaskStatus())
            known = task.attempt == self._members.attempts.get(shard)
            if task.attempt is not None and (known or task.seconds >= self._members.timeouts.join / 2):
                found[shard] = task.attempt
        return found

    def _end(self, shards: Iterable[int]) -> None:
        """End the tasks of those that hang."""
        for shard, attempt in self._hanging(shards).items():
            self._end_attempt(shard, attempt)

    def _end_attempt(self, shard: int, attempt: int) -> None:
        assert self._end_task
        log.warning("the worker of shard %d hangs: ending its task, for Spark to start it again", shard)
        self._end_task(attempt)
        self._members.restarted += 1
        self._assignment.ended(shard, clock.now())

    @property
    def _stay(self) -> int:
        """At least half of the workers go on training while others yield."""
        return len(self._members.all) // 2 if self._members.assembled else 0

    def _is_full(self) -> bool:
        """Whether no slot is free: before training begins that is known once nobody comes any more."""
        if self._members.assembled or self._slots is None:
            return False
        quiet = clock.now() - self._members.changed >= _QUIET_SECONDS
        self._full = self._full or (quiet and 0 < self._slots() <= len(self._members.all))
        return self._full

    def _yield(self, workers: Collection[int]) -> int:
        left = 0
        for member, content in self._yielded(self._idle(workers), away=False):
            if content.stays:
                log.warning("%s keeps its slot: %s", member, content.stays)
                self._assignment.stays(member.who.partition)
                continue
            left += 1
            log.info("%s yielded its slot to a shard that had no worker", member)
            self._members.dismiss(member, politely=True)
            now = clock.now()
            self._assignment.yielded(member.who.partition, content.records, content.place, now)
        return left

    def _release(self) -> int:
        """Let those go whose machines are taken back, once they have nothing to do; how many they are."""
        members = [member for member in self._members.all if member.is_leaving and member.is_idle]
        gone = [member for member, _ in self._yielded(members, away=True)]
        # without any task left the job of the workers would be over
        last = len(gone) == len(self._members.all)
        if gone and last:
            self._submit(sorted(member.who.partition for member in gone))
        for member in gone:
            self._members.leaves(member)
            self._assignment.withdrawn(member.who.partition, clock.now(), submitted=last)
        return len(members)

    def _yielded(self, members: Collection[Member], *, away: bool) -> list[tuple[Member, Yielded]]:
        """Have these hand over what they have: those that did, with what they said."""
        if not members:
            return []
        self._secure()
        requests = {
            member: self._request(
                Kind.YIELD,
                {"away": away},
                answers=(Kind.STATE, Kind.YIELDED),
                read=read_yielded,
                bytes_=0 if away else member.shard_bytes,
            )
            for member in members
        }
        found = []
        for answer in self._members.ask(requests):
            if isinstance(answer.content, Yielded):
                if not self.is_behind(answer.member):
                    self._states[answer.member.who.partition] = answer.content.state
                found.append((answer.member, answer.content))
        return found

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
                member.shards, member.shard_bytes = dict(answer.content.records), answer.content.bytes_
                log.info("%s trains on the shards %s", member, ", ".join(map(str, sorted(member.shards))))
                self._assignment.confirmed(member.who.partition, member.shards, clock.now())
        return len(requests)

    def _idle(self, workers: Iterable[int]) -> list[Member]:
        wanted = set(workers)
        return [m for m in self._members.all if m.who.partition in wanted and m.is_idle]

    def _positions(self, shards: Iterable[int]) -> dict[str, int]:
        return {str(shard): self._states.get(shard, WorkerState()).position for shard in shards}

    def _request(
        self,
        kind: Kind,
        header: Header,
        *,
        answers: tuple[Kind, ...],
        read: Callable[[Member, Sequence[Frame]], Yielded | Assigned],
        bytes_: int = 0,
    ) -> Request:
        seconds = self._members.timeouts.transfer(bytes_)
        message = Message(kind, header)
        return Request(messages=(message,), answers=answers, read=read, seconds=seconds, flows=True)


def _nothing(_shards: Sequence[int]) -> None:
    """There is no Spark that could be given a task."""
