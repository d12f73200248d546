"""Momentum and places travel: kept, averaged or reset, saved and restored, inherited by a replacement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from sparknet.data.dataset import Batch
from sparknet.replica import TorchReplica
from sparknet.training import Momentum, Settings, WorkerState, train
from tests.sparknet.distributed.fixtures import (
    reference,
    shards_of,
    wait_for,
)
from tests.sparknet.distributed.in_process import in_process
from tests.sparknet.small import digest, momentum_sgd, small_net, small_recipe


@pytest.mark.parametrize("momentum", ["average", "reset"])
def test_every_treatment_of_momentum_is_that_of_one_process_bit_for_bit(momentum: Momentum) -> None:
    settings = Settings(rounds=5, tau=4, momentum=momentum)
    expected = reference(3, settings)
    with in_process(small_recipe(), shards_of(3)) as workers:
        done = list(train(workers, settings))
    assert digest(done[-1].weights) == digest(expected[-1].weights)
    kept = reference(3, Settings(rounds=5, tau=4))
    assert digest(done[-1].weights) != digest(kept[-1].weights)


@pytest.mark.parametrize("momentum", ["keep", "average"])
def test_states_travel_and_come_back(momentum: Momentum) -> None:
    """Half by one coordinator, half by another that was given the first one's states: as by one."""
    settings = Settings(rounds=6, tau=4, momentum=momentum)
    expected = reference(3, settings)
    with in_process(small_recipe(), shards_of(3)) as workers:
        done = list(train(workers, replace(settings, rounds=3)))
        states = workers.states()
    with in_process(small_recipe(), shards_of(3)) as workers:
        workers.restore(states)
        rest = list(train(workers, settings, weights=done[-1].weights, done=3))
    assert [r.number for r in rest] == [4, 5, 6]
    assert digest(rest[-1].weights) == digest(expected[-1].weights)


def test_a_replacement_that_has_not_trained_keeps_what_its_shard_had_come_to() -> None:
    """Neither a checkpoint nor a worker that yields at once may put the shard back to its beginning."""
    with in_process(small_recipe(), shards_of(3)) as workers:
        rounds = train(workers, Settings(rounds=100, tau=5))
        next(rounds)
        before = workers.states()
        workers.join(1, shards_of(3)[1], attempt=7)
        wait_for(workers, 7)
        after = workers.states()
        assert (after[1].iteration, after[1].position) == (before[1].iteration, before[1].position) == (5, 50)
        mean = (before[0].history + before[2].history) / 2  # type: ignore[operator]
        assert np.allclose(after[1].history, mean, atol=1e-7)  # type: ignore[arg-type]
        workers.coordinator._rebalancer._yield([1])
        left = workers.states()[1]
        assert (left.iteration, left.position) == (5, 50)


def test_one_that_others_went_on_without_catches_up_with_its_shard() -> None:
    with in_process(small_recipe(), shards_of(2)) as workers:
        rounds = train(workers, Settings(rounds=100, tau=5))
        next(rounds)
        workers.coordinator._states[1] = WorkerState(
            iteration=40, position=400
        )  # by whoever had it meanwhile
        report = next(rounds).reports[1]
        assert (report.iteration, report.position) == (45, 450)


def test_a_replacement_starts_from_the_mean_momentum_of_the_others() -> None:
    with in_process(small_recipe(), shards_of(3)) as workers:
        rounds = train(workers, Settings(rounds=100, tau=5))
        next(rounds)
        before = workers.states()
        newcomer = workers.join(1, shards_of(3)[1], attempt=7, recipe=small_recipe(replica=watched))
        wait_for(workers, 7)
        next(rounds)
    replica = newcomer.worker.replica  # type: ignore[union-attr]
    assert isinstance(replica, Watched)
    assert replica.first is not None
    mean = (before[0].history + before[2].history) / 2  # type: ignore[operator]
    assert np.allclose(replica.first, mean, atol=1e-7)
    assert replica.begun == 5


class Watched(TorchReplica):
    """Remembers the history and the step it began with."""

    first: np.ndarray | None = None
    begun = 0

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        if self.first is None:
            self.first, self.begun = self.history().numpy(), self.iteration
        return super().step(batches)


def watched() -> TorchReplica:
    return Watched(small_net(), momentum_sgd)
