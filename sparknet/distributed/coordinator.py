"""The driver's end of training: what the workers are asked to do, and what becomes of their answers.

    caller's thread      Coordinator: decides everything, owns all state
             │  ▲
    requests │  │ events  a queue of requests for each member, one queue of events from all
             ▼  │
    some loops for all connections (connection.py): send requests, receive answers, decide nothing
             │  ▲
             ▼  │
       worker in a Spark task (worker_service.py)

A round is done when every member that was sent its plan has answered, was lost, or ran past the deadline; or,
with a quorum, when the others have had their grace: what they bring then counts in a later round
(``late_work.py``). A worker that joins meanwhile waits for the next round.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from sparknet import clock
from sparknet.codecs import Float32, get_codec
from sparknet.distributed.averaging import COPY_EVERY
from sparknet.distributed.averaging.gradient_star import GradientStar
from sparknet.distributed.averaging.remote_weights import Versions
from sparknet.distributed.averaging.ring import Ring
from sparknet.distributed.averaging.star import Star
from sparknet.distributed.comm.channel import NOTHING, Frame, Header, Kind, raw
from sparknet.distributed.comm.handshake import Identity
from sparknet.distributed.comm.spread import AT_ONCE, Spread
from sparknet.distributed.late_work import LateAnswers, LateWork
from sparknet.distributed.listener import Joining, Listener
from sparknet.distributed.membership import Membership
from sparknet.distributed.messages import (
    Answered,
    Content,
    JobEnded,
    Member,
    Message,
    Request,
    Scored,
    read_scores,
    read_state,
)
from sparknet.distributed.overlap import Overlap
from sparknet.distributed.rebalancing import Rebalancer, Submit, TaskStatus
from sparknet.distributed.stragglers import Pace
from sparknet.distributed.timeouts import Timeouts
from sparknet.easgd import Exchanger, Exchanges
from sparknet.merge import Merged, Statistics
from sparknet.training import Exchanged, Report, RoundPlan, RoundResult, Scores, WorkerState, mean_state
from sparknet.weights import Vector, Weights, mean_of

# How often those that wait for workers one after the other look whether shards are to change hands.
_LOOK_SECONDS = 0.2


class Coordinator:
    """Leads ``workers`` workers, one for each partition, whose weights have ``size`` float32 elements.

    ``statistics`` says where running means and variances lie in them, and ``moving`` where anything does that
    a forward pass moves by itself; ``wire`` is how they travel; in a
    ``ring`` workers average among themselves, and find each other at ``ring_port``. Every method is for the
    caller's thread, but ``job_ended`` may be called from any. ``submit``, ``slots``, ``tasks`` and
    ``end_task`` are for shards that have no worker of their own (``rebalancing.py``). In a ring the driver
    fetches the weights every ``copy_every`` rounds: no more are lost with all workers at once. Workers join
    by what ``listen`` makes. Averages that overlap with a round travel in ``fragments`` through it.
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
        moving: Sequence[slice] = (),
        wire: str = "float32",
        ring: bool = False,
        copy_every: int = COPY_EVERY,
        fragments: int = 1,
        listen: Callable[..., Joining] = Listener,
        submit: Submit | None = None,
        slots: Callable[[], int] | None = None,
        tasks: Callable[[], Mapping[int, TaskStatus]] | None = None,
        end_task: Callable[[int], None] | None = None,
    ) -> None:
        self.timeouts = timeouts
        self._versions = versions = Versions()
        self._star = Star(versions, Float32() if ring else get_codec(wire), statistics)
        self._listener = listen(bind=bind, token=token, size=size, codec=self._star.codec, timeouts=timeouts)
        self.membership = Membership(self._listener, workers)
        self._ring = Ring(bind, versions, self.membership, timeouts, copy_every) if ring else None
        self._gradients = GradientStar(
            versions, self.membership, self._star.codec, statistics, moving, copy_every
        )
        self._averaging: Ring | Star | GradientStar = self._ring or self._star
        self._states: dict[int, WorkerState] = {}
        self._rebalancer = Rebalancer(
            self.membership,
            self._states,
            secure=self._secure,
            submit=submit,
            slots=slots,
            tasks=tasks,
            end_task=end_task,
        )
        self._training, self._scoring = Pace(timeouts), Pace(timeouts)
        self._overlap = Overlap()
        self._late = LateAnswers(self.membership)
        self._fragments = fragments
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
        while self.membership.next(clock.now()):
            pass
        return tuple(member.who for member in self.membership.all)

    @property
    def numbers(self) -> frozenset[int]:
        """The partitions that have a worker of their own, as far as is known."""
        return frozenset(member.who.partition for member in self.membership.all)

    def train(self, weights: Weights, plan: RoundPlan, ahead: RoundPlan | None = None) -> RoundResult:
        """One round from ``weights``, float32 (P,). If every worker of it is lost, it begins again with those
        that come in their place.

        With ``ahead`` workers go on to the next round before they know this one's average, as
        ``Workers.train`` says. Those that have come meanwhile, or missed a round, wait for one that all begin
        together, and the others for them: it is the next. Raises WorkersLost when none comes in time,
        TrainingError when the job ended or a worker keeps failing.
        """
        self._average_by(plan)
        overlaps = ahead is not None or self._overlap.used
        if overlaps:
            self._averaging.overlap(self.membership.all)
        self._averaging.begin(weights)
        self._late.begin()
        takes_late = self._averaging is self._star and not overlaps
        merged: Merged | None = None
        late: list[LateWork] = []
        joining = 0.0
        while merged is None:
            began = clock.now()
            members = self.membership.assemble(_can_train)
            joining += clock.now() - began
            self._collect_late()
            runners, ahead = self._overlap.runners(members, ahead)
            requests = self._train_requests(runners, plan, self._ahead(ahead) if overlaps else {})
            head_start = self._overlap.head_start(runners)
            answers = self.membership.ask(
                requests,
                self.timeouts.quorum,
                head_start=head_start,
                hangs_at=partial(self._training.until, work=plan.tau, head_start=head_start),
                at_late=self._late.expect if takes_late else None,
            )
            for answer in answers:
                self._training.answered(answer, plan.tau, head_start)
            reports = [answer.content for answer in answers if isinstance(answer.content, Report)]
            if answers:
                self._averaging.spread(self._spread(reports, ahead))
                late = self._late_work() if takes_late else []
                merged = (
                    self._star.merge(answers, reports, plan, late)
                    if late
                    else self._averaging.merge(answers, reports, plan)
                )
        kept = [k for k in merged.kept if k < len(answers)]
        self._remember(answers, reports, merged, plan, late)
        self._overlap.ran(self.membership.all, [answers[k].member for k in kept], ahead)
        return RoundResult(
            mean=merged.mean,
            reports=tuple(reports[k] for k in kept),
            late=tuple(late[k - len(answers)].report for k in merged.kept if k >= len(answers)),
            joining_seconds=joining,
            bytes_sent=sum(answer.sent for answer in answers),
            bytes_received=sum(answer.received for answer in answers) + self._averaging.take_fetched(),
            bytes_between=merged.sent,
            lost=self.membership.take_losses(),
            left=self.membership.take_departures(),
            joined=self.membership.take_joined(),
            names={
                member.who.partition: str(member)
                for member in (*(work.member for work in late), *(answer.member for answer in answers))
            },
        )

    def _average_by(self, plan: RoundPlan) -> None:
        """Gradients in the driver, where it is the driver that averages, or weights."""
        if self._ring or plan.gradients == (self._averaging is self._gradients):
            return
        self._averaging = self._gradients if plan.gradients else self._star
        self._star.restart(self.membership.all)

    def test(self, weights: Weights, slices: Sequence[slice]) -> Scores:
        """Hand out the slices of the test set; those that are lost with a worker are handed out again, and
        all are if the weights are lost."""
        self._overlap.drop(self.membership.all)
        self._averaging.publish(weights)
        todo, parts = deque(slices), dict[Member, tuple[slice, ...]]()
        working: dict[Member, Request] = {}
        scores: dict[int, Scores] = {}
        losses = self._versions.losses
        while len(scores) < len(slices):
            self._hand_out(todo, working, parts)
            if self._versions.losses > losses:  # what has been scored was scored by others
                losses, busy = self._versions.losses, [part for member in working for part in parts[member]]
                todo = deque(part for part in slices if part not in busy)
                scores.clear()
            answer = self._next_in_turn(working, self._scoring, lambda member: _records(parts[member]))
            if answer and isinstance(answer.content, Scored):
                for part, found in zip(parts[answer.member], answer.content.parts, strict=True):
                    scores[part.start] = found
            todo.extend(part for member in self._without_the_lost(working) for part in parts[member])
        return sum((scores[part.start] for part in slices), Scores())

    def exchanges(self, exchanger: Exchanger, plan: Callable[[], RoundPlan]) -> Exchanges:
        """Every member trains at its own pace, from what ``exchanger`` gives it; what each time brought."""
        working: dict[Member, Request] = {}
        pace = Pace(self.timeouts)
        try:
            while True:
                if not working:
                    self.membership.assemble(_can_train)
                self._rebalancer.watch()
                pausing = working and self._rebalancer.due  # shards change hands between rounds
                # what its predecessor has brought, and nobody has looked at yet, comes first
                at_work = {member.who.partition for member in working}
                free = [m for m in self.membership.all if _can_train(m) and m.who.partition not in at_work]
                for member in [] if pausing else free:
                    start = exchanger.start_of(member.who.partition)
                    working[member] = self._train_request_from(start, member, plan())
                    self.membership.give(member, working[member])
                made = self._exchanged(working, exchanger, pace, plan().tau)
                if made:
                    yield made
        finally:
            while working:
                self._exchanged(working, exchanger, pace, plan().tau)

    def _exchanged(
        self, working: dict[Member, Request], exchanger: Exchanger, pace: Pace, tau: int
    ) -> Exchanged | None:
        """Wait for one of those at work and exchange what it brings; None if something else happened."""
        members = len(working)
        answer = self._next_in_turn(working, pace, lambda _: tau)
        self._without_the_lost(working)
        if answer is None or not isinstance(answer.content, Report):
            return None
        exchanger.exchange(answer.member.who.partition, answer.member.vector, members)
        self._record_progress([answer])
        return Exchanged(
            report=answer.content,
            name=str(answer.member),
            bytes_sent=answer.sent,
            bytes_received=answer.received,
            lost=self.membership.take_losses(),
            left=self.membership.take_departures(),
            joined=self.membership.take_joined(),
        )

    def _next_in_turn(
        self, working: dict[Member, Request], pace: Pace, work: Callable[[Member], int]
    ) -> Answered | None:
        """The next answer of those at ``work`` one after the other, who is then no more ``working``; None if
        something else happened. Those that hang, by the ``pace`` of the others, are dropped."""
        until = {member: pace.until(request, work(member)) for member, request in working.items()}
        wake = min([clock.now() + _LOOK_SECONDS, *until.values()])
        answer = self.membership.next_answer(working, wake)
        if answer:
            pace.answered(answer, work(answer.member))
            del working[answer.member]
        for member, request in working.items():
            if request.answer is None and until.get(member, math.inf) <= clock.now():
                self.membership.drop(member, pace.reason(request))
        return answer

    def _without_the_lost(self, working: dict[Member, Request]) -> list[Member]:
        """Those that are no members any more, and have left nothing behind, work no more."""
        lost = [m for m, request in working.items() if not (self.membership.has(m) or request.answer)]
        for member in lost:
            del working[member]
        return lost

    def _train_request_from(self, start: Vector, member: Member, plan: RoundPlan) -> Request:
        """The plan for one member, from weights of its own."""
        newcomers = [member] if self._rebalancer.is_behind(member) else []
        state = self._states_for(newcomers, []).get(member.who.partition)
        self._caught_up(member, state)
        messages = self._star.train_from(start, member, vars(plan))
        return self._train_request(messages, plan, state, self._star)

    def states(self) -> dict[int, WorkerState]:
        """The state of every worker that has a shard; what is known of those that are not here.

        Of a worker that has yet to catch up it is what it goes on from, not what it was born with.
        """
        members = self.membership.assemble(_can_train)
        behind = [m for m in members if self._rebalancer.is_behind(m)] if self._states else []
        states = self._saved([member for member in members if member not in behind])
        if self._history is not None:
            states = {number: replace(state, history=self._history) for number, state in states.items()}
        return {**self._states, **self._inherited(behind, mean_state(states.values())), **states}

    def restore(self, states: Mapping[int, WorkerState]) -> None:
        """Every worker goes on from its state with its next plan."""
        self._states.clear()
        self._states.update(states)
        self._late.drop()
        self._overlap.drop(self.membership.all)
        for member in self.membership.all:
            member.is_new = True
        self._rebalancer.send_positions()

    def job_ended(self, reason: str) -> None:
        """The Spark job that carries the workers is over: whoever waits for them gets ``reason``."""
        self._listener.events.put(JobEnded(reason))

    def close(self) -> bool:
        """Tell every worker to stop, and stop listening; whether all were here to hear it."""
        complete = self.membership.complete
        self._gradients.close()
        self._listener.close()
        self.membership.clear()
        self._averaging.close()
        return complete

    # -- requests ------------------------------------------------------------------------------------------

    def _hand_out(
        self, todo: deque[slice], working: dict[Member, Request], parts: dict[Member, tuple[slice, ...]]
    ) -> None:
        """Give every idle member slices while there are any; to one that needs the weights when they can be
        had without waiting for one that is busy.

        Half of an even share of those that are left: few requests, and all end at about the same time.
        """
        if not working:
            self.membership.assemble(_is_idle)
        for member in self.membership.all:
            # one that is working and idle has answered, and nobody has looked at it yet
            free = member.is_idle and member not in working and self.membership.has(member)
            free = free and not (member.is_leaving and working)
            if todo and free and self._averaging.can_send(member):
                count = max(1, len(todo) // (2 * len(self.membership.all)))
                parts[member] = tuple(todo.popleft() for _ in range(count))
                working[member] = self._test_request(member, parts[member])
                self.membership.give(member, working[member])

    def _ahead(self, ahead: RoundPlan | None) -> Header:
        """How the workers are to go on before the average is known, and in how many parts to send."""
        fragments = {"fragments": self._fragments} if ahead and self._fragments > 1 else {}
        return {"ahead": ahead and vars(ahead), **fragments}

    def _spread(self, reports: Sequence[Report], ahead: RoundPlan | None) -> Spread:
        """Over the round that workers compute meanwhile, as long as the fastest took for the last."""
        if ahead is None or self._fragments == 1:
            return AT_ONCE
        return Spread.over(self._fragments, min(report.seconds for report in reports), self.timeouts)

    def _train_requests(self, members: list[Member], plan: RoundPlan, ahead: Header) -> dict[Member, Request]:
        newcomers = [member for member in members if self._rebalancer.is_behind(member)]
        others = [member for member in members if member not in newcomers]
        inherit = self._states_in_step if plan.gradients else self._states_for
        states = inherit(newcomers, others)
        self._averaging.form(members, plan)
        for member in newcomers:
            self._caught_up(member, states.get(member.who.partition))
        return {
            member: self._train_request_of(member, plan, states.get(member.who.partition), ahead)
            for member in members
        }

    def _train_request_of(
        self, member: Member, plan: RoundPlan, state: WorkerState | None, ahead: Header
    ) -> Request:
        if plan.momentum == "average" and self._history is not None:
            known = self._states.get(member.who.partition, WorkerState(iteration=member.iteration))
            state = replace(state or known, history=self._history)
        if (
            member.who.partition in self._rejected and not plan.gradients
        ):  # what spoiled its weights is in its momentum too
            plan = replace(plan, momentum="reset")
        header = {**vars(plan), **ahead, **({"late": True} if member.is_ahead else {})}
        return self._train_request(self._averaging.train(member, header), plan, state, self._averaging)

    def _train_request(
        self,
        messages: list[Message],
        plan: RoundPlan,
        state: WorkerState | None,
        averaging: Star | Ring | GradientStar,
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
            mean = mean_state(self._saved(others).values())
        return self._inherited(newcomers, mean)

    def _states_in_step(self, newcomers: list[Member], others: list[Member]) -> dict[int, WorkerState]:
        """What newcomers go on from who take every step with the others: the steps and the history of one of
        those, all of whom have the same; if there are none, what is known."""
        if not newcomers:
            return {}
        found = (state for member in others for state in self._saved([member]).values())
        shared = next(found, None)
        if shared is None and not self._states:
            return {}
        shared = shared or mean_state(self._states.values())
        return {
            number: replace(state, iteration=shared.iteration, history=shared.history)
            for number, state in self._inherited(newcomers, shared).items()
        }

    def _inherited(self, newcomers: Iterable[Member], mean: WorkerState) -> dict[int, WorkerState]:
        """The last known state of each newcomer's shard, with the ``mean`` history where its own is not."""
        known = {member.who.partition: self._states.get(member.who.partition, mean) for member in newcomers}
        return {
            number: state if state.history is not None else replace(state, history=mean.history)
            for number, state in known.items()
        }

    def _saved(self, members: Iterable[Member]) -> dict[int, WorkerState]:
        """The states that these members have, of those that answer."""
        requests = {
            member: Request(
                messages=(Message(Kind.SAVE, {}),),
                answers=(Kind.STATE,),
                read=read_state,
                seconds=self.timeouts.transfer(member.history.nbytes),
                flows=True,
            )
            for member in members
        }
        return {
            answer.member.who.partition: answer.content
            for answer in self.membership.ask(requests)
            if isinstance(answer.content, WorkerState)
        }

    def _test_request(self, member: Member, parts: Sequence[slice]) -> Request:
        """Slices to score one after the other, the weights with the first."""
        headers = [{"start": part.start, "stop": part.stop} for part in parts]
        first = Message(Kind.TEST, headers[0], self._averaging.whole(member))
        member.version = self._versions.number
        others = (Message(Kind.TEST, header) for header in headers[1:])
        return self._request(first, *others, answers=(Kind.SCORES,) * len(parts), read=read_scores)

    def _request(
        self,
        *messages: Message,
        answers: tuple[Kind, ...],
        read: Callable[[Member, Sequence[Frame]], Content],
    ) -> Request:
        return Request(messages=messages, answers=answers, read=read, seconds=self.timeouts.round)

    # -- answers -------------------------------------------------------------------------------------------

    def _remember(
        self,
        answers: list[Answered],
        reports: list[Report],
        merged: Merged,
        plan: RoundPlan,
        late: list[LateWork],
    ) -> None:
        self._record_progress(answers)
        members = [answer.member for answer in answers] + [work.member for work in late]
        for k, reason in merged.rejected.items():
            self.membership.lost(members[k], reason)
        back = {report.member for report in reports}
        self._rejected = (self._rejected - back) | {members[k].who.partition for k in merged.rejected}
        if plan.momentum == "average" and self._averaging is self._star:
            kept = [k for k in merged.kept if k < len(answers)]
            histories = [members[k].history for k in kept]
            self._history = mean_of(histories, [reports[k].steps for k in kept])

    def _late_work(self) -> list[LateWork]:
        """What is to be merged with a round of those that were late for another."""
        self._collect_late()
        return self._late.take()

    def _collect_late(self) -> None:
        """Before anybody is given another request: what has been read is known from now on."""
        self._record_progress(self._late.collect())

    def _secure(self) -> None:
        """Bring to the driver what only workers have."""
        self._collect_late()
        self._averaging.secure()

    def _record_progress(self, answers: Iterable[Answered]) -> None:
        for answer in answers:
            if isinstance(answer.content, Report):
                self._rebalancer.progressed(answer.content)

    def _caught_up(self, member: Member, state: WorkerState | None) -> None:
        """It is given what it has to go on from, if anything."""
        member.is_new = False
        member.iteration = state.iteration if state else member.iteration


def _is_idle(member: Member) -> bool:
    return member.is_idle


def _can_train(member: Member) -> bool:
    return member.records > 0 and member.is_idle


def _records(parts: Iterable[slice]) -> int:
    return sum(int(part.stop - part.start) for part in parts)


def _restoring(state: WorkerState) -> Message:
    header = {"iteration": state.iteration, "position": state.position}
    return Message(Kind.RESTORE, header, NOTHING if state.history is None else raw(state.history))
