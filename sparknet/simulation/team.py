"""``Workers`` that are simulated, led by the engine's coordinator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from sparknet.codecs import get_codec
from sparknet.distributed.coordinator import Coordinator
from sparknet.distributed.rebalancing import TaskStatus
from sparknet.distributed.timeouts import Timeouts
from sparknet.easgd import Exchanger, Exchanges
from sparknet.errors import UsageError
from sparknet.rounds import RoundPlan, RoundResult, Scores, WorkerState
from sparknet.simulation.events import EventQueue
from sparknet.simulation.machines import Machines
from sparknet.simulation.worker import NUMBERS, SimulatedWorker, Site
from sparknet.weights import Vector, Weights

# Nobody is given up for being slow: what is forecast is how fast those are that work.
_TIMEOUTS = Timeouts(join=1e6, round=1e6, hang=1e6, send=1e6, ping=1e6, lease=1e6)


class SimulatedTeam:
    """``workers`` of them on ``machines``; weights travel as ``wire``, through the driver or in a ``ring``.

    Use it within ``clock.of(team.events.now)``.
    """

    def __init__(
        self,
        machines: Machines,
        workers: int,
        *,
        wire: str = "float32",
        ring: bool = False,
        seed: int = 0,
        quorum: float = 1.0,
        grace: float | None = None,
    ) -> None:
        self.machines, self.ring = machines, ring
        self.events = EventQueue()
        timeouts = Timeouts(**{**vars(_TIMEOUTS), "quorum": quorum, "grace": grace})
        self.coordinator = Coordinator(
            bind="127.0.0.1",
            workers=workers,
            size=NUMBERS,
            token=b"",
            timeouts=timeouts,
            wire=wire,
            ring=ring,
            listen=self._listen,
            tasks=self._replacements,
        )
        self.site = Site(self.events, machines, get_codec(wire), seed)
        self.workers = {number: SimulatedWorker(self.site, number) for number in range(workers)}
        self._lives = dict.fromkeys(range(workers), 0)

    def initial_weights(self) -> Vector:
        return np.zeros(NUMBERS, np.float32)

    def train(self, weights: Weights, plan: RoundPlan, ahead: RoundPlan | None = None) -> RoundResult:
        result = self.coordinator.train(weights, plan, ahead)
        self.events.work(self._coordinating(len(result.reports)))
        return result

    def exchanges(self, exchanger: Exchanger, plan: Callable[[], RoundPlan]) -> Exchanges:
        for made in self.coordinator.exchanges(exchanger, plan):
            self.events.work(self._coordinating(1))
            yield made

    def test(self, weights: Weights) -> Scores:  # noqa: ARG002 - there is nothing to score
        raise UsageError("simulated workers have no test set: test_every must be 0")

    def states(self) -> dict[int, WorkerState]:
        return self.coordinator.states()

    def restore(self, states: Mapping[int, WorkerState]) -> None:
        self.coordinator.restore(states)

    def close(self) -> None:
        self.coordinator.close()

    def reclaim(self, number: int, away_seconds: float) -> None:
        """The machine of worker ``number`` is gone, and another one there after ``away_seconds``."""
        worker = self.workers[number]
        if worker.is_gone:
            return
        worker.lose()
        self._lives[number] += 1
        self.events.after(away_seconds, lambda: self._come(number))

    def _come(self, number: int) -> None:
        self.workers[number] = SimulatedWorker(self.site, number, self._lives[number])

    def _coordinating(self, members: int) -> float:
        """Seconds that the coordinator's own thread needs for the answers of so many."""
        machines = self.machines
        averaging = 0.0 if self.ring else machines.vector_bytes / machines.merging
        return members * (machines.handling + averaging)

    def _replacements(self) -> dict[int, TaskStatus]:
        """The shards of those that are away wait for their replacements, not for a slot of others."""
        away = (number for number, worker in self.workers.items() if worker.is_gone)
        return {number: TaskStatus(attempt=self._lives[number]) for number in away}

    def _listen(self, *, timeouts: Timeouts, **_: Any) -> _Listening:
        return _Listening(self.events, timeouts)


class _Listening:
    """Workers join without a connection."""

    port = 0

    def __init__(self, events: EventQueue, timeouts: Timeouts) -> None:
        self.events, self.timeouts = events, timeouts

    def close(self) -> None:
        """There is nothing to close."""
