"""Replicas against a Caffe solver run by itself and against torch run by itself."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from sparknet.caffe.net import Net
from sparknet.caffe.schema import TRAIN, SolverParameter, parse_net
from sparknet.caffe.solver import Solver
from sparknet.caffe_replica import CaffeModel
from sparknet.data import sampler
from sparknet.errors import ModelError
from sparknet.local import LocalWorkers
from sparknet.replica import TorchReplica, flatten
from sparknet.training import Settings, train
from tests.sparknet.small import digest, momentum_sgd, pictures, small_net, small_recipe

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" top: "label"
        input_param { shape { dim: 10 dim: 1 dim: 4 dim: 4 } shape { dim: 10 } } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1" param { lr_mult: 1 } param { lr_mult: 2 }
        inner_product_param { num_output: 12 weight_filler { type: "xavier" } } }
layer { name: "tanh" type: "TanH" bottom: "ip1" top: "ip1" }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" param { lr_mult: 1 } param { lr_mult: 2 }
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy"
        include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""


def caffe_model(**options: object) -> CaffeModel:
    settings = {"base_lr": 0.1, "momentum": 0.9, "weight_decay": 0.004, "type": "SGD", "random_seed": 1}
    policy = {"lr_policy": "multistep", "gamma": 0.5, "stepvalue": [7, 23]}
    solver = SolverParameter(**{**settings, **policy, **options})  # type: ignore[arg-type]
    return CaffeModel(net=parse_net(NET), solver=solver)


@pytest.mark.parametrize("iter_size", [1, 2])
@pytest.mark.parametrize("tau", [1, 5])
def test_one_caffe_worker_is_its_solver_bit_for_bit(tau: int, iter_size: int) -> None:
    model, examples, steps = caffe_model(iter_size=iter_size), pictures(), 30
    with LocalWorkers(small_recipe(replica=model), [examples]) as local:
        done = list(train(local, Settings(rounds=steps // tau, tau=tau)))

    torch.manual_seed(3)
    solver = Solver(model.solver, Net(model.net, TRAIN))
    batches = sampler("epoch", records=len(examples), batch_size=10, seed=3).batches(steps * iter_size)

    def feed() -> dict[str, torch.Tensor]:
        indices = next(batches)
        data = torch.from_numpy(examples.images[indices]).float() * (1 / 256)
        return {"data": data, "label": torch.from_numpy(examples.labels[indices]).float()}

    losses = [float(solver.step(1, feed)) for _ in range(steps)]
    assert digest(done[-1].weights) == digest(solver.net.weights.numpy())
    assert [r.loss for r in done] == pytest.approx(np.asarray(losses).reshape(-1, tau).mean(1), rel=1e-6)
    assert done[-1].images == 10 * tau * iter_size
    assert [done[0].lr, done[-1].lr] == pytest.approx([0.1, 0.025])


def test_a_caffe_net_is_scored_in_its_test_phase() -> None:
    with LocalWorkers(small_recipe(replica=caffe_model()), [pictures()], pictures(70, seed=1)) as local:
        last = list(train(local, Settings(rounds=20, tau=10, test_every=20)))[-1]
    assert last.scores is not None
    assert last.scores.records == 70
    assert set(last.scores.means) == {"accuracy", "loss"}
    assert last.accuracy is not None
    assert last.accuracy > 0.8


def test_a_model_travels_by_pickle() -> None:
    model = pickle.loads(pickle.dumps(caffe_model()))
    assert model().layout.size == 16 * 12 + 12 + 12 * 3 + 3


def test_a_worker_that_takes_over_has_the_learning_rate_of_that_time() -> None:
    replica = caffe_model()()
    replica.iteration = 23
    assert replica.solver.lr == pytest.approx(0.025)


@pytest.mark.parametrize("momentum", ["adam", "sgd", "caffe"])
def test_a_history_given_back_goes_on_as_before(momentum: str) -> None:
    def make() -> object:
        if momentum == "caffe":
            return caffe_model()()
        if momentum == "sgd":
            return TorchReplica(small_net(), momentum_sgd)
        return TorchReplica(small_net(), lambda p: torch.optim.Adam(p, lr=0.01))

    recipe = small_recipe(replica=make)
    with LocalWorkers(recipe, [pictures()]) as local:
        weights = list(train(local, Settings(rounds=3, tau=5)))[-1].weights
        first = local.workers[0]
        saved = first.state
        expected = list(train(local, Settings(rounds=3, tau=5), weights=weights))[-1].weights
    with LocalWorkers(recipe, [pictures()]) as local:
        local.workers[0].restore(saved)
        resumed = list(train(local, Settings(rounds=3, tau=5), weights=weights))[-1].weights
    assert np.array_equal(resumed, expected)


def test_writing_to_the_vector_changes_the_module_and_back() -> None:
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    layout, vector = flatten(module)
    vector.fill_(2.0)
    assert all(torch.equal(p, torch.full_like(p, 2)) for p in module.parameters())
    assert torch.equal(module[1].running_var, torch.full((2,), 2.0))  # type: ignore[arg-type]
    module.train()(torch.randn(4, 1, 5, 5))
    assert not bool((layout.views(vector)["1.running_mean"] == 2).any())


def test_weights_of_another_type_are_refused() -> None:
    with pytest.raises(ModelError, match=r"0\.weight \(torch\.float64\)"):
        flatten(nn.Sequential(nn.Linear(2, 2)).double())
