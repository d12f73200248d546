"""The assignment of shards against a Spark in miniature: slots, waiting tasks, machines that come and go."""

from __future__ import annotations

import numpy as np
import pytest

from sparknet.distributed.shard_assignment import Plan, ShardAssignment

WAIT_SECONDS = 10.0


class Cluster:
    """Slots on executors; tasks wait in the order of their jobs and start where a slot is free."""

    def __init__(self, shards: int, slots: dict[str, int], records: int = 100) -> None:
        self.assignment = ShardAssignment(shards, WAIT_SECONDS)
        self.slots, self.records = dict(slots), records
        self.waiting = list(range(shards))
        self.running: dict[int, str] = {}
        self.holding: dict[int, set[int]] = {}
        self.handed_over: dict[int, str] = {}
        self.now = 0.0

    def start(self) -> None:
        """Waiting tasks take the free slots, drain, and join."""
        for place, slots in self.slots.items():
            while self.waiting and list(self.running.values()).count(place) < slots:
                worker = self.waiting.pop(0)
                assert worker not in self.running
                self.assignment.arriving(worker)
                self.running[worker], self.holding[worker] = place, {worker}
                self.assignment.joined(worker, place, {worker: self.records}, self.now)

    def act(self, seconds: float = 1.0, *, stay: int = 0, full: bool = False) -> None:
        self.now += seconds
        plan = self.assignment.plan(self.now, stay=stay, full=full)
        for worker in plan.yields:
            place, shards = self.running.pop(worker), self.holding.pop(worker)
            self.handed_over.update(dict.fromkeys(shards, place))
            self.assignment.yielded(worker, dict.fromkeys(shards, self.records), place, self.now)
        for worker, shards in plan.assignments.items():
            for shard in set(shards) - self.holding[worker]:
                assert self.handed_over[shard] == self.running[worker]
                if self.handed_over.pop(shard) in self.slots:
                    self.holding[worker].add(shard)
            self.holding[worker] &= shards
            self.assignment.confirmed(worker, dict.fromkeys(self.holding[worker], self.records), self.now)
        self.waiting.extend(plan.submit)
        self.assignment.submitted(plan.submit)

    def kill(self, place: str) -> None:
        """The machine is gone, with what was handed over on it; Spark puts the tasks back to the front."""
        del self.slots[place]
        for worker in [worker for worker, where in self.running.items() if where == place]:
            del self.running[worker], self.holding[worker]
            self.waiting.insert(0, worker)
            self.assignment.left(worker, self.now)
        self.handed_over = {shard: where for shard, where in self.handed_over.items() if where != place}

    def settle(self, limit: int = 200, **options: bool) -> int:
        for steps in range(limit):
            self.start()
            if self.assignment.settled:
                return steps
            self.act(stay=len(self.running) // 2, **options)
        raise AssertionError(
            f"not settled: {self.holding}, waiting {self.waiting}, handed over {self.handed_over}"
        )

    @property
    def trained(self) -> list[int]:
        return sorted(shard for shards in self.holding.values() for shard in shards)

    def check(self) -> None:
        """Every shard is held once; every one that its own worker does not hold has a task waiting."""
        assert self.trained == list(range(self.assignment.shards))
        assert sorted(self.waiting) == sorted(set(range(self.assignment.shards)) - set(self.running))


@pytest.mark.parametrize(
    ("shards", "slots"),
    [(3, {"a": 1}), (4, {"a": 1, "b": 1}), (5, {"a": 2}), (9, {"a": 2, "b": 2}), (3, {"a": 2, "b": 1})],
    ids=["one slot", "two machines", "one machine", "more", "as many"],
)
def test_fewer_slots_than_shards_hold_all_of_them(shards: int, slots: dict[str, int]) -> None:
    cluster = Cluster(shards, slots)
    cluster.settle(full=True)
    cluster.check()
    assert len(cluster.running) == min(shards, sum(slots.values()))
    sizes = [len(held) for held in cluster.holding.values()]
    assert max(sizes) - min(sizes) <= 1 + (len(slots) > 1)


def test_nobody_yields_before_the_wait_is_over() -> None:
    cluster = Cluster(3, {"a": 1, "b": 1, "c": 1})
    cluster.settle()
    cluster.kill("c")
    for _ in range(9):
        cluster.start()
        cluster.act()
        assert sorted(cluster.running) == [0, 1]
    cluster.settle()
    cluster.check()


def test_a_machine_that_never_comes_back_leaves_its_shard_to_the_others_and_may_return() -> None:
    cluster = Cluster(3, {"a": 1, "b": 1, "c": 1})
    cluster.settle()
    cluster.kill("c")
    assert cluster.settle() < 2 * WAIT_SECONDS
    cluster.check()
    assert len(cluster.running) == 2
    cluster.slots["d"] = 1
    cluster.settle()
    cluster.check()
    assert {worker: sorted(held) for worker, held in cluster.holding.items()} == {0: [0], 1: [1], 2: [2]}


def test_a_machine_that_dies_with_shards_handed_over_loses_nothing() -> None:
    cluster = Cluster(4, {"a": 1, "b": 1})
    cluster.start()
    cluster.act(full=True)  # both yield ...
    assert len(cluster.handed_over) == 2
    cluster.kill("b")  # ... and one machine is gone with what it handed over
    cluster.slots["c"] = 1
    cluster.settle(full=True)
    cluster.check()


def test_empty_shards_need_nobody() -> None:
    assignment = ShardAssignment(3, WAIT_SECONDS)
    for worker, records in enumerate((100, 0, 100)):
        assignment.joined(worker, "a", {worker: records}, 0.0)
    assert assignment.settled
    assert assignment.unassigned == []


def test_a_worker_that_lost_its_connection_keeps_all_its_shards() -> None:
    cluster = Cluster(3, {"a": 2})
    cluster.settle(full=True)
    worker, held = next((worker, held) for worker, held in cluster.holding.items() if len(held) > 1)
    cluster.assignment.left(worker, cluster.now)
    assert set(cluster.assignment.unassigned) == held
    cluster.assignment.joined(worker, "a", dict.fromkeys(held, 100), cluster.now)
    assert cluster.assignment.settled
    assert cluster.assignment.of(worker) == sorted(held)


def test_one_that_reports_a_shard_of_another_is_assigned_its_own_only() -> None:
    assignment = ShardAssignment(2, WAIT_SECONDS)
    assignment.joined(0, "a", {0: 5}, 0.0)
    assignment.joined(1, "a", {1: 5}, 0.0)
    assignment.joined(0, "a", {0: 5, 1: 5}, 1.0)
    assert assignment.plan(2.0, stay=1).assignments == {0: frozenset({0})}


def test_a_slot_is_yielded_only_for_a_task_that_waits_and_the_others_hang() -> None:
    shards = ShardAssignment(3, WAIT_SECONDS)
    for worker in range(3):
        shards.joined(worker, "a", {worker: 5}, 0.0)
    shards.left(2, 1.0)
    assert shards.plan(2.0, stay=1, waiting=()) == Plan()  # its own worker may still come
    late = 2.0 + WAIT_SECONDS
    assert shards.plan(late, stay=1, waiting=()) == Plan(hanging=(2,))
    shards.ended(2, late)
    assert shards.plan(late + 1, stay=1, waiting=()) == Plan()
    assert len(shards.plan(late + WAIT_SECONDS, stay=1, waiting={2}).yields) == 1


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_every_shard_is_held_once_in_the_end(seed: int) -> None:
    """Machines come and go at random, at least one stays; when that ends, the assignment settles."""
    rng = np.random.default_rng(seed)
    cluster = Cluster(int(rng.integers(1, 9)), {"0": 1, "1": int(rng.integers(1, 3))})
    for turn in range(60):
        cluster.start()
        cluster.act(float(rng.integers(1, 8)), stay=len(cluster.running) // 2, full=bool(rng.integers(2)))
        if rng.random() < 0.2 and len(cluster.slots) > 1:
            cluster.kill(str(rng.choice(list(cluster.slots))))
        if rng.random() < 0.2:
            cluster.slots[f"new {turn}"] = int(rng.integers(1, 3))
    cluster.settle()
    cluster.check()
