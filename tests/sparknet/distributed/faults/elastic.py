"""Elastic averaging that is followed: each exchange is reckoned again, from the start and the increments."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from sparknet.easgd import BETA, Elastic
from sparknet.training import Report
from sparknet.weights import Vector
from tests.sparknet.distributed.faults.model import moved
from tests.sparknet.distributed.faults.plan import Plan


@dataclass(frozen=True, kw_only=True, eq=False)
class Exchange:
    member: int
    members: int
    start: Vector
    end: Vector
    center: Vector
    center_after: Vector
    own_after: Vector


class Followed(Elastic):
    """``exchanges`` are those of which no report has been seen yet."""

    def __init__(self, center: Vector) -> None:
        super().__init__(center)
        self.exchanges: deque[Exchange] = deque()

    def exchange(self, member: int, vector: Vector, members: int) -> None:
        start, center = self.start_of(member).copy(), self.center.copy()
        end = vector.copy()
        super().exchange(member, vector, members)
        self.exchanges.append(
            Exchange(
                member=member,
                members=members,
                start=start,
                end=end,
                center=center,
                center_after=self.center.copy(),
                own_after=self.replicas[member].copy(),
            )
        )

    def check(self, report: Report, plan: Plan) -> list[str]:
        """What is wrong with the exchange that the report is of."""
        while self.exchanges and self.exchanges[0].member != report.member:
            self.exchanges.popleft()  # made while the others were waited for: exchanged, but not reported
        if not self.exchanges:
            return [f"worker {report.member} reported an exchange that was not made"]
        made = self.exchanges.popleft()
        unit = {"float32": 0.0, "bfloat16": 2.0**-6, "int8": 4 / 127}[plan.wire]
        allowed, wrong = 1e-4 + unit * plan.tau, []
        if (off := _far(made.end, moved(made.start, report))) > allowed:
            wrong.append(f"worker {report.member} ended {off:.4g} from where its steps lead")
        if not 1 <= made.members <= plan.workers:
            wrong.append(f"{made.members} members took part")
        pull = np.float32(BETA / made.members) * (made.end - made.center)
        if _far(made.center_after, made.center + pull) > 1e-5:
            wrong.append("the centre did not move as it should")
        if _far(made.own_after, made.end - pull) > 1e-5:
            wrong.append(f"worker {report.member} was not pulled as it should be")
        return wrong


def _far(a: Vector, b: Vector) -> float:
    return float(np.abs(a - b).max())
