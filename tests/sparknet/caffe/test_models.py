"""The nets of apps/models: they build in both phases, and have the parameters they are known for."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparknet.caffe import schema
from sparknet.caffe.net import Net

MODELS = Path(__file__).parents[3] / "apps" / "models"
PARAMETERS = {
    "alexnet": (60_965_224, 60_965_224),
    "caffenet": (60_965_224, 60_965_224),
    "cifar10_full": (89_578, 89_578),
    "cifar10_quick": (145_578, 145_578),
    "googlenet": (13_378_280, 6_998_552),  # with and without auxiliary classifiers
    "lenet": (431_080, 431_080),
    "resnet50": (25_557_032, 25_557_032),
    "squeezenet_v1.1": (1_235_496, 1_235_496),
}


def test_every_model_is_known_here() -> None:
    assert {
        path.name.removesuffix("_train_test.prototxt") for path in MODELS.glob("*_train_test.prototxt")
    } == set(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_model_has_the_parameters_it_is_known_for(name: str) -> None:
    param = schema.load_net(MODELS / f"{name}_train_test.prototxt")
    for layer in param.layer:  # counting needs no random numbers
        for setting in ("convolution_param", "inner_product_param"):
            if layer.HasField(setting):
                getattr(layer, setting).ClearField("weight_filler")
    counts = []
    for phase in (schema.TRAIN, schema.TEST):
        net = Net(param, phase)
        counts.append(sum(blob.count for blob in net.learnable if blob.lr_mult))
    assert tuple(counts) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_solver_of_a_model_names_its_net(name: str) -> None:
    solver = schema.load_solver(MODELS / f"{name}_solver.prototxt")
    assert solver.net == f"{name}_train_test.prototxt"
    assert solver.max_iter > 0
    assert solver.lr_policy in ("fixed", "step", "inv", "poly", "multistep")
