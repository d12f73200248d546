"""Who is a member now: joins, losses and failures, by the events of the listener.

All state is the caller's thread's; it changes only in ``next``.
"""

from __future__ import annotations

import logging
import math
import queue
from collections.abc import Callable, Mapping, Sequence

from sparknet import clock
from sparknet.distributed.comm.handshake import Identity
from sparknet.distributed.listener import Joining
from sparknet.distributed.messages import (
    Answered,
    Arriving,
    Event,
    Failed,
    Gone,
    JobEnded,
    Joined,
    Lost,
    Member,
    Request,
)
from sparknet.distributed.shard_assignment import ShardAssignment
from sparknet.distributed.stragglers import StragglerPolicy
from sparknet.errors import DataError, ModelError, TrainingError, UsageError, WorkersLost
from sparknet.training import Report

log = logging.getLogger(__name__)

# Times in a row a worker may raise an error before the run is given up.
_FAILURES = 3
# Errors of a worker that are the run's own.
_FINAL = {kind.__name__: kind for kind in (UsageError, ModelError, DataError)}
# Lost workers that an error names.
_NAMED = 3
# How often the waiting for a worker, where there is none, is extended for one that is on the way.
_EXTENSIONS = 3
# How often it is looked whether shards without a worker have waited long enough.
_LOOK_SECONDS = 0.2


class Membership:
    """The members among ``workers`` expected ones, by the number of their partition."""

    def __init__(self, listener: Joining, workers: int) -> None:
        self._listener, self._workers = listener, workers
        self._timeouts = self.timeouts = listener.timeouts
        self.assignment = ShardAssignment(workers, listener.timeouts.lease)
        self.settle: Callable[[], bool] = lambda: False
        self.changed = clock.now()
        self.attempts: dict[int, int] = {}  # by partition, the last that came
        self.departed: dict[int, float] = {}  # by attempt, when a worker left whose task may run yet
        self.restarted = 0  # tasks that were ended, for Spark to start them again
        self._members: dict[int, Member] = {}
        self._ordered: list[Member] = []
        self._unread: dict[Request, Answered] = {}  # what has come while somebody else read the events
        self.assembled = False
        self._failures: dict[int, int] = {}
        self._changes = 0  # members that have come or gone, so far
        self._looked = 0.0
        self._losses: list[str] = []
        self._departures: list[str] = []
        self._taken_back = False  # the last who were here left because their machines were taken back
        self._joined: list[str] = []
        self._ended: str | None = None

    @property
    def all(self) -> list[Member]:
        """The members in the order of their partitions."""
        return self._ordered.copy()

    @property
    def complete(self) -> bool:
        """Whether all are here and well: none that failed last, and the job has not ended."""
        return len(self._members) == self._workers and not self._failures and self._ended is None

    def has(self, member: Member) -> bool:
        return self._members.get(member.who.partition) is member

    def next(self, deadline: float) -> Event | None:
        """Wait for an event and apply it; None at the deadline.

        Raises TrainingError if the job has ended or a worker keeps failing.
        """
        if self._ended:
            raise TrainingError(self._ended)
        try:
            event = self._listener.events.get(timeout=max(0.0, deadline - clock.now()))
        except queue.Empty:
            return None
        self._apply(event)
        return event

    def assemble(self, able: Callable[[Member], bool]) -> list[Member]:
        """The members that are ``able``: at first wait for all workers, later for one if there is none.

        As long as there is none, whoever is on the way is waited for, and after it another, some times.
        Raises WorkersLost when there is none at the deadline.
        """
        while self.next(clock.now()):  # who has come meanwhile need not wait for the round after this one
            pass
        deadline, extensions = clock.now() + self._patience, _EXTENSIONS
        restarted = self.restarted
        while True:
            self._drop_overdue()
            if self.settle():  # every shard that finds a worker is worth waiting for the next
                deadline = clock.now() + self._patience
            if self._suffice(able):
                break
            event = self.next(min(deadline, clock.now() + _LOOK_SECONDS))
            if event is None and clock.now() >= deadline:
                break
            on_the_way = isinstance(event, Arriving | Gone) or self.restarted > restarted
            if on_the_way and extensions and not any(map(able, self.all)):
                deadline = max(deadline, clock.now() + self._timeouts.join + 1)
                extensions -= 1
            restarted = self.restarted
        found = [member for member in self.all if able(member)]
        if not found:
            raise WorkersLost(self._who_is_missing())
        if not self.assembled and self.assignment.unassigned:
            log.warning(
                "nobody has come for %d of %d shards within %g s and training goes on without them",
                len(self.assignment.unassigned),
                self._workers,
                self._timeouts.join,
            )
        self.assembled = True
        return found

    @property
    def _patience(self) -> float:
        """How long the next worker is waited for."""
        return max(self._timeouts.join, self._timeouts.others if self._taken_back else 0.0)

    def ask(
        self,
        requests: Mapping[Member, Request],
        quorum: float = 1.0,
        at_loss: Callable[[], None] | None = None,
        head_start: float = 0.0,
        hangs_at: Callable[[Request], float] | None = None,
        at_late: Callable[[Member, Request], None] | None = None,
    ) -> list[Answered]:
        """Give each member its request and wait for the answers, in the order of the members.

        Once a share of ``quorum`` of all members has answered, the others have ``Timeouts.grace`` left. Those
        that hang are dropped (``stragglers.py``); they have worked for ``head_start`` seconds already.
        ``at_loss`` is called when one of those that are waited for is lost. While others have nothing to do,
        one hangs by ``hangs_at`` too. With ``at_late`` the answers of those that are late are not lost:
        whoever is told of them claims them when they come.
        """
        for member, request in requests.items():
            self.give(member, request)
        waiting, answers = dict(requests), dict[int, Answered]()
        seen, looked, others = -1, -1, list[Member]()
        present = sum(member.records > 0 for member in self.all)
        policy = StragglerPolicy(len(requests), quorum, self._timeouts, head_start, present)
        deadline = _first_deadline(waiting)
        while waiting and not policy.over:
            if seen != self._changes:
                seen, others = self._changes, [member for member in self.all if member not in requests]
            limits = self._limits(others, waiting, hangs_at)
            if deadline <= clock.now():  # the others may have more time
                deadline = _first_deadline(waiting)
            answer = self._next_answer(waiting, min([policy.until, deadline, *limits.values()]))
            for member, limit in limits.items():
                here = waiting[member].answer or (answer and answer.member is member)
                if limit <= clock.now() and not here:
                    self.drop(member, "it hangs: it takes more than ten times as long as others took before")
            if answer:
                answers[answer.member.who.partition] = answer
                del waiting[answer.member]
                policy.answered()
            if looked != self._changes:  # somebody may have left
                looked, before = self._changes, len(waiting)
                waiting = {member: request for member, request in waiting.items() if self.has(member)}
                if at_loss and len(waiting) < before:
                    at_loss()
        for member, request in waiting.items():
            request.seconds = min(request.seconds, policy.late_seconds)
            if at_late and not policy.given_up:
                log.info("%s is late: %s", member, policy.reason)
                at_late(member, request)
                continue
            request.given_up = True
            (self.drop if policy.given_up else self.lost)(member, policy.reason)
        return [answer for _, answer in sorted(answers.items())]

    def next_answer(self, requests: Mapping[Member, Request], until: float = math.inf) -> Answered | None:
        """An answer to one of the requests; None if something else happened, and at the time ``until``.

        It may have come while somebody else read the events. Members past their deadline are dropped.
        """
        return self._next_answer(requests, min(until, _first_deadline(requests)))

    def claim(self, member: Member, request: Request) -> Answered | None:
        """The answer to a request, if it has come."""
        return self._claimed({member: request})

    def give(self, member: Member, request: Request) -> None:
        member.unanswered.append(request)
        member.requests.put(request)

    def drop(self, member: Member, reason: str) -> None:
        """The member is gone, or must go: end its connection."""
        if not self.has(member):
            return
        self.dismiss(member)
        self.assignment.left(member.who.partition, clock.now())
        self.lost(member, reason)

    def dismiss(self, member: Member, *, politely: bool = False) -> None:
        """The member leaves; ``politely`` it is told to stop, and nothing is lost by it."""
        if not self.has(member):
            return
        del self._members[member.who.partition]
        self.departed[member.who.attempt] = clock.now()
        self._changed()
        if politely:
            member.requests.put(None)
        else:
            member.channel.hang_up()

    def leaves(self, member: Member) -> None:
        """The member's machine is taken back: it goes, and nothing is lost by it."""
        self.dismiss(member, politely=True)
        self._departures.append(str(member))
        self._taken_back = not self._members
        log.warning("%s leaves: its machine is taken back", member)

    def take_departures(self) -> tuple[str, ...]:
        """Those that have left so since the last call."""
        departures, self._departures = tuple(self._departures), []
        return departures

    def lost(self, member: Member, reason: str) -> None:
        """What the member did does not count; recorded among the losses."""
        self._losses.append(f"{member}: {reason}")
        log.warning("lost %s: %s", member, reason)

    def record_loss(self, loss: str) -> None:
        """Something other than a member's work is lost."""
        self._losses.append(loss)
        log.warning("lost %s", loss)

    def take_losses(self) -> tuple[str, ...]:
        """The losses since the last call."""
        losses, self._losses = tuple(self._losses), []
        return losses

    def take_joined(self) -> tuple[str, ...]:
        """Who has come since the last call."""
        joined, self._joined = tuple(self._joined), []
        return joined

    def clear(self) -> None:
        self._members.clear()
        self._unread.clear()
        self._changed()

    def _changed(self) -> None:
        self._ordered = [member for _, member in sorted(self._members.items())]
        self._changes += 1

    def _next_answer(self, requests: Mapping[Member, Request], until: float) -> Answered | None:
        answer = self._claimed(requests)
        if answer is None:
            event = self.next(until)
            if event is None or clock.now() >= self._looked + _LOOK_SECONDS:
                self._drop_overdue()  # not at every event: that looks at all members
            answer = self._claimed(requests)
        return answer

    def _claimed(self, requests: Mapping[Member, Request]) -> Answered | None:
        """An answer to one of the requests that has come."""
        for request, answer in self._unread.items():
            if requests.get(answer.member) is request:
                del self._unread[request]
                request.answer = None  # they would keep each other in memory, and weights with them
                return answer
        return None

    def _limits(
        self,
        others: Sequence[Member],
        waiting: Mapping[Member, Request],
        hangs_at: Callable[[Request], float] | None,
    ) -> dict[Member, float]:
        """When those that are waited for hang, while one of the ``others`` has nothing to do."""
        if hangs_at is None or not any(member.is_idle and member.records for member in others):
            return {}
        return {member: hangs_at(request) for member, request in waiting.items()}

    def _drop_overdue(self) -> None:
        """Drop the members that have not answered in time, whoever waits for them, or nobody any more."""
        now = self._looked = clock.now()
        for member in self.all:
            late = [request for request in member.unanswered if request.deadline <= now]
            if late:
                self.drop(member, f"it did not answer within {late[0].seconds:g} s")

    def _suffice(self, able: Callable[[Member], bool]) -> bool:
        if self.assembled:
            return any(able(member) for member in self.all)
        if self.assignment.unassigned:
            return False
        if not any(member.records for member in self.all):
            raise DataError(f"all {self._workers} partitions of the training data are empty")
        return True

    def _apply(self, event: Event) -> None:
        match event:
            case Arriving(who):
                self.changed = clock.now()
                self.attempts[who.partition] = who.attempt
                self.assignment.arriving(who.partition)
            case Gone(who):
                self.assignment.gone(who.partition, clock.now())
            case Joined(member):
                self._welcome(member)
            case Answered(member=member, request=request):
                self._failures.pop(member.who.partition, None)
                member.unanswered.remove(request)
                if not request.given_up:
                    request.answer = self._unread[request] = event
                request.messages, request.into = (), {}  # weights, for as long as somebody has the request
                member.is_leaving = member.is_leaving or event.leaving
                if isinstance(event.content, Report):
                    member.iteration = event.content.iteration
            case Lost(member, reason):
                self.drop(member, reason)
            case Failed(who, reason, final):
                self._count_failure(who, reason, final)
            case JobEnded(reason):
                self._ended = f"the Spark job that carries the workers ended: {reason}"
                raise TrainingError(self._ended)

    def _welcome(self, member: Member) -> None:
        older = self._members.get(member.who.partition)
        if older:
            self.drop(older, f"attempt {member.who.attempt} took its place")
        self._members[member.who.partition] = member
        self.departed.pop(member.who.attempt, None)
        self._taken_back = False
        self._changed()
        records = {member.who.partition: 0, **member.shards}
        self.assignment.joined(member.who.partition, member.place, records, clock.now())
        self.changed = clock.now()
        self._joined.append(f"{member} with {member.records:,} records")
        log.info("%s joined with %d records", member, member.records)

    def _count_failure(self, who: Identity, reason: str, final: bool) -> None:
        count = self._failures[who.partition] = self._failures.get(who.partition, 0) + 1
        name, _, text = reason.partition(": ")
        if final and name in _FINAL:
            raise _FINAL[name](text)
        if final or count >= _FAILURES:
            times = f" ({count} times in a row)" if count > 1 else ""
            raise TrainingError(f"{who} failed{times}: {reason}")

    def _who_is_missing(self) -> str:
        missing = [str(number) for number in range(self._workers) if number not in self._members]
        lost = "; ".join(self._losses[-_NAMED:]) or "none had joined"
        return (
            f"no worker that can work joined within {self._patience:g} s. Waited for partitions "
            f"{', '.join(missing)} of {self._workers}. Lost last: {lost}. "
            "Look at the executors' logs and at how many slots are free, or allow more time (Deadlines.join, "
            "--join-deadline)"
        )


def _first_deadline(requests: Mapping[Member, Request]) -> float:
    return min((request.deadline for request in requests.values()), default=math.inf)
