"""What counts in a mean: replicas that diverged do not, and variances get the spread between the workers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from sparknet.caffe.schema import SolverParameter, parse_net
from sparknet.caffe_replica import CaffeModel
from sparknet.data import contiguous
from sparknet.data.dataset import Batch
from sparknet.errors import TrainingError
from sparknet.local import LocalWorkers
from sparknet.merge import merge
from sparknet.replica import TorchReplica
from sparknet.training import RoundPlan, Settings, train
from sparknet.weights import Vector
from tests.sparknet.small import momentum_sgd, pictures, small_net, small_recipe

START = np.zeros(100_000, np.float32)


def moved(by: float, seed: int = 0) -> Vector:
    """``START`` moved by a vector of this length."""
    step = np.random.default_rng(seed).standard_normal(START.size)
    return (step * by / np.linalg.norm(step)).astype(np.float32)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_vector_with_one_bad_number_is_left_out(bad: float) -> None:
    spoiled = moved(1)
    spoiled[77_777] = bad
    merged = merge(START, [moved(1, 1), spoiled, moved(1, 2)], [5, 5, 5])
    assert merged.kept == (0, 2)
    assert "not numbers" in merged.rejected[1]
    expected = (moved(1, 1).astype(float) + moved(1, 2)) / 2
    assert np.array_equal(merged.mean, expected.astype(np.float32))


def test_a_vector_that_moved_ten_times_as_far_is_left_out() -> None:
    near = [moved(1, seed) for seed in range(4)]
    assert merge(START, [*near, moved(10.5)], [1] * 5).kept == (0, 1, 2, 3)
    assert merge(START, [*near, moved(9.5)], [1] * 5).kept == (0, 1, 2, 3, 4)


def test_if_nothing_can_be_believed_training_has_diverged() -> None:
    with pytest.raises(TrainingError, match="training diverged: the weights of all 2 workers"):
        merge(START, [START * np.nan, START + np.inf], [1, 1])


def test_workers_that_do_not_move_are_all_right() -> None:
    assert merge(START, [START, START], [1, 1]).kept == (0, 1)


class Explodes(TorchReplica):
    """Its third step blows its weights up, momentum included, once."""

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        loss = super().step(batches)
        if self.iteration == 3:
            self.weights.fill_(torch.nan)
            self.restore_history(torch.full_like(self.history(), torch.nan))
        return loss


def test_a_replica_that_exploded_is_left_out_and_comes_back_with_clean_momentum() -> None:
    made = iter([TorchReplica, Explodes, TorchReplica])
    recipe = small_recipe(replica=lambda: next(made)(small_net(), momentum_sgd))
    shards = [pictures(30, seed=k) for k in range(3)]
    with LocalWorkers(recipe, shards) as local:
        done = list(train(local, Settings(rounds=4, tau=2)))
    assert [r.members for r in done] == [(0, 1, 2), (0, 2), (0, 1, 2), (0, 1, 2)]
    assert done[1].result.lost == ("worker 1: its weights have overflowed or are not numbers",)
    assert np.isfinite(done[-1].weights).all()


def batch_normed() -> TorchReplica:
    """Without learning: only the running statistics move, to those of the whole shard in one step."""
    net = nn.Sequential(nn.BatchNorm2d(1, momentum=1.0), nn.Flatten(), nn.Linear(16, 3))
    return TorchReplica(net, lambda p: torch.optim.SGD(p, lr=0.0))


CAFFE = """
layer { name: "data" type: "Input" top: "data" top: "label"
        input_param { shape { dim: 60 dim: 1 dim: 4 dim: 4 } shape { dim: 60 } } }
layer { name: "bn" type: "BatchNorm" bottom: "data" top: "bn"
        batch_norm_param { moving_average_fraction: 0.5 } }
layer { name: "ip" type: "InnerProduct" bottom: "bn" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def caffe_batch_normed() -> CaffeModel:
    solver = SolverParameter(base_lr=0.0, lr_policy="fixed", type="SGD")
    return CaffeModel(net=parse_net(CAFFE), solver=solver)


@pytest.mark.parametrize("kind", ["torch", "caffe"])
def test_running_variances_get_the_spread_of_the_means(kind: str) -> None:
    """Two workers that see all of their shards, a dark and a bright one: together, those of the set."""
    dark, bright = pictures(60, seed=1), pictures(60, seed=2)
    dark.images[:] //= 2
    bright.images[:] = bright.images // 2 + 140
    make = batch_normed if kind == "torch" else caffe_batch_normed()
    recipe = small_recipe(batch_size=60, replica=make)
    with LocalWorkers(recipe, [dark, bright]) as local:
        merged = local.train(local.initial_weights(), RoundPlan(tau=1)).mean
        (where,) = local.workers[0].replica.statistics
    pixels = np.concatenate([dark.images, bright.images]).astype(np.float64) / 256
    scale = 1.0 if where.scale is None else merged[where.scale]
    within = np.mean([part.images.astype(float).var() for part in (dark, bright)]) / 256**2
    assert merged[where.mean] / scale == pytest.approx(pixels.mean(), rel=1e-5)
    assert merged[where.variance] / scale == pytest.approx(pixels.var(), rel=2e-3)
    assert pixels.var() > 2 * within  # averaging alone would give no more than this


def test_the_statistics_of_one_worker_are_left_as_they_are() -> None:
    with LocalWorkers(small_recipe(batch_size=60, replica=batch_normed), [pictures(60)]) as local:
        merged = local.train(local.initial_weights(), RoundPlan(tau=1)).mean
        assert np.array_equal(merged, local.workers[0].vector)


def test_averaged_momentum_is_the_mean_of_the_workers() -> None:
    """Against a loop that averages weights and momentum by hand."""
    shards = [pictures()[part] for part in contiguous(240, 3)]
    with LocalWorkers(small_recipe(), shards) as local:
        averaged = list(train(local, Settings(rounds=3, tau=4, momentum="average")))[-1].weights
    with LocalWorkers(small_recipe(), shards) as local:
        weights = local.initial_weights()
        for _ in range(3):
            weights = local.train(weights, RoundPlan(tau=4)).mean
            mean = (
                torch.stack([worker.replica.history() for worker in local.workers]).double().mean(0).float()
            )
            for worker in local.workers:
                worker.replica.restore_history(mean)
    assert np.array_equal(averaged, weights)
