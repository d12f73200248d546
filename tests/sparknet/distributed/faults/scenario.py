"""Runs a plan from its first round to its end, and says what was wrong."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from sparknet import easgd
from sparknet.distributed import rebalancing
from sparknet.distributed.comm import handshake
from sparknet.distributed.coordinator import Coordinator
from sparknet.distributed.timeouts import Timeouts
from sparknet.distributed.worker_service import Assignment
from sparknet.easgd import Exchanger, Exchanges
from sparknet.outer import Average, Outer, SlowMo
from sparknet.training import Round, RoundPlan, RoundResult, Scores, Settings, WorkerState, train
from sparknet.weights import Vector, Weights
from tests.sparknet.distributed.faults import adding
from tests.sparknet.distributed.faults.cluster import Cluster
from tests.sparknet.distributed.faults.elastic import Followed
from tests.sparknet.distributed.faults.model import Model
from tests.sparknet.distributed.faults.plan import Plan
from tests.sparknet.distributed.faults.strikes import Board
from tests.sparknet.distributed.faults.tasks import TaskServer

Result = TypeVar("Result")

TIMEOUTS = Timeouts(join=6, round=16, hang=1.0, ping=0.2, send=1.5, stop=3, lease=0.4)

LONGEST_SECONDS = 14.0
"""Of one call: where half of the workers are well, the others cost some short deadlines, never a round's."""

DRAIN_EVERY = 3
"""Rounds after which nobody has begun the next one, where rounds overlap."""

REST_SECONDS = 25.0
"""After the last fault all are back within so long."""

_TOKEN = b"f" * 32


class Broadcasted:
    """What a Spark broadcast is to a task."""

    def __init__(self, value: adding.Examples) -> None:
        self.value = value


@dataclass
class Outcome:
    """``wrong`` is empty if all went well; ``faults`` are those that happened."""

    wrong: list[str] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    rollbacks: list[int] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Saved:
    """A checkpoint in memory."""

    number: int
    weights: Vector
    lr: float
    outer: Mapping[str, Vector]
    states: Mapping[int, WorkerState]


class Team:
    """The coordinator as ``Workers``; no call may take too long."""

    def __init__(self, coordinator: Coordinator, cluster: Cluster, wrong: list[str]) -> None:
        self.coordinator, self.cluster, self.wrong = coordinator, cluster, wrong
        self.begun = False
        self.slices = adding.recipe(0, "window", 0).slices(adding.TEST_RECORDS)

    def initial_weights(self) -> Vector:
        return np.zeros(adding.SIZE, np.float32)

    def train(self, weights: Weights, plan: RoundPlan, ahead: RoundPlan | None = None) -> RoundResult:
        return self.timed("a round", lambda: self.coordinator.train(weights, plan, ahead))

    def test(self, weights: Weights) -> Scores:
        return self.timed("a test", lambda: self.coordinator.test(weights, self.slices))

    def states(self) -> dict[int, WorkerState]:
        return self.timed("asking for states", self.coordinator.states)

    def restore(self, states: Mapping[int, WorkerState]) -> None:
        self.coordinator.restore(states)

    def exchanges(self, exchanger: Exchanger, plan: Callable[[], RoundPlan]) -> Exchanges:
        exchanges = self.coordinator.exchanges(exchanger, plan)
        try:
            while True:
                yield self.timed("an exchange", lambda: next(exchanges))
        finally:
            self.timed("the last exchanges", exchanges.close)

    def close(self) -> None:
        self.timed("closing", self.coordinator.close)

    def timed(self, what: str, call: Callable[[], Result]) -> Result:
        started, all_, well = time.monotonic(), len(self.cluster.running), self.cluster.healthy
        try:
            return call()
        finally:
            seconds = time.monotonic() - started
            # at first all are waited for, as long as it takes them to join
            few = not self.begun or 2 * len(well & self.cluster.healthy) < all_
            self.begun = True
            limit = LONGEST_SECONDS + few * (TIMEOUTS.round + TIMEOUTS.join)
            if seconds > limit:
                self.wrong.append(f"{what} took {seconds:.1f} s, {limit:g} s at most were due")


class Scenario:
    def __init__(self, plan: Plan, board: Board, server: TaskServer, folder: Path) -> None:
        self.plan, self.board = plan, board
        self.outcome = Outcome()
        self.wrong = self.outcome.wrong
        self.cluster = Cluster(plan, board, server, folder)
        self.model = Model(plan)
        self.saved: Saved | None = None
        self.suffered: set[int] = set()

    def run(self) -> Outcome:
        started = time.monotonic()
        rebalancing._QUIET_SECONDS, rebalancing._IDLE_SECONDS, handshake.HANDSHAKE_SECONDS = 0.2, 1.0, 2.0
        try:
            if self.plan.mode == "elastic":
                self.elastic()
            else:
                while not self.averaging():
                    pass
        except Exception as error:  # noqa: BLE001 - whatever it is, it is wrong
            self.wrong.append(f"{type(error).__name__}: {error}")
        self.wrong += self.cluster.close()
        self.outcome.faults = self.cluster.happened
        self.outcome.rollbacks = self.model.rollbacks
        self.outcome.seconds = time.monotonic() - started
        return self.outcome

    def averaging(self) -> bool:
        """Train from the last checkpoint to the end; False if the driver was killed on the way."""
        plan, outer = self.plan, SlowMo() if self.plan.outer == "slowmo" else Average()
        last = plan.rounds if plan.ends == "at once" else 10**6
        settings = Settings(
            rounds=last,
            tau=plan.tau,
            test_every=plan.test_every,
            momentum=plan.momentum,  # type: ignore[arg-type]
            overlap=plan.overlap,
            gradients=plan.gradients,
            drain_every=DRAIN_EVERY,
        )
        with self.team() as team:
            start = self.resume(team, outer)
            for done in train(team, settings, outer, **start):
                self.after(done, team, outer)
                if done.number == last:
                    return True
                if done.number >= plan.rounds and self.rests(done.number, team):
                    self.wrong += self.model.weights(done.number, done.weights)
                    return True
                if self.blows(done.number + 1):
                    self.cluster.happened["restart"] += 1
                    self.killed = True
                    self.cluster.forget_all()
                    return False
                self.dwell(done.number + 1, team)
        return True

    def elastic(self) -> None:
        plan = self.plan
        elastic = Followed(np.zeros(adding.SIZE, np.float32))
        settings = Settings(rounds=10**6, tau=plan.tau, test_every=plan.test_every)
        with self.team() as team:
            rounds = easgd.train(team, settings, elastic)
            try:
                for done in rounds:
                    self.board.round += 1
                    self.outcome.rounds += 1
                    self.wrong += self.model.reports(done.reports)
                    for report in done.reports:
                        self.wrong += elastic.check(report, plan)
                    self.model.at = {done.number: done.weights}
                    if done.scores is not None:
                        elastic.exchanges.clear()  # of those that were waited for before the test
                        self.wrong += self.model.scores(done.number, done.scores, 0)
                    if done.number >= plan.rounds and self.rests(done.number, team):
                        return
                    self.blows(done.number + 1)
                    self.dwell(done.number + 1, team)
            finally:
                rounds.close()  # type: ignore[attr-defined]

    @contextmanager
    def team(self) -> Generator[Team, None, None]:
        plan, self.killed = self.plan, False
        coordinator = Coordinator(
            bind="127.0.0.1",
            workers=plan.workers,
            size=adding.SIZE,
            token=_TOKEN,
            timeouts=_timeouts(plan),
            wire=plan.wire,
            ring=plan.mode == "ring",
            copy_every=plan.copy_every,
            submit=self.cluster.submit,
            slots=self.cluster.slots,
            tasks=self.cluster.tasks,
            end_task=self.cluster.end,
        )
        self.cluster.ended = coordinator.job_ended
        self.cluster.assignment = Assignment(
            address=("127.0.0.1", coordinator.port),
            token=_TOKEN,
            recipe=adding.recipe(0, plan.sampling, 0.0),
            test=Broadcasted(adding.test_set()),  # type: ignore[arg-type]
            timeouts=_timeouts(plan),
            wire=plan.wire,
            job=uuid.uuid4().hex,
            ring=("127.0.0.1", coordinator.ring_port) if coordinator.ring_port else None,
        )
        team = Team(coordinator, self.cluster, self.wrong)
        try:
            self.cluster.submit(range(plan.workers))
            yield team
        finally:
            if not self.killed:
                self.cluster.withdraw()
            team.close()

    def resume(self, team: Team, outer: Outer) -> dict[str, Any]:
        saved = self.saved
        if saved is None:
            self.model.resume(0, team.initial_weights(), {}, outer)
            return {}
        outer.resume(saved.outer)
        team.restore(saved.states)
        self.model.resume(saved.number, saved.weights, saved.states, outer)
        return {"weights": saved.weights, "done": saved.number, "lr": saved.lr}

    def after(self, done: Round, team: Team, outer: Outer) -> None:
        plan, number = self.plan, done.number
        self.board.round += 1
        self.outcome.rounds += 1
        self.wrong += self.model.round(done)
        if done.scores is not None:
            back = plan.copy_every if plan.mode == "ring" or plan.gradients else 0
            self.wrong += self.model.scores(number, done.scores, back)
        if number in plan.fetches or number in plan.saves:
            self.wrong += self.model.weights(number, done.weights)
        if number in plan.saves and done.drained:
            states = team.states()
            self.wrong += [f"after round {number}: {what}" for what in self.model.states(states)]
            self.saved = Saved(
                number=number, weights=done.weights, lr=done.lr, outer=dict(outer.state), states=states
            )

    def blows(self, number: int) -> bool:
        """What is due before round ``number``; whether the driver is to be killed."""
        restart = False
        for place, blow in enumerate(self.plan.blows):
            if blow.round <= number and place not in self.suffered:
                self.suffered.add(place)
                if blow.what == "restart":
                    restart = self.plan.mode != "elastic"
                else:
                    self.cluster.suffer(blow)
        return restart

    def dwell(self, number: int, team: Team) -> None:
        """Before some rounds the driver waits until all that run have joined, though not for ever."""
        if number not in self.plan.dwells and number <= self.plan.rounds:
            return
        ends = time.monotonic() + (1.0 if number <= self.plan.rounds else 0.05)
        while time.monotonic() < ends:
            if self.cluster.running.keys() <= {who.attempt for who in team.coordinator.members}:
                return
            time.sleep(0.01)

    def rests(self, number: int, team: Team) -> bool:
        """Whether as many workers as can be have all shards; wrong if that takes long."""
        if number == self.plan.rounds:
            self.rest_ends = time.monotonic() + REST_SECONDS
        coordinator = team.coordinator
        wanted = min(self.plan.workers, self.cluster.slots())
        if len(coordinator.members) == wanted and coordinator.membership.assignment.settled:
            return True
        if time.monotonic() > self.rest_ends:
            self.wrong.append(
                f"{len(coordinator.members)} workers in the end where {wanted} can be; shards without one: "
                f"{coordinator.membership.assignment.unassigned}"
            )
            return True
        return False


def _timeouts(plan: Plan) -> Timeouts:
    if plan.quorum == 1:
        return TIMEOUTS
    return Timeouts(**{**vars(TIMEOUTS), "quorum": plan.quorum, "grace": 0.05})
