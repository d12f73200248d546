"""Workers that take every step together, by their mean gradient: as in one process, and under faults."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sparknet.checkpoint import Checkpoint, resumed
from sparknet.codecs import get_codec
from sparknet.data.dataset import Batch
from sparknet.distributed.averaging import gradient_averager
from sparknet.distributed.worker_service import Service
from sparknet.errors import UsageError
from sparknet.local import LocalWorkers
from sparknet.outer import Average
from sparknet.replica import TorchReplica
from sparknet.training import Round, RoundPlan, Settings, WorkerState, train
from sparknet.weights import fetch
from sparknet.worker import Recipe
from tests.sparknet.distributed.fixtures import (
    TEST,
    WAYS,
    WIRES,
    DropsOut,
    join_as,
    members_of,
    paused,
    shards_of,
    slowly,
    wait_for,
    wait_until,
)
from tests.sparknet.distributed.in_process import QUICK, InProcessWorkers, in_process
from tests.sparknet.small import digest, momentum_sgd, small_net, small_recipe
from tests.sparknet.test_gradients import PLAIN, adam, caffe, shared_net

PLAN = RoundPlan(tau=1, gradients=True)


@pytest.fixture(autouse=True)
def _small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or these nets would fit into one."""
    monkeypatch.setattr(gradient_averager, "SMALLEST_BUCKET", 20)
    monkeypatch.setattr(gradient_averager, "LARGEST_BUCKET", 60)


def in_step(rounds: int = 8, test_every: int = 4) -> Settings:
    return Settings(rounds=rounds, tau=1, test_every=test_every, gradients=True)


def adam_replica() -> TorchReplica:
    return TorchReplica(small_net(), adam)


def normed() -> TorchReplica:
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 3))
    return TorchReplica(module, momentum_sgd)


REPLICAS = pytest.mark.parametrize(
    "make",
    [adam_replica, normed, caffe(shared_net(), clip_gradients=0.1, iter_size=2)],
    ids=["adam", "bn", "caffe"],
)


def recipe_of(make: Callable[[], object], **options: object) -> Recipe:
    return small_recipe(replica=make, test_batch_size=8, **options)


def of_net(make: Callable[[], object]) -> dict[str, object]:
    """What the coordinator is told of it."""
    replica: TorchReplica = make()  # type: ignore[assignment]
    return {"statistics": replica.statistics, "moving": replica.moving}


def reference(make: Callable[[], object], workers: int, wire: str = "float32") -> list[Round]:
    with LocalWorkers(recipe_of(make), shards_of(workers), TEST, wire=wire) as local:
        return list(train(local, in_step()))


def all_alike(workers: InProcessWorkers) -> bool:
    """Whether the replicas that are members hold the same weights and history, once all have had time."""
    members = [member.who.attempt for member in members_of(workers)]

    def states() -> set[tuple[str, str]]:
        replicas = [workers.services[attempt].worker.replica for attempt in members]  # type: ignore[union-attr]
        return {(digest(r.weights.numpy()), digest(r.history().numpy())) for r in replicas}

    workers.states()  # whoever answers has taken the last step
    return len(members) > 0 and len(states()) == 1


@REPLICAS
@pytest.mark.parametrize("workers_count", [1, 2, 3])
@WAYS
def test_it_is_one_process_bit_for_bit(make: Callable[[], object], workers_count: int, ring: bool) -> None:
    expected = reference(make, workers_count)
    shards = shards_of(workers_count)
    with in_process(recipe_of(make), shards, TEST, ring=ring, **of_net(make)) as workers:
        done = list(train(workers, in_step()))
        assert all_alike(workers)
    assert digest(done[-1].weights) == digest(expected[-1].weights)
    assert [r.loss for r in done] == [r.loss for r in expected]
    assert [r.scores for r in done] == [r.scores for r in expected]


@REPLICAS
@WIRES
def test_through_the_driver_it_is_one_process_in_every_format(make: Callable[[], object], wire: str) -> None:
    expected = reference(make, 3, wire)
    with in_process(recipe_of(make), shards_of(3), TEST, wire=wire, **of_net(make)) as workers:
        done = list(train(workers, in_step()))
        assert all_alike(workers)
    assert digest(done[-1].weights) == digest(expected[-1].weights)


@pytest.mark.parametrize("wire", ["bfloat16", "int8"])
@REPLICAS
def test_among_the_workers_fewer_bits_leave_all_replicas_alike(make: Callable[[], object], wire: str) -> None:
    exact = reference(make, 3)
    with in_process(recipe_of(make), shards_of(3), TEST, wire=wire, ring=True, **of_net(make)) as workers:
        done = list(train(workers, in_step()))
        assert all_alike(workers)
    far = np.abs(done[-1].weights - exact[-1].weights).max()
    assert 0 < far < 0.1 * np.abs(exact[-1].weights).max()
    assert done[-1].loss == pytest.approx(exact[-1].loss, rel=0.05)


@pytest.mark.parametrize("buckets", [(1, 7), (50, 64), (10**6, 10**6)])
def test_the_size_of_buckets_changes_no_bit_of_float32(
    buckets: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> str:
        with in_process(recipe_of(adam_replica), shards_of(3), ring=True) as workers:
            return digest(list(train(workers, in_step(5, 0)))[-1].weights)

    before = run()
    monkeypatch.setattr(gradient_averager, "SMALLEST_BUCKET", buckets[0])
    monkeypatch.setattr(gradient_averager, "LARGEST_BUCKET", buckets[1])
    assert run() == before


@pytest.mark.parametrize("wire", ["bfloat16", "int8"])
def test_fewer_bits_can_be_repeated_bit_for_bit_with_the_same_buckets(wire: str) -> None:
    found = set()
    for _ in range(2):
        with in_process(recipe_of(adam_replica), shards_of(3), ring=True, wire=wire) as workers:
            found.add(digest(list(train(workers, in_step(6, 0)))[-1].weights))
    assert len(found) == 1


class Looks(TorchReplica):
    """Waits, when the gradient of its last layer is final, until some of it has been sent."""

    sent: Callable[[], int]
    saw: int

    def compute(self, batches: Iterator[Batch], on_final: Callable[[int], object]) -> torch.Tensor:
        def told(place: int) -> None:
            on_final(place)
            if place == self.layout.slots[2].offset:  # the last layer, which is a bucket of its own
                deadline = time.monotonic() + 5
                while not self.sent() and time.monotonic() < deadline:
                    time.sleep(0.001)
                type(self).saw += self.sent() > 0

        return super().compute(batches, told)


def test_the_end_of_a_gradient_is_sent_before_its_beginning_is_computed() -> None:
    Looks.saw = 0
    with in_process(recipe_of(lambda: Looks(small_net(), momentum_sgd)), shards_of(2), ring=True) as workers:
        wait_for(workers, 0, 1)

        def of(service: Service) -> Callable[[], int]:
            def sent() -> int:
                averager = service._participant._gradients  # type: ignore[union-attr]
                return 0 if averager is None else averager._allreduce.sent

            return sent

        for service in workers.services.values():
            service.worker.replica.sent = of(service)  # type: ignore[union-attr]
        list(train(workers, in_step(1, 0)))
    assert Looks.saw == 2


@WIRES
def test_gradients_go_past_the_driver_and_their_bytes_are_those_of_a_ring(wire: str) -> None:
    with in_process(recipe_of(adam_replica), shards_of(3), ring=True, wire=wire) as workers:
        done = list(train(workers, in_step(4, 0)))
        size = workers.initial.size
    assert done[2].bytes_sent + done[2].bytes_received < 3 * 1500
    both_ways = 2 * 2 * get_codec(wire).size(size)
    scales = 20 * 3 * 3 * 2 * 4 if wire == "int8" else 0
    assert both_ways - 50 <= done[2].result.bytes_between <= both_ways + scales


def checkpointed(
    workers: InProcessWorkers, settings: Settings, start: Checkpoint | None = None
) -> dict[int, Checkpoint]:
    taken = {}
    for done in train(workers, settings, **resumed(start, workers, Average())):
        if done.number % 5 == 0:
            taken[done.number] = Checkpoint(
                round=done.number,
                lr=done.lr,
                weights=done.weights.copy(),
                outer={},
                workers=workers.states(),
            )
    return taken


@WAYS
@REPLICAS
def test_a_resumed_run_is_the_one_that_went_on_bit_for_bit(make: Callable[[], object], ring: bool) -> None:
    with in_process(recipe_of(make), shards_of(3), ring=ring, **of_net(make)) as workers:
        went_on = checkpointed(workers, in_step(15, 0))
    with in_process(recipe_of(make), shards_of(3), ring=ring, **of_net(make)) as workers:
        again = checkpointed(workers, in_step(15, 0), went_on[5])
    assert digest(again[15].weights) == digest(went_on[15].weights)


@WAYS
def test_workers_with_momenta_of_their_own_begin_with_the_mean_of_them(ring: bool) -> None:
    """As where a run is resumed that averaged weights."""
    with LocalWorkers(recipe_of(adam_replica), shards_of(3)) as local:
        weights = list(train(local, Settings(rounds=3, tau=2)))[-1].weights.copy()
        states = local.states()
        local.restore(states)
        expected = fetch(local.train(weights, PLAN).mean).copy()
    with in_process(recipe_of(adam_replica), shards_of(3), ring=ring) as workers:
        workers.restore(states)
        result = workers.train(weights, PLAN)
        assert digest(fetch(result.mean)) == digest(expected)
        assert all_alike(workers)


@WAYS
def test_rounds_of_both_kinds_can_follow_each_other(ring: bool) -> None:
    plans = [RoundPlan(tau=2), PLAN, PLAN, RoundPlan(tau=2), RoundPlan(tau=1), PLAN]
    for wire in ("float32", "int8"):
        with (
            LocalWorkers(recipe_of(adam_replica), shards_of(2)) as local,
            in_process(recipe_of(adam_replica), shards_of(2), ring=ring, wire=wire) as workers,
        ):
            mine, theirs = workers.initial_weights(), local.initial_weights()
            for plan in plans:
                mine = fetch(workers.train(mine, plan).mean).copy()
                theirs = fetch(local.train(theirs, plan).mean).copy()
            assert np.isfinite(mine).all()
            if wire == "float32" and ring:
                assert np.abs(mine - theirs).max() < 0.05


@WAYS
def test_a_newcomer_has_the_others_weights_and_history(ring: bool) -> None:
    with in_process(recipe_of(adam_replica), shards_of(3)[:2], workers=2, ring=ring) as workers:
        for done in train(workers, in_step(9, 0)):
            if done.number == 3:
                workers.coordinator.membership._workers = 3
                workers.join(2, shards_of(3)[2], attempt=9)
                wait_for(workers, 9)
            if done.number > 3:
                assert done.members == (0, 1, 2)
        assert all_alike(workers)
        assert {member.iteration for member in members_of(workers)} == {9}


class Dies(TorchReplica):
    """In its ``at``-th step, when the end of its gradient has been sent."""

    at = 3

    def compute(self, batches: Iterator[Batch], on_final: Callable[[int], object]) -> torch.Tensor:
        def told(place: int) -> None:
            on_final(place)
            if self.iteration == self.at - 1 and place:
                time.sleep(0.1)
                raise RuntimeError("power failure")

        return super().compute(batches, told)


@WAYS
def test_one_that_dies_in_the_middle_of_a_step_costs_its_own_contribution_only(ring: bool) -> None:
    """The others average what they have: no step is computed again, and none is lost."""
    recipe = recipe_of(adam_replica)
    with LocalWorkers(recipe, shards_of(3)) as local:
        weights = list(train(local, in_step(2, 0)))[-1].weights
        del local.workers[2]
        expected = [fetch(local.train(weights, PLAN).mean).copy()]
        expected.append(fetch(local.train(expected[0], PLAN).mean).copy())
    with in_process(recipe, shards_of(3)[:2], workers=3, ring=ring) as workers:
        workers.join(2, shards_of(3)[2], 2, recipe_of(lambda: Dies(small_net(), adam)))
        done = []
        for round_ in train(workers, in_step(4, 0)):
            done.append(round_)
            if round_.number > 2:
                assert digest(round_.weights) == digest(expected[round_.number - 3])
        assert all_alike(workers)
    assert [r.members for r in done] == [(0, 1, 2)] * 2 + [(0, 1)] * 2


@pytest.mark.parametrize("at", [1, 3])
def test_one_that_drops_out_where_means_are_asked_for_is_left_out(at: int) -> None:
    kind = type("Drops", (DropsOut,), {"at": at})
    with in_process(recipe_of(adam_replica), shards_of(3)[:2], workers=3, ring=True) as workers:
        join_as(kind, workers, 2, shards_of(3)[2])
        done = list(train(workers, in_step(5, 0)))
        assert all_alike(workers)
    assert [r.members for r in done] == [(0, 1, 2)] * (at - 1) + [(0, 1)] * (6 - at)
    assert all(np.isfinite(r.loss) for r in done)


class Hangs(TorchReplica):
    """In its third step, until it is ``freed``."""

    freed = threading.Event()

    def compute(self, batches: Iterator[Batch], on_final: Callable[[int], object]) -> torch.Tensor:
        def told(place: int) -> None:
            on_final(place)
            if self.iteration == 2 and place:
                self.freed.wait(60)

        return super().compute(batches, told)


@WAYS
def test_one_that_hangs_in_the_middle_of_a_step_is_left_out(ring: bool) -> None:
    Hangs.freed = threading.Event()
    timeouts = replace(QUICK, hang=0.5, send=3, round=30)
    try:
        with in_process(
            recipe_of(adam_replica), shards_of(3)[:2], workers=3, ring=ring, timeouts=timeouts
        ) as workers:
            workers.join(2, shards_of(3)[2], 2, recipe_of(lambda: Hangs(small_net(), adam)))
            began = time.monotonic()
            done = []
            for round_ in train(workers, in_step(5, 0)):
                done.append(round_)
                if round_.number == 3:
                    assert time.monotonic() - began < 3  # nobody waited for what it would send
            assert all_alike(workers)
            Hangs.freed.set()
            wait_until(lambda: not _exchanging())
    finally:
        Hangs.freed.set()
    assert [r.members for r in done][:3] == [(0, 1, 2)] * 2 + [(0, 1)]
    assert "hangs" in done[2].result.lost[0]


def _exchanging() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "sparknet-gradient"]


class Slow(TorchReplica):
    def compute(self, batches: Iterator[Batch], on_final: Callable[[int], object]) -> torch.Tensor:
        time.sleep(0.3 if self.iteration == 2 else 0)
        return super().compute(batches, on_final)


@WAYS
def test_one_that_misses_a_quorum_goes_on_with_what_the_others_have(ring: bool) -> None:
    """Backup workers, as in the paper: a step is what those made of it who were in time."""
    hasty = replace(QUICK, quorum=0.6, grace=0.05, stop=5)
    with in_process(recipe_of(adam_replica), [], workers=3, timeouts=hasty, ring=ring) as workers:
        for k in range(3):
            kind = Slow if k == 2 else TorchReplica
            make = lambda kind=kind: kind(small_net(), adam)  # noqa: E731
            workers.join(k, shards_of(3)[k], k, recipe_of(make))
        done = []
        for round_ in train(workers, in_step(12, 0)):
            done.append(round_)
            time.sleep(0.05)  # so that it is back
        assert all_alike(workers)
    assert done[2].members == (0, 1)
    assert "later than the others" in done[2].result.lost[0]
    assert done[-1].members == (0, 1, 2)


class Spoils(TorchReplica):
    """Its third gradient is no number."""

    def compute(self, batches: Iterator[Batch], on_final: Callable[[int], object]) -> torch.Tensor:
        def spoiled() -> Iterator[Batch]:
            for batch in batches:
                bad = {**batch, "data": batch["data"] * torch.nan} if self.iteration == 2 else batch
                yield bad

        return super().compute(spoiled(), on_final)


@WAYS
def test_a_gradient_that_is_no_number_is_left_out_and_its_worker_stays(ring: bool) -> None:
    with in_process(recipe_of(normed), shards_of(3)[:2], workers=3, ring=ring, **of_net(normed)) as workers:
        module = normed().module
        workers.join(2, shards_of(3)[2], 2, recipe_of(lambda: Spoils(module, momentum_sgd)))
        done = []
        for round_ in train(workers, in_step(6, 0)):
            done.append(round_)
            assert np.isfinite(round_.weights).all()
        assert all_alike(workers)
    assert [r.members for r in done] == [(0, 1, 2)] * 2 + [(0, 1)] + [(0, 1, 2)] * 3
    assert "not numbers" in done[2].result.lost[0]


@WAYS
def test_if_all_are_gone_newcomers_go_on_from_the_driver_s_copy(ring: bool) -> None:
    with in_process(recipe_of(adam_replica), shards_of(2), ring=ring) as workers:
        rounds = train(workers, in_step(50, 0))
        fetched = next(rounds).weights
        next(rounds)
        for number in range(2):
            workers.join(number, shards_of(2)[number], attempt=7 + number)
        wait_for(workers, 7, 8)
        third = next(rounds)
        third_weights = third.weights
        assert all_alike(workers)
    assert "going on from that of 1 rounds before" in " ".join(third.result.lost)
    with LocalWorkers(recipe_of(adam_replica), shards_of(2)) as local:
        local.restore({k: WorkerState(iteration=2, position=20) for k in range(2)})
        expected = fetch(local.train(fetched, PLAN).mean)
    assert digest(third_weights) == digest(expected)


@WAYS
def test_a_lost_connection_costs_the_steps_meanwhile_and_it_is_the_same_replica_that_comes_back(
    ring: bool,
) -> None:
    with in_process(recipe_of(adam_replica), shards_of(3), ring=ring) as workers:
        done = []
        for round_ in train(workers, in_step(40, 0)):
            done.append(round_)
            time.sleep(0.02)
            if round_.number == 3:
                members_of(workers)[1].channel.close()
        assert all_alike(workers)
    assert done[-1].members == (0, 1, 2)
    assert {r.members for r in done} >= {(0, 2), (0, 1, 2)}


@WAYS
def test_a_worker_that_has_no_gradients_to_give_ends_training_with_a_sentence(ring: bool) -> None:
    with (
        in_process(recipe_of(paused), shards_of(2), ring=ring) as workers,
        pytest.raises(UsageError, match="has a step in one piece"),
    ):
        list(train(workers, in_step(3, 0)))


def test_a_run_that_is_left_in_the_middle_can_be_tested_and_leaves_no_thread() -> None:
    expected = reference(adam_replica, 2)
    with in_process(recipe_of(adam_replica), shards_of(2), TEST, ring=True) as workers:
        for done in train(workers, in_step(9, 0)):
            if done.number == 4:
                break
        assert workers.test(done.weights) == expected[3].scores
    assert not _exchanging()


def test_averages_of_weights_after_every_step_are_what_they_were() -> None:
    with LocalWorkers(recipe_of(slowly), shards_of(2)) as local:
        expected = list(train(local, Settings(rounds=4, tau=1)))
    with in_process(recipe_of(slowly), shards_of(2), ring=True) as workers:
        done = list(train(workers, Settings(rounds=4, tau=1)))
    assert digest(done[-1].weights) == digest(expected[-1].weights)
    assert caffe(PLAIN)().batches_per_step == 1
