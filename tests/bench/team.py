"""Worker processes of this machine and their coordinator, without Spark: the engine alone, over sockets."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Generator

from sparknet.data import Examples
from sparknet.distributed.comm.handshake import Identity
from sparknet.distributed.coordinator import Coordinator
from sparknet.distributed.timeouts import Timeouts
from sparknet.distributed.worker_service import Assignment, Service
from sparknet.easgd import Exchanger
from sparknet.training import Report, RoundPlan, RoundResult
from sparknet.weights import Vector, Weights
from sparknet.worker import Recipe

TOKEN = b"b" * 32
TIMEOUTS = Timeouts(join=120, round=600, hang=300, send=300, stop=20)


class Team:
    """A coordinator as ``Workers``, for training alone."""

    def __init__(self, coordinator: Coordinator, initial: Vector) -> None:
        self.coordinator, self._initial = coordinator, initial

    def initial_weights(self) -> Vector:
        return self._initial

    def train(self, weights: Weights, plan: RoundPlan, ahead: RoundPlan | None = None) -> RoundResult:
        return self.coordinator.train(weights, plan, ahead)

    def exchanges(self, exchanger: Exchanger, plan: Callable[[], RoundPlan]) -> Generator[Report, None, None]:
        return self.coordinator.exchanges(exchanger, plan)


class Ports:
    """Tells workers, which are forked before any thread is started, where the coordinator listens."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()

    def tell(self, workers: int, *ports: int | None) -> None:
        os.write(self.write, workers * (json.dumps(ports).ljust(40)).encode())

    def __call__(self) -> list[int | None]:
        found: list[int | None] = json.loads(os.read(self.read, 40))
        return found


def serve(
    number: int, shard: Examples, recipe: Recipe, host: str, ports: Ports, timeouts: Timeouts, wire: str
) -> None:
    """Be worker ``number``, in a process of its own."""
    listens, ring = ports()
    assert listens is not None
    assignment = Assignment(
        address=(host, listens),
        token=TOKEN,
        recipe=recipe,
        test=None,
        timeouts=timeouts,
        wire=wire,
        ring=(host, ring) if ring else None,
    )
    who = Identity(partition=number, attempt=number, host="here", pid=os.getpid())
    Service(assignment, who, lambda: shard).run()
