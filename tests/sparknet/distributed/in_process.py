"""A coordinator with workers in threads of this process: the engine without Spark around it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sparknet.data import Examples
from sparknet.distributed.comm.handshake import Identity
from sparknet.distributed.coordinator import Coordinator
from sparknet.distributed.timeouts import Timeouts
from sparknet.distributed.worker_service import Assignment, Service
from sparknet.easgd import Exchanger, Exchanges
from sparknet.training import RoundPlan, RoundResult, Scores, WorkerState
from sparknet.weights import Vector, Weights
from sparknet.worker import Recipe

TOKEN = b"t" * 32
QUICK = Timeouts(join=5, round=5, ping=0.2, send=5, stop=2)


class Broadcasted:
    """What a Spark broadcast is to a task."""

    def __init__(self, value: Examples) -> None:
        self.value = value


class InProcessWorkers:
    """Implements ``Workers`` over real sockets; ``options`` are further ones of the ``Coordinator``."""

    def __init__(
        self,
        recipe: Recipe,
        workers: int,
        test: Examples | None = None,
        timeouts: Timeouts = QUICK,
        wire: str = "float32",
        ring: bool = False,
        kind: type[Service] = Service,
        **options: Any,
    ) -> None:
        self.wire, self.kind = wire, kind
        self.recipe, self.examples, self.timeouts = recipe, test, timeouts
        self.initial = recipe.build().weights.numpy().copy()
        self.coordinator = Coordinator(
            bind="127.0.0.1",
            workers=workers,
            size=self.initial.size,
            token=TOKEN,
            timeouts=timeouts,
            wire=wire,
            ring=ring,
            **options,
        )
        self.services: dict[int, Service] = {}
        self.endings: dict[int, BaseException | None] = {}
        self.threads: list[threading.Thread] = []

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.coordinator.port

    def service(
        self, partition: int, shard: Examples, attempt: int = 0, recipe: Recipe | None = None
    ) -> Service:
        assignment = Assignment(
            address=self.address,
            token=TOKEN,
            recipe=recipe or self.recipe,
            test=Broadcasted(self.examples) if self.examples else None,  # type: ignore[arg-type]
            timeouts=self.timeouts,
            wire=self.wire,
            ring=("127.0.0.1", self.coordinator.ring_port) if self.coordinator.ring_port else None,
        )
        who = Identity(partition=partition, attempt=attempt, host="here", pid=0)
        return self.kind(assignment, who, lambda: shard)

    def start(self, service: Service) -> threading.Thread:
        """Run the service in a thread; ``endings`` has the attempt's exception, or None, once it is over."""

        def run() -> None:
            try:
                service.run()
                self.endings[service.who.attempt] = None
            except Exception as error:  # noqa: BLE001 - kept for the test to look at
                self.endings[service.who.attempt] = error

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.threads.append(thread)
        return thread

    def join(
        self, partition: int, shard: Examples, attempt: int = 0, recipe: Recipe | None = None
    ) -> Service:
        service = self.services[attempt] = self.service(partition, shard, attempt, recipe)
        self.start(service)
        return service

    def initial_weights(self) -> Vector:
        return self.initial.copy()

    def train(self, weights: Weights, plan: RoundPlan, ahead: RoundPlan | None = None) -> RoundResult:
        return self.coordinator.train(weights, plan, ahead)

    def exchanges(self, exchanger: Exchanger, plan: Callable[[], RoundPlan]) -> Exchanges:
        return self.coordinator.exchanges(exchanger, plan)

    def test(self, weights: Weights) -> Scores:
        assert self.examples is not None
        return self.coordinator.test(weights, self.recipe.slices(len(self.examples)))

    def states(self) -> dict[int, WorkerState]:
        return self.coordinator.states()

    def restore(self, states: Mapping[int, WorkerState]) -> None:
        self.coordinator.restore(states)

    def close(self) -> None:
        self.coordinator.close()
        for thread in self.threads:
            thread.join(5)
            assert not thread.is_alive()


@contextmanager
def in_process(
    recipe: Recipe,
    shards: list[Examples],
    test: Examples | None = None,
    *,
    workers: int | None = None,
    timeouts: Timeouts = QUICK,
    wire: str = "float32",
    ring: bool = False,
    kind: type[Service] = Service,
    **options: Any,
) -> Iterator[InProcessWorkers]:
    """One worker for each shard, of ``workers`` that are waited for; no thread outlives the block."""
    before = set(threading.enumerate())
    made = InProcessWorkers(recipe, workers or len(shards), test, timeouts, wire, ring, kind, **options)
    try:
        for number, shard in enumerate(shards):
            made.join(number, shard, attempt=number)
        yield made
    finally:
        made.close()
    left = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("sparknet")]
    assert not left
