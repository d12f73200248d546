"""Workers that compute the next round while averages travel: as in one process, and what faults cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

from sparknet.checkpoint import Checkpoint, resumed
from sparknet.data.dataset import Batch
from sparknet.distributed.timeouts import Timeouts
from sparknet.distributed.worker_service import Service
from sparknet.local import LocalWorkers
from sparknet.outer import Average, Outer, SlowMo
from sparknet.replica import TorchReplica
from sparknet.training import Momentum, Round, Settings, train
from sparknet.weights import Vector
from sparknet.worker import Recipe
from tests.sparknet.distributed.fixtures import (
    TEST,
    WAYS,
    WIRES,
    DropsOut,
    Explodes,
    exploding,
    join_as,
    members_of,
    paused,
    shards_of,
    slowly,
    wait_for,
)
from tests.sparknet.distributed.in_process import QUICK, InProcessWorkers, in_process
from tests.sparknet.small import digest, momentum_sgd, small_net, small_recipe


def overlapping(
    rounds: int, drain_every: int = 0, test_every: int = 0, momentum: Momentum = "keep"
) -> Settings:
    return Settings(
        rounds=rounds,
        tau=3,
        overlap=True,
        drain_every=drain_every,
        test_every=test_every,
        momentum=momentum,
    )


def reference(workers: int, settings: Settings, outer: Outer, recipe: Recipe | None = None) -> list[Round]:
    with LocalWorkers(recipe or small_recipe(test_batch_size=8), shards_of(workers), TEST) as local:
        return list(train(local, settings, outer))


@WAYS
@pytest.mark.parametrize(("outer", "momentum"), [(Average, "keep"), (SlowMo, "reset")])
def test_overlapped_rounds_are_those_of_one_process_bit_for_bit(
    ring: bool, outer: type[Average], momentum: Momentum
) -> None:
    settings = overlapping(11, drain_every=4, test_every=6, momentum=momentum)
    expected = reference(3, settings, outer())
    with in_process(small_recipe(test_batch_size=8), shards_of(3), TEST, ring=ring) as workers:
        done = list(train(workers, settings, outer()))
    assert digest(done[-1].weights) == digest(expected[-1].weights)
    assert [r.scores for r in done] == [r.scores for r in expected]
    assert [r.loss for r in done] == [r.loss for r in expected]
    assert [r.members for r in done] == [(0, 1, 2)] * 11


@WAYS
def test_one_worker_alone_is_serial_training_bit_for_bit(ring: bool) -> None:
    expected = reference(1, Settings(rounds=8, tau=3), Average())
    with in_process(small_recipe(), shards_of(1), ring=ring) as workers:
        done = list(train(workers, overlapping(8)))
    assert digest(done[-1].weights) == digest(expected[-1].weights)


class Watched(TorchReplica):
    """Notes when it takes steps."""

    began: list[float]

    def step(self, batches: Iterator[Batch]) -> object:  # type: ignore[override]
        type(self).began.append(time.monotonic())
        time.sleep(0.02)
        return super().step(batches)


class Slow(Service):
    """What it sends and receives in a round takes 0.2 s."""

    def _train(self, *arguments: object) -> None:
        super()._train(*arguments)  # type: ignore[arg-type]
        time.sleep(0.2)

    def _train_ahead(self, *arguments: object) -> None:
        super()._train_ahead(*arguments)  # type: ignore[arg-type]
        time.sleep(0.2)


def watched() -> Watched:
    return Watched(small_net(), momentum_sgd)


def test_workers_train_while_averages_travel() -> None:
    """A round of 10 steps takes 0.2 s, and so does what it sends: with overlap they pass at the same time."""
    seconds = {}
    for overlap in (False, True):
        Watched.began = []
        settings = Settings(rounds=6, tau=10, overlap=True, drain_every=0 if overlap else 1)
        with in_process(small_recipe(replica=watched), shards_of(1), kind=Slow) as workers:
            list(train(workers, settings))
        seconds[overlap] = Watched.began[-1] - Watched.began[10]  # from the second round on
    assert seconds[True] < 0.8 * seconds[False]


@WAYS
@WIRES
def test_fewer_bits_overlap_as_well(ring: bool, wire: str) -> None:
    settings = overlapping(40, test_every=40)
    expected = reference(3, settings, Average())[-1]
    with in_process(small_recipe(test_batch_size=8), shards_of(3), TEST, wire=wire, ring=ring) as workers:
        done = list(train(workers, settings))
    assert done[-1].accuracy == pytest.approx(expected.accuracy, abs=0.05)
    whole = 3 * workers.initial.nbytes
    assert wire == "float32" or done[5].bytes_sent < 0.6 * whole + 3 * 400


def checkpointed(
    workers: InProcessWorkers, settings: Settings, outer: Outer, start: Checkpoint | None = None
) -> dict[int, Checkpoint]:
    """What could be saved after each round at which the workers waited for each other."""
    taken = {}
    for done in train(workers, settings, outer, **resumed(start, workers, outer)):
        if done.drained:
            state = {name: vector.copy() for name, vector in outer.state.items()}
            weights: Vector = done.weights.copy()
            taken[done.number] = Checkpoint(
                round=done.number, lr=done.lr, weights=weights, outer=state, workers=workers.states()
            )
    return taken


@WAYS
@WIRES
@pytest.mark.parametrize("outer", [Average, SlowMo])
def test_a_resumed_run_is_the_one_that_went_on_bit_for_bit(
    ring: bool, wire: str, outer: type[Average]
) -> None:
    settings = overlapping(13, drain_every=5)
    with in_process(small_recipe(), shards_of(3), wire=wire, ring=ring) as workers:
        went_on = checkpointed(workers, settings, outer())
    assert list(went_on) == [5, 10, 13]
    with in_process(small_recipe(), shards_of(3), wire=wire, ring=ring) as workers:
        again = checkpointed(workers, settings, outer(), went_on[5])
    assert {number: digest(taken.weights) for number, taken in again.items()} == {
        number: digest(taken.weights) for number, taken in went_on.items() if number > 5
    }


@WAYS
def test_a_worker_that_is_lost_costs_its_own_contribution_only(ring: bool) -> None:
    """It is gone while its next round is under way: the average that it is in stays, the others go on."""
    kinds = [paused, paused, slowly]
    with in_process(small_recipe(), [], workers=3, ring=ring) as workers:
        for k in range(3):
            workers.join(k, shards_of(3)[k], k, small_recipe(replica=kinds[k]))
        done = []
        for round_ in train(workers, overlapping(8)):
            done.append(round_)
            if round_.number == 3:
                workers.coordinator.membership.all[2].channel.hang_up()
                workers.services[2].assignment = None  # type: ignore[assignment]
    assert [r.members for r in done][:3] == [(0, 1, 2)] * 3
    assert (0, 1) in [r.members for r in done]
    assert all(set(r.members) >= {0, 1} for r in done)


@WAYS
def test_a_newcomer_waits_for_a_round_that_all_begin_together(ring: bool) -> None:
    with in_process(small_recipe(), shards_of(3)[:2], workers=2, ring=ring) as workers:
        done = []
        for round_ in train(workers, overlapping(9)):
            done.append(round_)
            if round_.number == 3:
                workers.coordinator.membership._workers = 3
                workers.join(2, shards_of(3)[2], attempt=9)
                wait_for(workers, 9)
    assert [r.members for r in done] == [(0, 1)] * 4 + [(0, 1, 2)] * 5


def test_one_that_drops_out_of_the_averaging_is_left_out_of_it() -> None:
    with in_process(small_recipe(), shards_of(3)[:2], workers=3, ring=True) as workers:
        join_as(DropsOut, workers, 2, shards_of(3)[2])
        done = list(train(workers, overlapping(5)))
    assert [r.members for r in done] == [(0, 1, 2)] + [(0, 1)] * 4
    assert "power failure" in done[1].result.lost[0] or "hung up" in done[1].result.lost[0]


@WAYS
def test_a_replica_that_exploded_is_left_out_and_comes_back(ring: bool) -> None:
    """Its momentum is spoiled too, and more so by the round it had begun: it starts from zero."""
    made = iter([TorchReplica, TorchReplica, Explodes])
    recipe = small_recipe(replica=lambda: next(made)(small_net(), momentum_sgd))
    expected = reference(3, overlapping(6), Average(), recipe)
    with in_process(small_recipe(), shards_of(3)[:2], workers=3, ring=ring) as workers:
        workers.join(2, shards_of(3)[2], 2, small_recipe(replica=exploding))
        done = list(train(workers, overlapping(6)))
    assert [r.members for r in done] == [r.members for r in expected]
    assert [r.members for r in done] == [(0, 1), (0, 1), *[(0, 1, 2)] * 4]
    assert np.abs(done[-1].weights - expected[-1].weights).max() < 0.1


def test_a_worker_that_is_behind_is_not_taken_for_one_that_hangs() -> None:
    """The others answer at once, having worked long before they were asked: that counts.

    All begin the first round together: there nobody takes ten times as long as another.
    """
    quickly = partial(paused, 0.004)
    patient = Timeouts(join=5, round=5, ping=0.2, send=5, stop=2, hang=0.05)
    with in_process(small_recipe(), [], workers=3, timeouts=patient) as workers:
        for k, replica in enumerate([quickly, quickly, slowly]):
            workers.join(k, shards_of(3)[k], k, small_recipe(replica=replica))
        done = list(train(workers, Settings(rounds=6, tau=6, overlap=True)))
    assert [r.members for r in done] == [(0, 1, 2)] * 6


def test_one_that_misses_a_quorum_is_back_when_all_begin_together() -> None:
    hasty = Timeouts(join=5, round=5, ping=0.2, send=5, stop=5, quorum=0.6, grace=0.05)
    with in_process(small_recipe(), [], workers=3, timeouts=hasty) as workers:
        for k in range(3):
            workers.join(k, shards_of(3)[k], k, small_recipe(replica=slowly if k == 2 else paused))
        done = list(train(workers, Settings(rounds=30, tau=10, overlap=True)))
    assert all(set(r.members) >= {0, 1} for r in done)
    assert any("later than the others" in lost for r in done for lost in r.result.lost)
    assert all(not member.is_ahead for member in members_of(workers))


def test_a_run_that_is_left_in_the_middle_can_be_tested_and_leaves_no_thread() -> None:
    expected = reference(2, Settings(rounds=3, tau=3), Average())
    with in_process(small_recipe(test_batch_size=8), shards_of(2), TEST, ring=True) as workers:
        for done in train(workers, overlapping(9)):
            if done.number == 3:
                break
        assert workers.test(done.weights).records == len(TEST)
        assert expected[-1].members == done.members


def test_without_overlap_frames_are_as_they_were() -> None:
    with in_process(small_recipe(), shards_of(2)) as workers:
        list(train(workers, Settings(rounds=2, tau=2)))
        assert all(service._run_ahead is None for service in workers.services.values())
    assert QUICK.quorum == 1
