"""Workers that average among themselves: as through the driver, also when one drops out in the middle."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sparknet.data import Examples, contiguous
from sparknet.errors import TrainingError
from sparknet.local import LocalWorkers
from sparknet.outer import Average, Outer, SlowMo
from sparknet.replica import Batch, TorchReplica
from sparknet.spark.exchange import Channel, Frame, Kind
from sparknet.spark.task import Service
from sparknet.training import Momentum, Round, Settings, train
from sparknet.worker import Recipe, Worker
from tests.sparknet.small import digest, momentum_sgd, pictures, small_net, small_recipe
from tests.sparknet.spark.crew import QUICK, Crew, crew
from tests.sparknet.spark.test_coordinator import wait_for, wait_until

EXAMPLES, TEST = pictures(), pictures(70, seed=1)


def shards_of(workers: int) -> list[Examples]:
    return [EXAMPLES[part] for part in contiguous(len(EXAMPLES), workers)]


def in_this_process(recipe: Recipe, workers: int, settings: Settings, outer: Outer) -> list[Round]:
    with LocalWorkers(recipe, shards_of(workers), TEST) as local:
        return list(train(local, settings, outer))


@pytest.mark.parametrize("outer", [Average, SlowMo])
@pytest.mark.parametrize("momentum", ["keep", "average"])
def test_a_ring_gives_what_the_star_gives(outer: type[Average], momentum: Momentum) -> None:
    settings = Settings(rounds=8, tau=5, test_every=4, momentum=momentum)
    expected = in_this_process(small_recipe(), 3, settings, outer())
    with crew(small_recipe(), shards_of(3), TEST, ring=True) as workers:
        done = list(train(workers, settings, outer()))
    scale = np.abs(expected[-1].weights).max()
    assert np.abs(done[-1].weights - expected[-1].weights).max() < 1e-6 * scale * 8
    assert [r.members for r in done] == [(0, 1, 2)] * 8
    assert done[-1].scores is not None
    assert done[-1].scores.records == len(TEST)


def test_one_worker_alone_is_the_serial_loop_bit_for_bit() -> None:
    expected = in_this_process(small_recipe(), 1, Settings(rounds=5), Average())
    with crew(small_recipe(), shards_of(1), ring=True) as workers:
        done = list(train(workers, Settings(rounds=5)))
    assert digest(done[-1].weights) == digest(expected[-1].weights)


def test_weights_go_past_the_driver() -> None:
    with crew(small_recipe(test_batch_size=8), shards_of(3), TEST, ring=True) as workers:
        done = list(train(workers, Settings(rounds=3, tau=2, test_every=1)))
    size = workers.initial.nbytes
    assert done[0].bytes_sent > 3 * size  # the first weights
    assert done[2].bytes_sent < 3 * 400
    assert size < done[2].bytes_received < size + 3 * 500


def batch_normed() -> TorchReplica:
    return TorchReplica(nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 3)), momentum_sgd)


def test_running_statistics_are_merged_as_in_the_star() -> None:
    settings, recipe = Settings(rounds=4, tau=3), small_recipe(replica=batch_normed)
    expected = in_this_process(recipe, 3, settings, Average())[-1].weights
    with crew(recipe, shards_of(3), ring=True) as workers:
        weights = list(train(workers, settings))[-1].weights
    assert np.allclose(weights, expected, rtol=1e-5, atol=1e-6)


class DropsOut(Service):
    """It fails, and its place in the ring is empty, when it is asked to average for the ``at``-th time."""

    at = 2

    def _reduce(self, channel: Channel, worker: Worker, frame: Frame) -> None:
        self.at -= 1
        if not self.at:
            raise RuntimeError("power failure")
        super()._reduce(channel, worker, frame)


def join_as(kind: type[Service], workers: Crew, partition: int, shard: Examples) -> None:
    service = workers.service(partition, shard, attempt=partition)
    workers.start(kind(service.assignment, service.who, service._drain))


def test_the_others_average_again_without_one_that_dropped_out() -> None:
    deadlines = replace(QUICK, send=1.0)
    with LocalWorkers(small_recipe(), shards_of(3)) as local:
        first = next(train(local, Settings(rounds=1, tau=5)))
        local.train(first.weights, Settings(rounds=1, tau=5).order(1, None))
        left = (local.workers[0].vector.astype(np.float64) + local.workers[1].vector) / 2
    with crew(small_recipe(), shards_of(3)[:2], workers=3, ring=True, deadlines=deadlines) as workers:
        join_as(DropsOut, workers, 2, shards_of(3)[2])
        rounds = train(workers, Settings(rounds=50, tau=5))
        assert next(rounds).members == (0, 1, 2)
        second = next(rounds)
        assert second.members == (0, 1)
        assert "power failure" in second.gathered.lost[0]
        assert np.allclose(second.weights, left, rtol=1e-5, atol=1e-7)
        workers.join(2, shards_of(3)[2], attempt=9)
        wait_for(workers, 9)
        assert [next(rounds).members for _ in range(3)] == [(0, 1, 2)] * 3
        wait_until(lambda: 2 in workers.endings)


class Explodes(TorchReplica):
    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        loss = super().step(batches)
        if self.iteration == 3:
            self.weights.fill_(torch.inf)
        return loss


def test_a_replica_that_exploded_takes_no_part() -> None:
    with crew(small_recipe(), shards_of(3)[:2], workers=3, ring=True) as workers:
        exploding = small_recipe(replica=lambda: Explodes(small_net(), momentum_sgd))
        workers.join(2, shards_of(3)[2], 2, exploding)
        done = list(train(workers, Settings(rounds=4, tau=2)))
    assert [r.members for r in done] == [(0, 1, 2), (0, 1), (0, 1, 2), (0, 1, 2)]
    assert "not numbers" in done[1].gathered.lost[0]
    assert np.isfinite(done[-1].weights).all()


class Unreachable(Service):
    def _reduce(self, channel: Channel, worker: Worker, frame: Frame) -> None:
        channel.send(Kind.REDUCED, {"done": False, "reason": "no route to host"}, seconds=5)


def test_workers_that_cannot_reach_each_other_say_so() -> None:
    with crew(small_recipe(), [], workers=2, ring=True) as workers:
        for number in range(2):
            join_as(Unreachable, workers, number, shards_of(2)[number])
        with pytest.raises(TrainingError, match=r"could not average.*no route to host.*exchange=\"star\""):
            next(train(workers, Settings(rounds=1)))


def test_a_ring_leaves_no_thread_of_ours() -> None:
    with crew(small_recipe(), shards_of(2), ring=True) as workers:
        next(train(workers, Settings(rounds=1)))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("sparknet")]
