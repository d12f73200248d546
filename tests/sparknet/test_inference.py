"""A net at work: the numbers of the plain net, for any batch, output and transform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sparknet.caffe.schema import parse_net, parse_solver, replace_data_layers
from sparknet.caffe_replica import CaffeModel, InferenceNet
from sparknet.data import Transform
from sparknet.errors import ModelError
from sparknet.inference import Inference, scores_of
from sparknet.weights import Vector

PIXELS = np.random.default_rng(0).integers(0, 256, (30, 3, 8, 8), np.uint8)
MEAN = Transform(mean=np.array([9.0, 8, 7], np.float32), scale=0.01)

CAFFE = """
name: "small"
layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "db" batch_size: 4 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
        inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "acc" type: "Accuracy" bottom: "ip" bottom: "label" top: "acc" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def module() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5), nn.Dropout(0.5))


def caffe() -> CaffeModel:
    net = replace_data_layers(parse_net(CAFFE), 4, 4, 3, 8, 8)
    return CaffeModel(net=net, solver=parse_solver('base_lr: 0.1 lr_policy: "fixed"'), device="cpu")


def flat(model: nn.Module) -> Vector:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).numpy().copy()


@pytest.mark.parametrize("batch_size", [1, 7, 30, 1000])
def test_a_module_gives_what_it_gives_in_plain_torch(batch_size: int) -> None:
    opened = Inference(build=module, transforms=MEAN, batch_size=batch_size).open()
    (found,) = opened({"data": PIXELS})
    plain = module().eval()((torch.tensor(PIXELS).float() - torch.tensor(MEAN.mean)[:, None, None]) * 0.01)
    np.testing.assert_allclose(found, plain.detach().numpy(), rtol=1e-4, atol=1e-5)


def test_weights_replace_those_the_net_was_built_with() -> None:
    weights = flat(module()) * 0.5
    (found,) = Inference(build=module).open(weights)({"data": PIXELS})
    halved = module().eval()
    with torch.no_grad():
        for parameter in halved.parameters():
            parameter *= 0.5
    np.testing.assert_allclose(found, halved(torch.tensor(PIXELS).float()).detach(), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("build", [module, InferenceNet(caffe())], ids=["torch", "caffe"])
def test_the_same_records_give_the_same_bits_again(build: Callable[[], Any]) -> None:
    weights = np.random.default_rng(1).normal(size=837).astype(np.float32)
    first, second = (Inference(build=build).open(weights)({"data": PIXELS})[0] for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_any_submodule_is_an_output() -> None:
    opened = Inference(build=module, outputs=("2", "")).open()
    features, scores = opened({"data": PIXELS})
    assert features.shape == (30, 144)
    assert scores.shape == (30, 5)
    assert opened.names == ("2", "")


def test_a_caffe_net_gives_the_scores_that_its_loss_judges_and_any_blob() -> None:
    replica = caffe()()
    opened = Inference(build=InferenceNet(caffe()), outputs=("", "conv")).open(replica.weights.numpy().copy())
    scores, conv = opened({"data": PIXELS})
    replica.test_net.forward({"data": torch.tensor(PIXELS), "label": torch.zeros(30)})
    assert scores_of(replica.test_net) == "ip"
    np.testing.assert_allclose(scores, replica.test_net.blobs["ip"].data, rtol=1e-5, atol=1e-3)
    assert conv.shape == (30, 4, 6, 6)


@pytest.mark.parametrize(
    ("build", "output", "says"),
    [
        (module, "fc7", 'the module has no part "fc7": it has 0, 1, 2, 3, 4'),
        (InferenceNet(caffe()), "fc7", 'the net has no blob "fc7": it has data, label'),
        (InferenceNet(caffe()), "loss", "not one row for each"),
    ],
)
def test_outputs_that_cannot_be_are_refused(build: Callable[[], Any], output: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        Inference(build=build, outputs=(output,)).open()({"data": PIXELS})


def test_weights_of_another_net_are_refused() -> None:
    for build in (module, InferenceNet(caffe())):
        with pytest.raises(ModelError, match="belong to another net"):
            Inference(build=build).open(np.zeros(5, np.float32))


def test_records_are_not_changed_by_a_net_that_works_in_place() -> None:
    rows = np.random.default_rng(2).normal(size=(10, 4)).astype(np.float32)
    before = rows.copy()
    Inference(build=lambda: nn.ReLU(inplace=True)).open()({"data": rows})
    assert np.array_equal(rows, before)
