"""What comes after a round that has not waited for it counts in a later one, and what is too old does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

from sparknet import clock
from sparknet.data.dataset import Batch
from sparknet.distributed import late_work
from sparknet.distributed.stragglers import StragglerPolicy
from sparknet.distributed.timeouts import Timeouts
from sparknet.replica import TorchReplica
from sparknet.training import Round, RoundPlan, Settings, train
from sparknet.weights import Vector
from tests.sparknet.distributed.fixtures import shards_of, wait_for, wait_until
from tests.sparknet.distributed.in_process import QUICK, InProcessWorkers, in_process
from tests.sparknet.small import momentum_sgd, small_net, small_recipe

# A grace within which those that are not held come, however busy the machine is.
HASTY = replace(QUICK, round=60, quorum=0.6, grace=1.0)
TAU = 3


class Held(TorchReplica):
    """Begins no step while it is not ``free``."""

    free = threading.Event()

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        assert self.free.wait(60)
        return super().step(batches)


def held() -> TorchReplica:
    return Held(small_net(), momentum_sgd)


@contextmanager
def one_late(wire: str = "float32", ring: bool = False) -> Iterator[tuple[InProcessWorkers, Iterator[Round]]]:
    """Three workers after a first round; the last one is held until ``Held.free`` is set again."""
    Held.free = threading.Event()
    Held.free.set()
    recipe = small_recipe()
    with in_process(recipe, shards_of(3)[:2], workers=3, timeouts=HASTY, wire=wire, ring=ring) as workers:
        workers.join(2, shards_of(3)[2], 2, small_recipe(replica=held))
        wait_for(workers, 0, 1, 2)
        rounds = train(workers, Settings(rounds=100, tau=TAU))
        try:
            assert next(rounds).members == (0, 1, 2)
            Held.free.clear()
            yield workers, rounds
        finally:
            Held.free.set()


def comes(workers: InProcessWorkers) -> None:
    """Let the late one end what it was asked, and the driver hear of it."""
    Held.free.set()
    membership = workers.coordinator.membership
    wait_until(lambda: bool(workers.coordinator.members) and all(m.is_idle for m in membership.all))


def mean(vectors: Sequence[Vector]) -> Vector:
    found: Vector = np.stack(vectors).mean(axis=0, dtype=np.float32)
    return found


@pytest.mark.parametrize("wire", ["float32", "bfloat16"])
def test_what_comes_late_is_merged_as_if_it_had_begun_with_the_others(wire: str) -> None:
    plan = RoundPlan(tau=TAU)
    alone = [small_recipe().worker(number, shard) for number, shard in enumerate(shards_of(3))]

    def trained(number: int, start: Vector) -> Vector:
        alone[number].train(start.copy(), plan)
        return alone[number].bring().copy()

    with one_late(wire) as (workers, rounds):
        first = mean([trained(k, workers.initial_weights()) for k in range(3)])
        done = next(rounds)
        assert done.members == (0, 1)
        assert not done.result.lost
        assert not done.result.late
        second = mean([trained(k, first) for k in (0, 1)])
        late = second + (trained(2, first) - first)
        comes(workers)
        done = next(rounds)
    expected = mean([*(trained(k, second) for k in range(3)), late])
    assert done.members == (0, 1, 2)
    assert [(report.member, report.steps) for report in done.result.late] == [(2, TAU)]
    assert done.steps == 4 * TAU
    moved = float(np.abs(expected - second).max())
    assert np.abs(done.weights - expected).max() < moved * (1e-4 if wire == "float32" else 0.05)


def test_a_round_does_not_wait_for_one_that_is_at_work_for_an_earlier_one() -> None:
    with one_late() as (_, rounds):
        next(rounds)
        started = time.monotonic()
        assert [next(rounds).members for _ in range(3)] == 3 * [(0, 1)]
        assert time.monotonic() - started < 10


def test_what_is_too_old_does_not_count_and_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_work, "_ROUNDS", 2)
    with one_late() as (workers, rounds):
        for _ in range(4):
            assert next(rounds).members == (0, 1)
        comes(workers)
        done = next(rounds)
    assert done.members == (0, 1, 2)
    assert done.result.late == ()
    assert "rounds too late" in done.result.lost[0]


def test_what_was_begun_before_the_workers_went_back_does_not_count() -> None:
    with one_late() as (workers, rounds):
        next(rounds)
        workers.restore({})
        comes(workers)
        done = next(rounds)
    assert done.members == (0, 1, 2)
    assert done.result.late == ()


def test_among_the_workers_what_is_late_is_lost() -> None:
    with one_late(ring=True) as (workers, rounds):
        done = next(rounds)
        assert "later than the others" in done.result.lost[0]
        comes(workers)
        assert next(rounds).result.late == ()


def test_by_default_the_others_have_a_quarter_of_what_the_quorum_took() -> None:
    now = 100.0
    with clock.of(lambda: now):
        policy = StragglerPolicy(3, 0.6, Timeouts(quorum=0.6))
        now = 104.0
        policy.answered()
        assert policy.until > 160  # one of three is no quorum
        now = 108.0
        policy.answered()
        assert policy.until == 110.0
        assert "2 s later than the others" in policy.reason
