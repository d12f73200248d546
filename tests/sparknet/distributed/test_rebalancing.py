"""Rebalancing over real sockets, with slots that threads take: a small model of Spark starts the tasks."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparknet.data import Examples
from sparknet.data.dataset import Batch
from sparknet.distributed.comm.channel import Channel
from sparknet.distributed.rebalancing import TaskStatus
from sparknet.distributed.timeouts import Timeouts
from sparknet.distributed.worker_service import Service
from sparknet.errors import TrainingError
from sparknet.local import LocalWorkers
from sparknet.replica import TorchReplica
from sparknet.training import Round, RoundPlan, Settings, train
from sparknet.weights import Vector
from tests.sparknet.distributed.in_process import QUICK, InProcessWorkers
from tests.sparknet.small import digest, momentum_sgd, pictures, small_net, small_recipe

SHARD = 40
TEST = pictures(70, seed=1)
IMPATIENT = replace(QUICK, lease=0.3, join=60, round=60, stop=10)
read: Counter[int] = Counter()


class Recording(TorchReplica):
    """Counts the records it is given, by the number in their first two pixels."""

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        batch = next(batches)
        numbers = (batch["data"][:, 0, 0, :2] * 256).round().int().tolist()
        read.update(high * 256 + low for high, low in numbers)
        return super().step(iter([batch]))


def recording() -> TorchReplica:
    return Recording(small_net(), momentum_sgd)


RECIPE = small_recipe(8, test_batch_size=8, replica=recording)  # a round of five steps is an epoch of a shard


def shards_of(count: int) -> list[Examples]:
    images = np.zeros((count * SHARD, 1, 4, 4), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = np.divmod(np.arange(count * SHARD), 256)
    whole = Examples(images, np.arange(count * SHARD) % 3)
    return [whole[k * SHARD : (k + 1) * SHARD] for k in range(count)]


class MiniatureSpark(InProcessWorkers):
    """Tasks of ``shards`` wait, in the order of their jobs, for one of ``slots``, whose number it tells the
    engine if it is to ``know``. The attempts ``stuck`` do not end when their workers have, until they are
    killed, and it tells of its tasks if there are any."""

    def __init__(
        self,
        shards: list[Examples],
        slots: int,
        *,
        know: bool = True,
        stuck: Collection[int] = (),
        timeouts: Timeouts = IMPATIENT,
        ring: bool = False,
    ) -> None:
        self.job = uuid.uuid4().hex
        self.shards, self.slots = shards, slots
        self.waiting: list[int] = []
        self.running: dict[int, Service] = {}
        self.attempts = 0
        self.killed = {attempt: threading.Event() for attempt in stuck}
        self.lock = threading.Lock()
        asked = {"tasks": self.tasks, "end_task": self.end} if stuck else {}
        super().__init__(
            RECIPE,
            len(shards),
            TEST,
            timeouts,
            ring=ring,
            submit=self.submit,
            slots=(lambda: self.slots) if know else None,
            **asked,
        )
        self.submit(range(len(shards)))

    def tasks(self) -> dict[int, TaskStatus]:
        with self.lock:
            running = {n: TaskStatus(attempt=service.who.attempt) for n, service in self.running.items()}
            return {**dict.fromkeys(self.waiting, TaskStatus()), **running}

    def end(self, attempt: int) -> None:
        self.killed[attempt].set()

    def submit(self, shards: Sequence[int]) -> None:
        with self.lock:
            self.waiting.extend(shards)
        self.fill()

    def fill(self) -> None:
        with self.lock:
            while self.waiting and len(self.running) < self.slots:
                shard = self.waiting.pop(0)
                self.attempts += 1
                service = self.service(shard, self.shards[shard], self.attempts)
                service = Service(replace(service.assignment, job=self.job), service.who, service.drain)
                self.running[shard] = service
                thread = threading.Thread(target=self.hold, args=(shard, service), daemon=True)
                self.threads.append(thread)
                thread.start()

    def hold(self, shard: int, service: Service) -> None:
        try:
            service.run()
            if service.who.attempt in self.killed:
                assert self.killed[service.who.attempt].wait(20)
                raise TrainingError("killed")
        except Exception:  # noqa: BLE001 - Spark tries a failed task again, first of all
            with self.lock:
                self.waiting.insert(0, shard)
        with self.lock:
            if self.running.get(shard) is service:
                del self.running[shard]
        self.fill()

    def kill(self, worker: int) -> None:
        """The worker and its slot are gone; its task waits before all others."""
        service = self.running[worker]
        self.slots -= 1
        service._connected = killed  # type: ignore[method-assign]
        [member] = [one for one in self.coordinator.membership.all if one.who.partition == worker]
        member.channel.hang_up()

    def close(self) -> None:
        self.slots = 0
        super().close()


def killed() -> Channel:
    raise TrainingError("killed")


@contextmanager
def spark(shards: int | list[Examples], slots: int, **options: Any) -> Iterator[MiniatureSpark]:
    read.clear()
    made = MiniatureSpark(shards_of(shards) if isinstance(shards, int) else shards, slots, **options)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sparknet.distributed.rebalancing._QUIET_SECONDS", 0.3)
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))


def test_a_task_that_does_not_end_after_its_worker_yielded_is_ended() -> None:
    """It holds the only slot, and Spark starts it again: both shards are trained on all the same."""
    with spark(2, 1, stuck=[1], timeouts=replace(IMPATIENT, hang=0.5)) as workers:
        seen = {report.read for done in train(workers, Settings(rounds=4, tau=5)) for report in done.reports}
        assert workers.killed[1].is_set()
        assert seen == {0, 1}
        assert sorted([*workers.waiting, *workers.running]) == [0, 1]  # each has one task, and no more


@pytest.mark.rig
def test_a_worker_whose_shards_find_no_room_on_the_spill_volume_keeps_its_slot(
    full_volume: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(full_volume))
    shards = [pictures(20_000, seed=number) for number in range(2)]
    with spark(shards, 1, timeouts=replace(IMPATIENT, join=1)) as workers:
        done = list(train(workers, Settings(rounds=50, tau=5)))
        assert [round_.members for round_ in done] == [(0,)] * 50
        assert [lost for round_ in done for lost in round_.result.lost] == []
    assert caplog.text.count("keeps its slot: its shards cannot be put on the spill volume") == 1
    assert list(full_volume.rglob("*.npy")) == []


@pytest.mark.parametrize("ring", [False, True], ids=["star", "ring"])
@pytest.mark.parametrize(("shards", "slots"), [(3, 1), (5, 2)], ids=["one slot", "two slots"])
def test_fewer_slots_than_shards_train_on_every_record(shards: int, slots: int, ring: bool) -> None:
    with spark(shards, slots, ring=ring) as workers:
        rounds = list(train(workers, Settings(rounds=2 * shards, tau=5, test_every=shards)))
        assert all(len(done.members) == slots for done in rounds)
        assert {report.read for done in rounds for report in done.reports} == set(range(shards))
        assert sorted(read) == list(range(shards * SHARD))
        for shard in range(shards):  # every record as often as the others of its shard
            assert len({read[record] for record in range(shard * SHARD, (shard + 1) * SHARD)}) == 1
        assert rounds[-1].scores is not None
        assert rounds[-1].scores.records == len(TEST)
        if not ring:  # each test record once: the same sums as one worker that scores them all
            with LocalWorkers(RECIPE, shards_of(1), TEST) as local:
                assert rounds[-1].scores == local.test(rounds[-1].weights)
        assert sorted(workers.waiting) == sorted(set(range(shards)) - set(workers.running))


def test_nothing_is_left_on_the_spill_volume(tmp_path: Path) -> None:
    with spark(4, 1) as workers:
        next(train(workers, Settings(rounds=1, tau=1)))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_where_slots_are_not_known_patience_decides() -> None:
    with spark(3, 2, know=False) as workers:
        done = list(train(workers, Settings(rounds=3, tau=5)))
        assert {report.read for round_ in done for report in round_.reports} == {0, 1, 2}
        assert sorted(read) == list(range(3 * SHARD))


def own(done: Round) -> bool:
    return all(report.read == report.member for report in done.reports)


def test_a_slot_that_is_gone_for_good_leaves_its_shard_to_the_others_and_may_return() -> None:
    with spark(3, 3) as workers:
        rounds = train(workers, Settings(rounds=20_000, tau=5, test_every=50))
        assert next(rounds).members == (0, 1, 2)
        workers.kill(1)
        seen: set[int] = set()
        for done in rounds:
            if done.scores is not None:
                assert done.scores.records == len(TEST)
            seen = seen | {report.read for report in done.reports} if len(done.members) == 2 else set()
            if seen == {0, 1, 2}:
                break
        assert len(done.members) == 2
        assert seen == {0, 1, 2}
        before = {number: state.position for number, state in workers.states().items()}
        workers.slots += 1
        workers.fill()
        done = next(done for done in rounds if done.members == (0, 1, 2) and own(done))
        assert all(own(next(rounds)) for _ in range(5))
        after = {number: state.position for number, state in workers.states().items()}
        assert all(after[number] > before[number] for number in range(3))  # nobody began anew


def test_momentum_outlives_the_worker_that_yielded() -> None:
    """One slot, two shards: the newcomer goes on from the other's steps and history."""
    with spark(2, 1, know=False) as workers:
        workers.coordinator.membership.assembled = True  # as if training had begun with one worker
        rounds = train(workers, Settings(rounds=10**6, tau=5))
        first = next(rounds)
        (own_shard,) = first.members
        last = first
        for done in rounds:
            if done.members != (own_shard,):
                break
            last = done
        assert done.reports[0].iteration == last.reports[0].iteration + 5
        state = workers.states()[done.members[0]]
        assert state.history is not None
        assert np.abs(state.history).max() > 0


def test_one_slot_reads_two_shards_as_one_worker_with_two_readers_would() -> None:
    with spark(2, 1) as workers:
        done = list(train(workers, Settings(rounds=4, tau=5)))
        (member,) = done[-1].members
    read.clear()
    with LocalWorkers(RECIPE, [shards_of(2)[member]]) as local:
        worker = local.workers[0]
        worker = RECIPE.worker(member, shards_of(2)[member])
        worker.add_shard(1 - member, shards_of(2)[1 - member])
        local.workers[0] = worker
        expected = list(train(local, Settings(rounds=4, tau=5)))
    assert [digest(r.weights) for r in done] == [digest(r.weights) for r in expected]


class Anchored:
    """Everybody starts from the same weights, always."""

    def __init__(self, weights: Vector) -> None:
        self.weights = weights

    def start_of(self, member: int) -> Vector:
        return self.weights

    def exchange(self, member: int, vector: Vector, members: int) -> None:
        assert np.isfinite(vector).all()


def test_elastic_averaging_takes_up_shards_too() -> None:
    with spark(3, 1) as workers:
        steps = workers.exchanges(Anchored(workers.initial_weights()), lambda: RoundPlan(tau=5))
        assert {next(steps).report.read for _ in range(6)} == {0, 1, 2}
        steps.close()


def test_an_empty_shards_worker_yields_first_and_is_not_missed() -> None:
    shards = [*shards_of(2), pictures(0)]
    with spark([shards[0], shards[2], shards[1]], 2) as workers:
        done = list(train(workers, Settings(rounds=2, tau=5)))
        assert done[-1].members == (0, 2)
        assert own(done[-1])
        assert workers.waiting == []


def test_states_of_a_checkpoint_reach_shards_of_other_workers() -> None:
    with spark(2, 1) as workers:
        rounds = train(workers, Settings(rounds=10**6, tau=2))
        for _ in range(4):
            done = next(rounds)
        saved = workers.states()
        assert {number: state.position for number, state in saved.items()} == {0: 32, 1: 32}
        for _ in range(4):
            next(rounds)
        workers.restore(saved)
        (report,) = next(rounds).reports
        assert report.position == 48
        assert done.reports[0].iteration + 2 == report.iteration
