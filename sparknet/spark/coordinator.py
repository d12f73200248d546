"""The driver's end of training: what the workers are told, and what is made of their answers.

    caller's thread      Coordinator.train and .test: decides everything, owns all state
          │  ▲
    tasks │  │ events    a queue of tasks for each member, one queue of events from all
          ▼  │
    a thread for each connection (door.py): sends the task, receives the answer, decides nothing
          │  ▲
          ▼  │
       worker in a Spark task (task.py)

A round is done when every member that got its order has answered, was lost, or ran past the deadline. A
worker that joins meanwhile waits for the next round. Of two attempts of one partition the newer counts and
the older is dropped.
"""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict

import numpy as np

from sparknet.errors import DataError, TrainingError, WorkersLost
from sparknet.spark.door import (
    Answered,
    Deadlines,
    Door,
    Event,
    Failed,
    JobEnded,
    Joined,
    Lost,
    Member,
    Task,
)
from sparknet.spark.exchange import ExchangeError, Frame, Identity, Kind, Note, raw
from sparknet.training import Gathered, Order, Report, Scores
from sparknet.weights import Vector, mean_of

log = logging.getLogger(__name__)

# Times in a row a worker may raise an error before the run is given up.
_FAILURES = 3
# Lost workers that an error names.
_NAMED = 3


class Coordinator:
    """Leads ``workers`` workers, one for each partition, whose weights have ``size`` float32 elements.

    Every method is for the caller's thread, but ``job_ended`` may be called from any.
    """

    def __init__(self, *, bind: str, workers: int, size: int, token: bytes, deadlines: Deadlines) -> None:
        self.workers, self.deadlines = workers, deadlines
        self._door = Door(bind=bind, token=token, size=size, deadlines=deadlines)
        self._members: dict[int, Member] = {}
        self._assembled = False
        self._weights: Vector = np.empty(0, np.float32)
        self._version = 0
        self._progress: dict[int, Report] = {}
        self._failures: dict[int, int] = {}
        self._losses: list[str] = []
        self._ended: str | None = None

    @property
    def port(self) -> int:
        return self._door.port

    @property
    def members(self) -> tuple[Identity, ...]:
        """Who is here now."""
        while self._next(time.monotonic()):
            pass
        return tuple(member.who for _, member in sorted(self._members.items()))

    def train(self, weights: Vector, order: Order) -> Gathered:
        """One round. If every worker of it is lost, it begins again with those that come in their place.

        Raises WorkersLost when none comes in time, TrainingError when the job ended or a worker keeps
        failing.
        """
        self._publish(weights)
        answers: list[Answered] = []
        while not answers:
            members = self._assemble()
            started = time.perf_counter()
            answers = self._ask({member: self._order(member, order) for member in members})
            seconds = time.perf_counter() - started
        reports = tuple(answer.content for answer in answers if isinstance(answer.content, Report))
        self._remember(reports)
        return Gathered(
            mean=mean_of([answer.member.buffer for answer in answers], [report.steps for report in reports]),
            reports=reports,
            seconds=seconds,
            bytes_sent=sum(answer.sent for answer in answers),
            bytes_received=sum(answer.received for answer in answers),
            lost=self._take_losses(),
        )

    def test(self, weights: Vector, slices: Sequence[slice]) -> Scores:
        """Hand out the slices of the test set; one that is lost with its worker is handed out again."""
        self._publish(weights)
        todo, working = deque(slices), dict[Member, tuple[Task, slice]]()
        scores: dict[int, Scores] = {}
        while len(scores) < len(slices):
            self._hand_out(todo, working)
            answer = self._next_answer({member: task for member, (task, _) in working.items()})
            if answer and isinstance(answer.content, Scores):
                _, part = working.pop(answer.member)
                scores[part.start] = answer.content
            todo.extend(working.pop(member)[1] for member in list(working) if not self._is_here(member))
        return sum((scores[part.start] for part in slices), Scores())

    def job_ended(self, reason: str) -> None:
        """The Spark job that carries the workers is over: whoever waits for them is told ``reason``."""
        self._door.events.put(JobEnded(reason))

    def close(self) -> bool:
        """Tell every worker to stop, and stop listening; whether all were here to hear it."""
        complete = len(self._members) == self.workers and self._ended is None
        self._door.close()
        self._members.clear()
        return complete

    # -- asking and waiting ---------------------------------------------------------------------------------

    def _ask(self, tasks: dict[Member, Task]) -> list[Answered]:
        """Give each member its task and wait for the answers, in the order of the members."""
        for member, task in tasks.items():
            member.tasks.put(task)
        answers: dict[int, Answered] = {}
        while tasks:
            answer = self._next_answer(tasks)
            if answer:
                answers[answer.member.who.partition] = answer
                del tasks[answer.member]
            tasks = {member: task for member, task in tasks.items() if self._is_here(member)}
        return [answer for _, answer in sorted(answers.items())]

    def _next_answer(self, tasks: Mapping[Member, Task]) -> Answered | None:
        """The next answer to one of the tasks, None if something else happened. Drops the late."""
        event = self._next(min(task.deadline for task in tasks.values()))
        if event is None:
            for member, task in tasks.items():
                if task.deadline <= time.monotonic():
                    self._drop(member, f"it did not answer within {self.deadlines.round:g} s")
        elif isinstance(event, Answered) and tasks.get(event.member) is event.task:
            return event
        return None

    def _hand_out(self, todo: deque[slice], working: dict[Member, tuple[Task, slice]]) -> None:
        """Give every idle member a slice while there are any."""
        if not working:
            self._assemble(to_train=False)
        for member in self._members.values():
            if todo and member not in working:
                part = todo.popleft()
                working[member] = self._slice(member, part), part
                member.tasks.put(working[member][0])

    def _assemble(self, *, to_train: bool = True) -> list[Member]:
        """The members that can do the work: at first wait for all workers, later for one if there is none.

        Raises WorkersLost when there is none at the deadline.
        """
        deadline = time.monotonic() + self.deadlines.join
        while not self._ready(to_train):
            if self._next(deadline) is None:
                break
        able = self._able(to_train)
        if not able:
            raise WorkersLost(self._who_is_missing())
        if not self._assembled and len(self._members) < self.workers:
            log.warning(
                "%d of %d workers came within %g s and training goes on with them: are there slots for all?",
                len(self._members),
                self.workers,
                self.deadlines.join,
            )
        self._assembled = True
        return able

    def _ready(self, to_train: bool) -> bool:
        if self._assembled:
            return bool(self._able(to_train))
        if len(self._members) < self.workers:
            return False
        if not any(member.records for member in self._members.values()):
            raise DataError(f"all {self.workers} partitions of the training data are empty")
        return True

    def _able(self, to_train: bool) -> list[Member]:
        return [member for member in self._members.values() if member.records or not to_train]

    def _next(self, deadline: float) -> Event | None:
        """Wait for an event and take note of it; None at the deadline."""
        if self._ended:
            raise TrainingError(self._ended)
        try:
            event = self._door.events.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return None
        self._note(event)
        return event

    # -- who is here ----------------------------------------------------------------------------------------

    def _note(self, event: Event) -> None:
        match event:
            case Joined(member):
                self._welcome(member)
            case Lost(member, reason):
                self._drop(member, reason)
            case Failed(who, reason, final):
                self._count_failure(who, reason, final)
            case JobEnded(reason):
                self._ended = f"the Spark job that carries the workers ended: {reason}"
                raise TrainingError(self._ended)

    def _welcome(self, member: Member) -> None:
        older = self._members.get(member.who.partition)
        if older:
            self._drop(older, f"attempt {member.who.attempt} took its place")
        self._members[member.who.partition] = member
        log.info("%s joined with %d records", member, member.records)

    def _drop(self, member: Member, reason: str) -> None:
        """The member is gone, or is sent away: hang up, so that its thread ends too."""
        if not self._is_here(member):
            return
        del self._members[member.who.partition]
        member.channel.close()
        self._losses.append(f"{member}: {reason}")
        log.warning("lost %s: %s", member, reason)

    def _is_here(self, member: Member) -> bool:
        return self._members.get(member.who.partition) is member

    def _count_failure(self, who: Identity, reason: str, final: bool) -> None:
        count = self._failures[who.partition] = self._failures.get(who.partition, 0) + 1
        if final or count >= _FAILURES:
            times = f" ({count} times in a row)" if count > 1 else ""
            raise TrainingError(f"{who} failed{times}: {reason}")

    def _take_losses(self) -> tuple[str, ...]:
        losses, self._losses = tuple(self._losses), []
        return losses

    def _who_is_missing(self) -> str:
        missing = [str(number) for number in range(self.workers) if number not in self._members]
        lost = "; ".join(self._losses[-_NAMED:]) or "none had joined"
        return (
            f"no worker that can work joined within {self.deadlines.join:g} s. Waited for partitions "
            f"{', '.join(missing)} of {self.workers}. Lost last: {lost}. "
            "Look at the executors' logs and at how many slots are free, or allow more time (Deadlines.join)"
        )

    # -- what is said to them -------------------------------------------------------------------------------

    def _publish(self, weights: Vector) -> None:
        if weights is not self._weights:
            self._weights = weights
            self._version += 1

    def _order(self, member: Member, order: Order) -> Task:
        note = {**asdict(order), "take_over": self._handover(member) if member.fresh else None}
        task = self._task(member, Kind.TRAIN, note, Kind.REPORT, _report)
        member.holds, member.fresh = 0, False
        return task

    def _slice(self, member: Member, part: slice) -> Task:
        note = {"start": part.start, "stop": part.stop}
        task = self._task(member, Kind.TEST, note, Kind.SCORES, _scores)
        member.holds = self._version
        return task

    def _task(
        self, member: Member, kind: Kind, note: Note, answer: Kind, read: Callable[[Frame], Report | Scores]
    ) -> Task:
        return Task(
            kind=kind,
            note=note,
            payload=raw(self._weights) if member.holds != self._version else None,
            answer=answer,
            read=read,
            deadline=time.monotonic() + self.deadlines.round,
        )

    def _handover(self, member: Member) -> tuple[int, int] | None:
        """Steps and place in the shard of the worker that had it before; if none had, the others' steps."""
        before = self._progress.get(member.who.partition)
        if before:
            return before.iteration, before.position
        steps = max((report.iteration for report in self._progress.values()), default=0)
        return (steps, 0) if steps else None

    def _remember(self, reports: Iterable[Report]) -> None:
        for report in reports:
            self._progress[report.member] = report
            self._failures.pop(report.member, None)


def _report(frame: Frame) -> Report:
    try:
        return Report(**frame.note)
    except TypeError as wrong:
        raise ExchangeError(f"a report that cannot be read: {wrong}") from wrong


def _scores(frame: Frame) -> Scores:
    try:
        return Scores(records=int(frame.note["records"]), sums=dict(frame.note["sums"]))
    except (KeyError, TypeError, ValueError) as wrong:
        raise ExchangeError(f"scores that cannot be read: {wrong}") from wrong
