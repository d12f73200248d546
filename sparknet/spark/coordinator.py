"""The driver's end of training: what the workers are told, and what is made of their answers.

    caller's thread      Coordinator: decides everything, owns all state
          │  ▲
    tasks │  │ events    a queue of tasks for each member, one queue of events from all
          ▼  │
    a thread for each connection (door.py): sends the task, receives the answer, decides nothing
          │  ▲
          ▼  │
       worker in a Spark task (task.py)

A round is done when every member that got its order has answered, was lost, or ran past the deadline; or,
with a quorum, when the others have had their grace. A worker that joins meanwhile waits for the next round.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np

from sparknet.easgd import Exchanger
from sparknet.merge import Merged, Statistics, merge, rejections
from sparknet.spark.door import Door
from sparknet.spark.exchange import NOTHING, ExchangeError, Frame, Kind, Note, raw
from sparknet.spark.handshake import Identity
from sparknet.spark.members import Answered, Content, Deadlines, JobEnded, Member, Message, Task
from sparknet.spark.membership import Membership
from sparknet.spark.ring import Ring
from sparknet.training import Gathered, Order, Report, Scores, WorkerState, mean_state
from sparknet.weights import Vector, mean_of
from sparknet.wire import Followed, codec


class Coordinator:
    """Leads ``workers`` workers, one for each partition, whose weights have ``size`` float32 elements.

    ``statistics`` says where running means and variances lie in them, ``wire`` how they travel; with
    ``ring_host`` they average among themselves, and it is where they find each other. Every method
    is for the caller's thread, but ``job_ended`` may be called from any.
    """

    def __init__(
        self,
        *,
        bind: str,
        workers: int,
        size: int,
        token: bytes,
        deadlines: Deadlines,
        statistics: Sequence[Statistics] = (),
        wire: str = "float32",
        ring_host: str | None = None,
    ) -> None:
        self.deadlines, self._statistics = deadlines, statistics
        self._codec = codec(wire)
        self._followed = None if wire == "float32" else Followed(self._codec)
        self._door = Door(bind=bind, token=token, size=size, codec=self._codec, deadlines=deadlines)
        self._members = Membership(self._door, workers)
        self._ring = Ring(ring_host, self._members, deadlines) if ring_host else None
        self._weights: Vector = np.empty(0, np.float32)
        self._version = 0
        self._states: dict[int, WorkerState] = {}
        self._history: Vector | None = None
        self._rejected: set[int] = set()

    @property
    def port(self) -> int:
        return self._door.port

    @property
    def ring_port(self) -> int | None:
        """Where workers that average among themselves find each other."""
        return self._ring.port if self._ring else None

    @property
    def members(self) -> tuple[Identity, ...]:
        """Who is here now."""
        while self._members.next(time.monotonic()):
            pass
        return tuple(member.who for member in self._members.all)

    def train(self, weights: Vector, order: Order) -> Gathered:
        """One round. If every worker of it is lost, it begins again with those that come in their place.

        Raises WorkersLost when none comes in time, TrainingError when the job ended or a worker keeps
        failing.
        """
        self._publish(weights)
        start = self._moved(weights)
        merged: Merged | None = None
        joining = 0.0
        while merged is None:
            began = time.perf_counter()
            members = self._members.assemble(_can_train)
            joining += time.perf_counter() - began
            answers = self._members.ask(self._orders(members, order, start), self.deadlines.quorum)
            reports = [answer.content for answer in answers if isinstance(answer.content, Report)]
            if answers:
                merged = self._merge(start, answers, reports, order)
        self._remember(answers, reports, merged, order)
        return Gathered(
            mean=merged.mean,
            reports=tuple(reports[k] for k in merged.kept),
            joining_seconds=joining,
            bytes_sent=sum(answer.sent for answer in answers),
            bytes_received=sum(answer.received for answer in answers) + self._fetched(),
            lost=self._members.take_losses(),
            names={answer.member.who.partition: str(answer.member) for answer in answers},
        )

    def test(self, weights: Vector, slices: Sequence[slice]) -> Scores:
        """Hand out the slices of the test set; one that is lost with its worker is handed out again."""
        self._publish(weights)
        todo, working = deque(slices), dict[Member, tuple[Task, slice]]()
        scores: dict[int, Scores] = {}
        while len(scores) < len(slices):
            self._hand_out(todo, working)
            answer = self._members.next_answer({member: task for member, (task, _) in working.items()})
            if answer and isinstance(answer.content, Scores):
                _, part = working.pop(answer.member)
                scores[part.start] = answer.content
            gone = [member for member in working if not self._members.has(member)]
            todo.extend(working.pop(member)[1] for member in gone)
        return sum((scores[part.start] for part in slices), Scores())

    def exchanges(self, exchanger: Exchanger, order: Callable[[], Order]) -> Generator[Report, None, None]:
        """Every member trains at its own pace, from what ``exchanger`` gives it; a report for each time."""
        working: dict[Member, Task] = {}
        try:
            while True:
                if not working:
                    self._members.assemble(_can_train)
                for member in filter(_can_train, self._members.all):
                    start = exchanger.start_of(member.who.partition)
                    working[member] = self._order_from(start, member, order())
                    self._members.give(member, working[member])
                report = self._exchanged(working, exchanger)
                if report:
                    yield report
        finally:
            while working:
                self._exchanged(working, exchanger)

    def _exchanged(self, working: dict[Member, Task], exchanger: Exchanger) -> Report | None:
        """Wait for one of those at work and exchange what it brings; None if something else happened."""
        answer = self._members.next_answer(working)
        members = len(working)
        for member in [member for member in working if not self._members.has(member)]:
            del working[member]
        if answer is None or not isinstance(answer.content, Report):
            return None
        del working[answer.member]
        exchanger.exchange(answer.member.who.partition, self._vector(answer.member), members)
        self._note_progress([answer.content])
        return answer.content

    def _order_from(self, start: Vector, member: Member, order: Order) -> Task:
        """An order to one member, from weights of its own."""
        self._publish(start)
        state = self._states_for([member] if member.fresh else [], []).get(member.who.partition)
        member.fresh = False
        return self._order(member, order, start, state)

    def states(self) -> dict[int, WorkerState]:
        """The state of every worker that has a shard; what is known of those that are not here."""
        answers = self._members.ask(
            {
                member: self._task(Message(Kind.SAVE, {}), answers=(Kind.STATE,), read=_state)
                for member in self._members.assemble(_can_train)
            }
        )
        here = {
            answer.member.who.partition: answer.content
            for answer in answers
            if isinstance(answer.content, WorkerState)
        }
        if self._history is not None:
            here = {number: replace(state, history=self._history) for number, state in here.items()}
        return {**self._states, **here}

    def restore(self, states: Mapping[int, WorkerState]) -> None:
        """Every worker goes on from its state with its next order."""
        self._states = dict(states)
        for member in self._members.all:
            member.fresh = True

    def job_ended(self, reason: str) -> None:
        """The Spark job that carries the workers is over: whoever waits for them is told ``reason``."""
        self._door.events.put(JobEnded(reason))

    def close(self) -> bool:
        """Tell every worker to stop, and stop listening; whether all were here to hear it."""
        complete = self._members.complete
        self._door.close()
        self._members.clear()
        if self._ring:
            self._ring.close()
        return complete

    # -- what is said to them -------------------------------------------------------------------------------

    def _hand_out(self, todo: deque[slice], working: dict[Member, tuple[Task, slice]]) -> None:
        """Give every idle member a slice while there are any."""
        if not working:
            self._members.assemble(_is_idle)
        for member in filter(_is_idle, self._members.all):
            if todo:
                part = todo.popleft()
                working[member] = self._slice(member, part), part
                self._members.give(member, working[member][0])

    def _publish(self, weights: Vector) -> None:
        if weights is not self._weights:
            self._weights = weights
            self._version += 1
            if self._ring and self._ring.made(weights):
                for member in self._ring.holders:
                    member.holds = self._version

    def _moved(self, weights: Vector) -> Vector:
        """What the workers start from: the weights, or what of them can be said in a change."""
        if self._followed is None:
            return weights
        self._followed.move(weights)
        return self._followed.known

    def _vector(self, member: Member) -> Vector:
        """The weights that the member sent back, float32 (P,)."""
        sent = self._codec.decode(member.buffer, member.base.size)
        return sent if self._followed is None else member.base + sent

    def _orders(self, members: list[Member], order: Order, start: Vector) -> dict[Member, Task]:
        newcomers = [member for member in members if member.fresh]
        states = self._states_for(newcomers, [member for member in members if not member.fresh])
        for member in newcomers:
            member.fresh = False
        return {
            member: self._order(member, order, start, states.get(member.who.partition)) for member in members
        }

    def _states_for(self, newcomers: list[Member], others: list[Member]) -> dict[int, WorkerState]:
        """What each newcomer goes on from: its shard's last known state, the others' mean history in it."""
        if not newcomers or not self._states:
            return {}
        mean = mean_state(self._states.values())
        if others and mean.history is None:
            save = Message(Kind.SAVE, {})
            asked = {member: self._task(save, answers=(Kind.STATE,), read=_state) for member in others}
            mean = mean_state(
                answer.content
                for answer in self._members.ask(asked)
                if isinstance(answer.content, WorkerState)
            )
        known = {member.who.partition: self._states.get(member.who.partition, mean) for member in newcomers}
        return {
            number: state if state.history is not None else replace(state, history=mean.history)
            for number, state in known.items()
        }

    def _order(self, member: Member, order: Order, start: Vector, state: WorkerState | None) -> Task:
        if order.momentum == "average" and self._history is not None:
            state = replace(state or self._states[member.who.partition], history=self._history)
        if member.who.partition in self._rejected:  # what spoiled its weights is in its momentum too
            order = replace(order, momentum="reset")
        average = order.momentum == "average"
        task = self._task(
            *([_restoring(state)] if state else []),
            *self._train_messages(member, {**asdict(order), "ring": self._ring is not None}, start),
            answers=(Kind.REPORT, Kind.STATE) if average and not self._ring else (Kind.REPORT,),
            read=_moved_report if self._ring else _report,
        )
        member.holds, member.base = 0, start
        return task

    def _train_messages(self, member: Member, note: Note, start: Vector) -> list[Message]:
        """The order, with the weights, a change of them, or neither if the worker has them."""
        followed = self._followed
        if followed is None:
            return [Message(Kind.TRAIN, note, self._weights_for(member))]
        if start is not followed.known:
            member.follows = 0
            return [Message(Kind.TRAIN, note, raw(start))]
        knew, member.follows = member.follows, followed.version
        if not knew or followed.version - knew > 1:
            return [Message(Kind.TRAIN, note, raw(start))]
        change = [Message(Kind.CHANGE, {}, raw(followed.change))] if followed.version > knew else []
        return [*change, Message(Kind.TRAIN, note)]

    def _slice(self, member: Member, part: slice) -> Task:
        note = {"start": part.start, "stop": part.stop}
        message = Message(Kind.TEST, note, self._weights_for(member))
        member.holds = self._version
        return self._task(message, answers=(Kind.SCORES,), read=_scores)

    def _weights_for(self, member: Member) -> memoryview:
        return NOTHING if member.holds == self._version else raw(self._weights)

    def _task(
        self,
        *messages: Message,
        answers: tuple[Kind, ...],
        read: Callable[[Member, Sequence[Frame]], Content],
    ) -> Task:
        return Task(messages=messages, answers=answers, read=read, seconds=self.deadlines.round)

    # -- what is made of it ---------------------------------------------------------------------------------

    def _merge(
        self, start: Vector, answers: list[Answered], reports: list[Report], order: Order
    ) -> Merged | None:
        """The mean of what can be believed; None if all that had it were lost while they averaged it."""
        if self._ring is None:
            vectors = [self._vector(answer.member) for answer in answers]
            return merge(start, vectors, [report.steps for report in reports], self._statistics)
        rejected = rejections([answer.member.moved for answer in answers])
        believed = {answers[k].member: report.steps for k, report in enumerate(reports) if k not in rejected}
        mean = self._ring.mean(believed, history=order.momentum == "average")
        if mean is None:
            return None
        kept = [k for k, answer in enumerate(answers) if answer.member in self._ring.holders]
        return Merged(mean, tuple(kept), rejected)

    def _fetched(self) -> int:
        """Bytes that the driver received of a mean that the workers made."""
        return self._ring.mean_bytes if self._ring else 0

    def _remember(self, answers: list[Answered], reports: list[Report], merged: Merged, order: Order) -> None:
        self._note_progress(reports)
        for k, reason in merged.rejected.items():
            self._members.lost(answers[k].member, reason)
        self._rejected = {reports[k].member for k in merged.rejected}
        if order.momentum == "average" and self._ring is None:
            histories = [answers[k].member.history for k in merged.kept]
            self._history = mean_of(histories, [reports[k].steps for k in merged.kept])

    def _note_progress(self, reports: Iterable[Report]) -> None:
        for report in reports:
            self._states[report.member] = WorkerState(iteration=report.iteration, position=report.position)


def _is_idle(member: Member) -> bool:
    return member.task is None


def _can_train(member: Member) -> bool:
    return member.records > 0 and _is_idle(member)


def _restoring(state: WorkerState) -> Message:
    note = {"iteration": state.iteration, "position": state.position}
    return Message(Kind.RESTORE, note, NOTHING if state.history is None else raw(state.history))


def _report(member: Member, frames: Sequence[Frame]) -> Report:
    if frames[0].size != member.buffer.nbytes:
        raise ExchangeError(f"{member} sent {frames[0].size:,} of the {member.buffer.nbytes:,} bytes due")
    return _read_report(frames[0].note)


def _moved_report(member: Member, frames: Sequence[Frame]) -> Report:
    """A report without weights, but with how far they have moved."""
    note = dict(frames[0].note)
    member.moved = float(note.pop("moved", math.nan))
    return _read_report(note)


def _read_report(note: Note) -> Report:
    try:
        return Report(**note)
    except TypeError as wrong:
        raise ExchangeError(f"a report that cannot be read: {wrong}") from wrong


def _state(member: Member, frames: Sequence[Frame]) -> WorkerState:
    note = frames[0].note
    try:
        place = int(note["iteration"]), int(note["position"])
    except (KeyError, TypeError, ValueError) as wrong:
        raise ExchangeError(f"a state that cannot be read: {wrong}") from wrong
    return WorkerState(iteration=place[0], position=place[1], history=member.history.copy())


def _scores(_member: Member, frames: Sequence[Frame]) -> Scores:
    note = frames[0].note
    try:
        return Scores(records=int(note["records"]), sums=dict(note["sums"]))
    except (KeyError, TypeError, ValueError) as wrong:
        raise ExchangeError(f"scores that cannot be read: {wrong}") from wrong
