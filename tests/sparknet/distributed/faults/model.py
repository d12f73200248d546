"""What every round must bring, reckoned without the engine: from the reports and the known increments.

Weights are predicted from the reports of a round (who made which steps, reading in which shard), and compared
element by element whenever the caller sees them. Iterations and positions of a shard never go backwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sparknet.outer import Outer, SlowMo
from sparknet.training import Report, Round, Scores, WorkerState
from sparknet.weights import Vector
from tests.sparknet.distributed.faults.adding import SIZE, TEST_RECORDS, increment
from tests.sparknet.distributed.faults.plan import Plan

_NUMBERS = TEST_RECORDS * (TEST_RECORDS - 1) / 2
_BACK = re.compile(r"from that of (\d+) rounds before")


def moved(start: Vector, report: Report) -> Vector:
    """Where a worker's steps take it from ``start``, float32 (P,)."""
    vector = start.copy()
    for iteration in range(report.iteration - report.steps, report.iteration):
        vector = vector + increment(report.member, iteration, report.read)
    return vector


def mean(vectors: Sequence[Vector], shares: Sequence[int]) -> Vector:
    weighted = [vector.astype(np.float64) * share for vector, share in zip(vectors, shares, strict=True)]
    return (np.sum(weighted, axis=0) / sum(shares)).astype(np.float32)


class Model:
    """Of the run of a plan. Its methods return what is wrong."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.at: dict[int, Vector] = {0: np.zeros(SIZE, np.float32)}
        self.outer: Outer | None = SlowMo() if plan.outer == "slowmo" else None
        self.unseen = 0  # rounds since weights were compared
        self.unsure = False  # whether the outer momentum is not known
        self.iterations: dict[int, int] = {}
        self.read: dict[int, int] = {}
        self.went_back = 0  # rounds, seen in the weights before it is told
        self.trained = False
        self.rollbacks: list[int] = []

    def resume(self, number: int, weights: Vector, states: Mapping[int, WorkerState], outer: Outer) -> None:
        """The driver has gone back to a checkpoint."""
        self.at = {number: weights.copy()}
        self.unseen = 0
        if self.outer is not None:
            self.outer = SlowMo()
            self.outer.resume(outer.state)
        self.unsure = False
        self.iterations = {shard: state.iteration for shard, state in states.items()}
        self.read = {shard: state.position for shard, state in states.items()}

    def round(self, done: Round) -> list[str]:
        """After every round; what it says of the weights is said by ``weights``."""
        wrong = self.reports(done.merged)
        start = self.at[done.number - 1]
        for rounds in [int(match[1]) for lost in done.result.lost if (match := _BACK.search(lost))]:
            self.rollbacks.append(rounds)
            if rounds > self.plan.copy_every:
                wrong.append(f"went back {rounds} rounds, {self.plan.copy_every} were promised")
            if rounds == self.went_back:
                self.went_back = 0
            else:
                start = self.at[done.number - 1] = self.at.get(done.number - 1 - rounds, start)
            self.unsure = True
        if self.went_back:
            wrong.append(f"went back {self.went_back} rounds without a word")
            self.went_back = 0
        if any("outer optimiser's momentum" in lost for lost in done.result.lost):
            self.unsure = True
        ends = [moved(start, report) for report in done.merged]
        after = mean(ends, [report.steps for report in done.merged])
        if self.outer is not None:
            after = self.outer.step(start, after, done.lr)
        self.at[done.number] = after
        self.unseen += 1
        if isinstance(done.outcome, np.ndarray):
            wrong += self.weights(done.number, done.outcome)
        return [f"round {done.number}: {what}" for what in wrong]

    def weights(self, number: int, seen: Vector) -> list[str]:
        """The caller sees the weights of a round."""
        off = float(np.abs(seen - self.at[number]).max())
        allowed = self.allowed()
        unsure = self.unsure and self.outer is not None
        if off > allowed and not unsure:
            self.went_back = next(
                (b for b in self.backs(number) if _near(self.at[number - b], seen, allowed)), 0
            )
        self.at[number], self.unseen = seen.copy(), 0
        self.unsure = self.unsure or self.went_back > 0
        if unsure or off <= allowed or self.went_back:
            return []
        return [f"the weights are off by {off:.4g}, {allowed:.2g} is allowed"]

    def scores(self, number: int, scores: Scores, back: int) -> list[str]:
        """Each record once, by the weights of the round, or of one at most ``back`` rounds before."""
        wrong = []
        if scores.records != TEST_RECORDS or scores.sums["numbers"] != _NUMBERS:
            wrong.append(f"{scores.records} of {TEST_RECORDS} records scored, {scores.sums['numbers']:g}")
        first = scores.sums["weight"] / TEST_RECORDS
        allowed = self.allowed() + 1e-3
        near = [abs(first - self.at[n][0]) for n in range(number - back, number + 1) if n in self.at]
        if min(near) > allowed and not (self.unsure and self.outer):
            wrong.append(f"scored by weights that are off by {min(near):.3g} of {back} rounds")
        return wrong

    def reports(self, reports: Iterable[Report]) -> list[str]:
        wrong = []
        for report in reports:
            self.trained = True
            before = self.iterations.get(report.member, 0)
            if report.iteration - report.steps < before:
                wrong.append(
                    f"worker {report.member} went back from iteration {before} to "
                    f"{report.iteration - report.steps}"
                )
            for shard in {report.member, report.read}:
                self.iterations[shard] = max(report.iteration, self.iterations.get(shard, 0))
            read = self.read.get(report.read, 0)
            if report.position < read:
                wrong.append(f"shard {report.read} went back from position {read} to {report.position}")
            self.read[report.read] = max(report.position, read)
        return wrong

    def states(self, states: Mapping[int, WorkerState]) -> list[str]:
        """What a checkpoint would keep."""
        wrong = []
        for shard in range(self.plan.workers):
            iteration, position = self.iterations.get(shard, 0), self.read.get(shard, 0)
            state = states.get(shard)
            if state is None:
                if iteration:
                    wrong.append(f"nothing is known of shard {shard}, which was at iteration {iteration}")
                continue
            if state.iteration < iteration or state.position < position:
                wrong.append(
                    f"shard {shard} is kept at iteration {state.iteration}, position {state.position}; "
                    f"it was at {iteration}, {position}"
                )
            faded = state.history is not None and not np.any(state.history) and state.iteration > 0
            if faded and self.plan.momentum != "reset":
                wrong.append(f"the momentum of shard {shard} is kept as zero")
        return wrong

    def backs(self, number: int) -> list[int]:
        """How many rounds the weights may have gone back to, all that had them being lost."""
        if self.plan.mode != "ring" and not self.plan.gradients:
            return []
        return [back for back in range(1, self.plan.copy_every + 1) if number - back in self.at]

    def allowed(self) -> float:
        """How far weights may be off: rounding of what travels, for each round that was not seen."""
        unit = {"float32": 0.0, "bfloat16": 2.0**-6, "int8": 4 / 127}[self.plan.wire]
        return 1e-4 + unit * self.plan.tau * max(1, self.unseen)


def _near(expected: Vector, seen: Vector, allowed: float) -> bool:
    return float(np.abs(expected - seen).max()) <= allowed
