"""Workers that average on their GPUs: as through the driver, weights staying where they are, and through host
memory where NCCL cannot be. The GPUs are fakes (``fake_gpu.py``) but in the tests marked ``gpu``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sparknet.codecs import get_codec
from sparknet.distributed.averaging.device_allreduce import DeviceAllReduce
from sparknet.distributed.averaging.device_averager import DeviceAverager
from sparknet.distributed.averaging.rendezvous import MakeGroup, Rendezvous, averaging_gpu, choose_backend
from sparknet.errors import WorkersLost
from sparknet.local import LocalWorkers
from sparknet.outer import Average, Outer, SlowMo
from sparknet.replica import TorchReplica
from sparknet.training import Momentum, Report, Round, RoundPlan, Settings, train
from sparknet.weights import Vector, mean_of
from sparknet.worker import Recipe
from tests.sparknet.distributed.fake_gpu import Apart, FakeGpu, Mixed, OnGpus, Sharing, apart
from tests.sparknet.distributed.fixtures import (
    EXAMPLES,
    TEST,
    DropsOut,
    exploding,
    join_as,
    shards_of,
    wait_for,
)
from tests.sparknet.distributed.in_process import QUICK, InProcessWorkers, in_process
from tests.sparknet.small import digest, momentum_sgd, small_net, small_recipe

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here"),
]


def in_this_process(recipe: Recipe, workers: int, settings: Settings, outer: Outer | None = None) -> Round:
    with LocalWorkers(recipe, shards_of(workers), TEST) as local:
        return list(train(local, settings, outer or Average()))[-1]


def backends(workers: InProcessWorkers) -> list[list[str]]:
    return [service.backends for service in workers.services.values() if isinstance(service, OnGpus)]


def copies(workers: InProcessWorkers) -> list[tuple[int, int]]:
    """How often each worker's weights went from host memory to the net, and back."""
    made = [service.worker for service in workers.services.values()]
    return [(worker.loads, worker.brings) for worker in made if isinstance(worker, Apart)]


@pytest.mark.parametrize("outer", [Average, SlowMo])
@pytest.mark.parametrize("momentum", ["keep", "average"])
def test_a_ring_of_gpus_gives_what_the_star_gives_bit_for_bit(
    outer: type[Average], momentum: Momentum
) -> None:
    settings = Settings(rounds=8, tau=5, test_every=4, momentum=momentum)
    expected = in_this_process(small_recipe(), 3, settings, outer())
    with in_process(apart(), shards_of(3), TEST, ring=True, kind=OnGpus) as workers:
        done = list(train(workers, settings, outer()))
        assert backends(workers) == [["nccl"] * 8] * 3
    assert digest(done[-1].weights) == digest(expected.weights)
    assert done[-1].scores is not None
    assert expected.scores is not None
    assert done[-1].scores.sums == pytest.approx(expected.scores.sums)


def test_weights_stay_on_their_gpus_from_round_to_round() -> None:
    with in_process(apart(), shards_of(2), TEST, ring=True, kind=OnGpus) as workers:
        done = list(train(workers, Settings(rounds=6, tau=2, test_every=2)))
        assert copies(workers) == [(1, 0)] * 2  # the first weights are the driver's
    size = 4 * workers.initial.size
    assert 2 * size <= done[3].result.bytes_between <= 2 * size + 2 * 2 * 4


def test_one_worker_alone_is_the_serial_loop_bit_for_bit() -> None:
    expected = in_this_process(small_recipe(), 1, Settings(rounds=5))
    with in_process(apart(), shards_of(1), ring=True, kind=OnGpus) as workers:
        done = list(train(workers, Settings(rounds=5)))
        assert backends(workers) == [["nccl"] * 5]
    assert digest(done[-1].weights) == digest(expected.weights)


class Slow(Apart):
    """Worker k takes k steps less."""

    def train(self, weights: Vector | None, plan: RoundPlan) -> Report:
        return super().train(weights, replace(plan, tau=plan.tau - self.number))


def test_members_that_stopped_early_count_by_their_steps() -> None:
    settings, recipe = Settings(rounds=3, tau=4), apart(worker=Slow)
    expected = in_this_process(recipe, 3, settings)
    assert [report.steps for report in expected.result.reports] == [4, 3, 2]
    with in_process(recipe, shards_of(3), ring=True, kind=OnGpus) as workers:
        done = list(train(workers, settings))
        assert backends(workers) == [["nccl"] * 3] * 3
    assert digest(done[-1].weights) == digest(expected.weights)


@pytest.mark.parametrize("kind", [Sharing, Mixed])
@pytest.mark.parametrize("momentum", ["keep", "average"])
def test_workers_that_share_a_gpu_or_have_none_average_in_host_memory(
    kind: type[OnGpus], momentum: Momentum
) -> None:
    settings = Settings(rounds=4, tau=3, momentum=momentum)
    expected = in_this_process(small_recipe(), 3, settings)
    with in_process(apart(), shards_of(3), ring=True, kind=kind) as workers:
        done = list(train(workers, settings))
        assert backends(workers) == [["gloo"] * 4] * 3
    assert digest(done[-1].weights) == digest(expected.weights)


def test_a_gpu_of_their_own_for_each_is_what_nccl_needs() -> None:
    assert choose_backend(["GPU-a", "GPU-b", "GPU-c"]) == "nccl"
    assert choose_backend(["GPU-a"]) == "nccl"
    assert choose_backend(["GPU-a", "GPU-b", "GPU-a"]) == "gloo"
    assert choose_backend(["GPU-a", ""]) == "gloo"
    assert choose_backend(["", ""]) == "gloo"


def test_a_cpu_is_no_gpu_to_average_on() -> None:
    assert averaging_gpu(torch.device("cpu"), get_codec("float32")) == ""


@pytest.mark.parametrize("_", [pytest.param(0, marks=needs_gpu)])
def test_a_gpu_is_named_if_weights_travel_as_they_are(_: int) -> None:
    device = torch.device("cuda", 0)
    assert bool(averaging_gpu(device, get_codec("float32"))) == torch.distributed.is_nccl_available()
    assert averaging_gpu(device, get_codec("bfloat16")) == ""


class Unconnected(FakeGpu):
    def _make_group(self) -> MakeGroup:
        def make_group(key: str, rank: int, size: int) -> object:
            raise RuntimeError("NCCL found no network")

        return make_group


class Failing(OnGpus):
    participant = Unconnected


def test_workers_whose_gpus_cannot_reach_each_other_average_in_host_memory(
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = in_this_process(small_recipe(), 2, Settings(rounds=3, tau=3))
    with in_process(apart(), shards_of(2), ring=True, kind=Failing) as workers:
        done = list(train(workers, Settings(rounds=3, tau=3)))
        assert backends(workers) == [["nccl", "gloo", "gloo", "gloo"]] * 2
    assert digest(done[-1].weights) == digest(expected.weights)
    assert "will average in host memory" in caplog.text
    assert "NCCL found no network" in caplog.text


@pytest.mark.parametrize("ring", [False, True], ids=["star", "ring"])
@pytest.mark.parametrize("wire", ["float32", "bfloat16", "int8"])
def test_weights_that_lie_apart_go_through_host_memory_as_if_they_did_not(ring: bool, wire: str) -> None:
    settings, found = Settings(rounds=4, tau=2, test_every=2), []
    for recipe in (small_recipe(), apart()):
        with in_process(recipe, shards_of(2), TEST, ring=ring, wire=wire) as workers:
            found.append(list(train(workers, settings))[-1])
    assert digest(found[0].weights) == digest(found[1].weights)
    assert found[0].scores == found[1].scores


def batch_normed() -> TorchReplica:
    return TorchReplica(nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(16, 3)), momentum_sgd)


def test_running_statistics_are_merged_as_in_the_star_bit_for_bit() -> None:
    settings, recipe = Settings(rounds=4, tau=3), small_recipe(replica=batch_normed)
    expected = in_this_process(recipe, 3, settings).weights
    with in_process(recipe, shards_of(3), ring=True, kind=OnGpus) as workers:
        weights = list(train(workers, settings))[-1].weights
    assert digest(weights) == digest(expected)


def test_the_weights_of_a_round_can_be_fetched_from_a_gpu_until_the_next_are_made() -> None:
    with LocalWorkers(small_recipe(), shards_of(2)) as local:
        expected = list(train(local, Settings(rounds=3, tau=2)))
    with in_process(apart(), shards_of(2), ring=True, kind=OnGpus) as workers:
        rounds = train(workers, Settings(rounds=3, tau=2))
        first = next(rounds)
        assert digest(first.weights) == digest(expected[0].weights)
        second = next(rounds)
        third = next(rounds)
        with pytest.raises(WorkersLost, match="have gone on"):
            assert second.weights.size
    assert digest(third.weights) == digest(expected[2].weights)


def test_what_the_driver_sends_is_what_the_next_round_starts_from() -> None:
    worker = apart().worker(0, EXAMPLES)
    nobody = Rendezvous(("127.0.0.1", 1), "127.0.0.1", 1)
    allreduce = DeviceAllReduce(nobody.gloo, torch.device("cpu"), 1)
    averager = DeviceAverager(worker, allreduce, lambda: pytest.fail("there is no need of the host"))
    alone: dict[str, Any] = {"backend": "nccl", "key": "", "rank": 0, "steps": [2], "history": False}
    averager.begin()
    worker.train(None, RoundPlan(tau=2))
    assert averager.reduce(**alone).moved > 0
    averager.commit()
    assert bytes(averager.start) == worker.bring().tobytes()
    worker.load(np.ones_like(worker.vector))
    averager.arrived()
    averager.begin()
    assert bytes(averager.start) == np.ones_like(worker.vector).tobytes()
    assert averager.reduce(**alone).moved == 0


class DropsOutOnGpus(DropsOut, OnGpus):
    """One of them that drops out."""


def test_the_others_average_again_on_their_gpus_without_one_that_dropped_out() -> None:
    timeouts = replace(QUICK, send=1.0)
    with LocalWorkers(small_recipe(), shards_of(3)) as local:
        first = next(train(local, Settings(rounds=1, tau=5)))
        local.train(first.weights, Settings(rounds=1, tau=5).plan(1, None))
        left = mean_of([worker.vector for worker in local.workers[:2]], [1, 1])
    with in_process(
        apart(), shards_of(3)[:2], workers=3, ring=True, timeouts=timeouts, kind=OnGpus
    ) as workers:
        join_as(DropsOutOnGpus, workers, 2, shards_of(3)[2])
        rounds = train(workers, Settings(rounds=50, tau=5))
        assert next(rounds).members == (0, 1, 2)
        second = next(rounds)
        assert second.members == (0, 1)
        assert "power failure" in second.result.lost[0]
        assert digest(second.weights) == digest(left)
        assert {backend for each in backends(workers) for backend in each} == {"nccl"}
        workers.join(2, shards_of(3)[2], attempt=9)
        wait_for(workers, 9)
        assert [next(rounds).members for _ in range(3)] == [(0, 1, 2)] * 3


def test_a_replica_that_exploded_takes_no_part_and_is_put_back_on_the_mean() -> None:
    with in_process(apart(), shards_of(3)[:2], workers=3, ring=True, kind=OnGpus) as workers:
        workers.join(2, shards_of(3)[2], 2, apart(replica=exploding))
        done = list(train(workers, Settings(rounds=4, tau=2)))
    assert [r.members for r in done] == [(0, 1, 2), (0, 1), (0, 1, 2), (0, 1, 2)]
    assert "not numbers" in done[1].result.lost[0]
    assert np.isfinite(done[-1].weights).all()


def test_a_ring_of_gpus_leaves_no_thread_of_ours() -> None:
    """Which ``in_process`` asserts, as it does for every run."""
    with in_process(apart(), shards_of(2), ring=True, kind=OnGpus) as workers:
        next(train(workers, Settings(rounds=1)))


@pytest.mark.parametrize("workers_count", [pytest.param(k, marks=needs_gpu) for k in (1, 2)])
def test_workers_on_one_gpu_learn_as_in_this_process(workers_count: int) -> None:
    def on_gpu() -> TorchReplica:
        return TorchReplica(small_net(), momentum_sgd, device="cuda")

    settings = Settings(rounds=4, tau=3, momentum="average")
    expected = in_this_process(small_recipe(), workers_count, settings).weights
    with in_process(small_recipe(), [], workers=workers_count, ring=True) as workers:
        for number, shard in enumerate(shards_of(workers_count)):
            workers.join(number, shard, number, small_recipe(replica=on_gpu))
        weights = list(train(workers, settings))[-1].weights
    assert np.allclose(weights, expected, rtol=1e-3, atol=1e-4)
