"""The driver's end of training: what the workers are asked to do, and what becomes of their answers.

    caller's thread      Coordinator: decides everything, owns all state
             │  ▲
    requests │  │ events  a queue of requests for each member, one queue of events from all
             ▼  │
    a thread for each connection (listener.py): sends the request, receives the answer, decides nothing
             │  ▲
             ▼  │
       worker in a Spark task (worker_service.py)

A round is done when every member that was sent its plan has answered, was lost, or ran past the deadline; or,
with a quorum, when the others have had their grace. A worker that joins meanwhile waits for the next round.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace

from sparknet.codecs import Float32, get_codec
from sparknet.distributed.averaging.remote_weights import Versions
from sparknet.distributed.averaging.ring import Ring
from sparknet.distributed.averaging.star import Star
from sparknet.distributed.comm.channel import NOTHING, Frame, Kind, raw
from sparknet.distributed.comm.handshake import Identity
from sparknet.distributed.listener import Listener
from sparknet.distributed.membership import Membership
from sparknet.distributed.messages import (
    Answered,
    Content,
    JobEnded,
    Member,
    Message,
    Request,
    read_scores,
    read_state,
)
from sparknet.distributed.rebalancing import Rebalancer, Submit
from sparknet.distributed.timeouts import Timeouts
from sparknet.easgd import Exchanger
from sparknet.merge import Merged, Statistics
from sparknet.training import Report, RoundPlan, RoundResult, Scores, WorkerState, mean_state
from sparknet.weights import Vector, Weights, mean_of


class Coordinator:
    """Leads ``workers`` workers, one for each partition, whose weights have ``size`` float32 elements.

    ``statistics`` says where running means and variances lie in them, ``wire`` how they travel; in a
    ``ring`` workers average among themselves, and find each other at ``ring_port``. Every method is for the
    caller's thread, but ``job_ended`` may be called from any. ``submit`` and ``slots`` are for shards that
    have no worker of their own (``rebalancing.py``).
    """

    def __init__(
        self,
        *,
        bind: str,
        workers: int,
        size: int,
        token: bytes,
        timeouts: Timeouts,
        statistics: Sequence[Statistics] = (),
        wire: str = "float32",
        ring: bool = False,
        submit: Submit | None = None,
        slots: Callable[[], int] | None = None,
    ) -> None:
        self.timeouts = timeouts
        self._versions = versions = Versions()
        self._star = Star(versions, Float32() if ring else get_codec(wire), statistics)
        self._listener = Listener(
            bind=bind, token=token, size=size, codec=self._star.codec, timeouts=timeouts
        )
        self._members = Membership(self._listener, workers)
        self._ring = Ring(bind, versions, self._members, timeouts) if ring else None
        self._averaging = self._ring or self._star
        self._states: dict[int, WorkerState] = {}
        self._rebalancer = Rebalancer(self._members, self._states, submit, slots)
        self._history: Vector | None = None
        self._rejected: set[int] = set()

    @property
    def port(self) -> int:
        return self._listener.port

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

    @property
    def numbers(self) -> frozenset[int]:
        """The partitions that have a worker of their own, as far as is known."""
        return frozenset(member.who.partition for member in self._members.all)

    def train(self, weights: Weights, plan: RoundPlan) -> RoundResult:
        """One round from ``weights``, float32 (P,). If every worker of it is lost, it begins again with those
        that come in their place.

        Raises WorkersLost when none comes in time, TrainingError when the job ended or a worker keeps
        failing.
        """
        self._averaging.begin(weights)
        merged: Merged | None = None
        joining = 0.0
        while merged is None:
            began = time.perf_counter()
            members = self._members.assemble(_can_train)
            joining += time.perf_counter() - began
            answers = self._members.ask(self._train_requests(members, plan), self.timeouts.quorum)
            reports = [answer.content for answer in answers if isinstance(answer.content, Report)]
            if answers:
                merged = self._averaging.merge(answers, reports, plan)
        self._remember(answers, reports, merged, plan)
        return RoundResult(
            mean=merged.mean,
            reports=tuple(reports[k] for k in merged.kept),
            joining_seconds=joining,
            bytes_sent=sum(answer.sent for answer in answers),
            bytes_received=sum(answer.received for answer in answers) + self._averaging.take_fetched(),
            bytes_between=merged.sent,
            lost=self._members.take_losses(),
            names={answer.member.who.partition: str(answer.member) for answer in answers},
        )

    def test(self, weights: Weights, slices: Sequence[slice]) -> Scores:
        """Hand out the slices of the test set; one that is lost with its worker is handed out again."""
        self._averaging.publish(weights)
        todo, working = deque(slices), dict[Member, tuple[Request, slice]]()
        scores: dict[int, Scores] = {}
        while len(scores) < len(slices):
            self._hand_out(todo, working)
            answer = self._members.next_answer({member: request for member, (request, _) in working.items()})
            if answer and isinstance(answer.content, Scores):
                _, part = working.pop(answer.member)
                scores[part.start] = answer.content
            gone = [member for member in working if not self._members.has(member)]
            todo.extend(working.pop(member)[1] for member in gone)
        return sum((scores[part.start] for part in slices), Scores())

    def exchanges(self, exchanger: Exchanger, plan: Callable[[], RoundPlan]) -> Generator[Report, None, None]:
        """Every member trains at its own pace, from what ``exchanger`` gives it; a report for each time."""
        working: dict[Member, Request] = {}
        try:
            while True:
                if not working:
                    self._members.assemble(_can_train)
                pausing = working and self._rebalancer.due  # shards change hands between rounds
                for member in [] if pausing else filter(_can_train, self._members.all):
                    start = exchanger.start_of(member.who.partition)
                    working[member] = self._train_request_from(start, member, plan())
                    self._members.give(member, working[member])
                report = self._exchanged(working, exchanger)
                if report:
                    yield report
        finally:
            while working:
                self._exchanged(working, exchanger)

    def _exchanged(self, working: dict[Member, Request], exchanger: Exchanger) -> Report | None:
        """Wait for one of those at work and exchange what it brings; None if something else happened."""
        answer = self._members.next_answer(working)
        members = len(working)
        for member in [member for member in working if not self._members.has(member)]:
            del working[member]
        if answer is None or not isinstance(answer.content, Report):
            return None
        del working[answer.member]
        exchanger.exchange(answer.member.who.partition, answer.member.vector, members)
        self._record_progress([answer.content])
        return answer.content

    def _train_request_from(self, start: Vector, member: Member, plan: RoundPlan) -> Request:
        """The plan for one member, from weights of its own."""
        state = self._states_for([member] if member.is_new else [], []).get(member.who.partition)
        member.is_new = False
        messages = self._star.train_from(start, member, vars(plan))
        return self._train_request(messages, plan, state, self._star)

    def states(self) -> dict[int, WorkerState]:
        """The state of every worker that has a shard; what is known of those that are not here."""
        answers = self._members.ask(
            {
                member: self._request(Message(Kind.SAVE, {}), answers=(Kind.STATE,), read=read_state)
                for member in self._members.assemble(_can_train)
            }
        )
        states = {
            answer.member.who.partition: answer.content
            for answer in answers
            if isinstance(answer.content, WorkerState)
        }
        if self._history is not None:
            states = {number: replace(state, history=self._history) for number, state in states.items()}
        return {**self._states, **states}

    def restore(self, states: Mapping[int, WorkerState]) -> None:
        """Every worker goes on from its state with its next plan."""
        self._states.clear()
        self._states.update(states)
        for member in self._members.all:
            member.is_new = True
        self._rebalancer.send_positions()

    def job_ended(self, reason: str) -> None:
        """The Spark job that carries the workers is over: whoever waits for them gets ``reason``."""
        self._listener.events.put(JobEnded(reason))

    def close(self) -> bool:
        """Tell every worker to stop, and stop listening; whether all were here to hear it."""
        complete = self._members.complete
        self._listener.close()
        self._members.clear()
        self._averaging.close()
        return complete

    # -- requests ------------------------------------------------------------------------------------------

    def _hand_out(self, todo: deque[slice], working: dict[Member, tuple[Request, slice]]) -> None:
        """Give every idle member a slice while there are any."""
        if not working:
            self._members.assemble(_is_idle)
        for member in filter(_is_idle, self._members.all):
            if todo:
                part = todo.popleft()
                working[member] = self._slice(member, part), part
                self._members.give(member, working[member][0])

    def _train_requests(self, members: list[Member], plan: RoundPlan) -> dict[Member, Request]:
        newcomers = [member for member in members if member.is_new]
        states = self._states_for(newcomers, [member for member in members if not member.is_new])
        for member in newcomers:
            member.is_new = False
        return {
            member: self._train_request_of(member, plan, states.get(member.who.partition))
            for member in members
        }

    def _train_request_of(self, member: Member, plan: RoundPlan, state: WorkerState | None) -> Request:
        if plan.momentum == "average" and self._history is not None:
            state = replace(state or self._states[member.who.partition], history=self._history)
        if member.who.partition in self._rejected:  # what spoiled its weights is in its momentum too
            plan = replace(plan, momentum="reset")
        return self._train_request(self._averaging.train(member, vars(plan)), plan, state, self._averaging)

    def _train_request(
        self,
        messages: list[Message],
        plan: RoundPlan,
        state: WorkerState | None,
        averaging: Star | Ring,
    ) -> Request:
        with_history = plan.momentum == "average" and averaging is self._star
        return self._request(
            *([_restoring(state)] if state else []),
            *messages,
            answers=(Kind.REPORT, Kind.STATE) if with_history else (Kind.REPORT,),
            read=averaging.read,
        )

    def _states_for(self, newcomers: list[Member], others: list[Member]) -> dict[int, WorkerState]:
        """What each newcomer goes on from: its shard's last known state, the others' mean history in it."""
        if not newcomers or not self._states:
            return {}
        mean = mean_state(self._states.values())
        if others and mean.history is None:
            save = Message(Kind.SAVE, {})
            asked = {member: self._request(save, answers=(Kind.STATE,), read=read_state) for member in others}
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

    def _slice(self, member: Member, part: slice) -> Request:
        header = {"start": part.start, "stop": part.stop}
        message = Message(Kind.TEST, header, self._averaging.whole(member))
        member.version = self._versions.number
        return self._request(message, answers=(Kind.SCORES,), read=read_scores)

    def _request(
        self,
        *messages: Message,
        answers: tuple[Kind, ...],
        read: Callable[[Member, Sequence[Frame]], Content],
    ) -> Request:
        return Request(messages=messages, answers=answers, read=read, seconds=self.timeouts.round)

    # -- answers -------------------------------------------------------------------------------------------

    def _remember(
        self, answers: list[Answered], reports: list[Report], merged: Merged, plan: RoundPlan
    ) -> None:
        self._record_progress(reports)
        for k, reason in merged.rejected.items():
            self._members.lost(answers[k].member, reason)
        self._rejected = {reports[k].member for k in merged.rejected}
        if plan.momentum == "average" and self._averaging is self._star:
            histories = [answers[k].member.history for k in merged.kept]
            self._history = mean_of(histories, [reports[k].steps for k in merged.kept])

    def _record_progress(self, reports: Iterable[Report]) -> None:
        for report in reports:
            self._rebalancer.progressed(report.member, report.read, report.iteration, report.position)


def _is_idle(member: Member) -> bool:
    return member.request is None


def _can_train(member: Member) -> bool:
    return member.records > 0 and _is_idle(member)


def _restoring(state: WorkerState) -> Message:
    header = {"iteration": state.iteration, "position": state.position}
    return Message(Kind.RESTORE, header, NOTHING if state.history is None else raw(state.history))
