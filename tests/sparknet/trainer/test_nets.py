"""What a user may call a model, and what is found out of it before anything is sent anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sparknet.data import Transform
from sparknet.data.records import Column
from sparknet.errors import ModelError, UsageError
from sparknet.objectives import Objective
from sparknet.torch_model import TorchModel
from sparknet.trainer import EarlyStopping, Trained
from sparknet.trainer.callbacks import Best
from sparknet.trainer.nets import caffe_model, frozen_caffe, label_kind, probe
from sparknet.trainer.saved import contents, restored

FLOATS, WHOLE = np.dtype(np.float32), np.dtype(np.int64)
SOLVER = """
net: "net.prototxt"
base_lr: 0.1 lr_policy: "fixed"
"""
NET = """
name: "two"
layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "db" batch_size: 4 } }
layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1" inner_product_param { num_output: 5 } }
layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" inner_product_param { num_output: 4 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
"""


@pytest.fixture
def solver(tmp_path: Path) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    return tmp_path / "solver.prototxt"


def schema(shape: tuple[int, ...], dtype: Any = FLOATS, **more: Column) -> dict[str, Column]:
    return {"data": Column(np.dtype(dtype), shape), **more}


def torch_model(module: Any, **options: Any) -> TorchModel:
    return TorchModel(module=module, **options)


def test_a_solver_is_read_with_the_net_beside_it_and_fed_the_columns(solver: Path) -> None:
    model = caffe_model(solver, schema((7,)), batch_size=2, test_batch_size=3)
    found = probe(model, schema((7,)), None)
    assert found.classes == 4
    assert label_kind(model) == "classes"
    pictures = caffe_model(solver, schema((3, 8, 8), np.uint8), batch_size=2, test_batch_size=3)
    assert probe(pictures, schema((3, 8, 8), np.uint8), Transform(scale=0.1)).classes == 4


def test_layers_are_frozen_by_their_names(solver: Path) -> None:
    model = caffe_model(solver, schema((7,)), batch_size=2, test_batch_size=2)
    net = frozen_caffe(model, ("ip1",)).net
    rates = {layer.name: [spec.lr_mult for spec in layer.param] for layer in net.layer}
    assert rates["ip1"] == [0, 0]
    assert rates["ip2"] == []
    with pytest.raises(UsageError, match="no layer with weights is named conv; there are ip1, ip2"):
        frozen_caffe(model, ("conv",))


@pytest.mark.parametrize(
    ("text", "says"), [("", "there is no such solver"), ("base_lr: 0.1", "name the net in the field net")]
)
def test_a_solver_that_cannot_be_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "solver.prototxt"
    if text:
        path.write_text(text)
    with pytest.raises(ModelError, match=says):
        caffe_model(path, schema((7,)), batch_size=2, test_batch_size=2)


def test_a_module_says_how_many_classes_it_tells_apart() -> None:
    label = Column(WHOLE)
    model = torch_model(lambda: nn.Linear(3, 5))
    assert probe(model, schema((3,), label=label), None).classes == 5
    numbers = torch_model(lambda: nn.Linear(3, 5), objective=Objective(loss="mse"))
    assert probe(numbers, schema((3,), label=Column(FLOATS, (5,))), None).classes == 0


def test_whole_numbers_are_given_as_floats_to_a_net_that_takes_no_indices() -> None:
    linear, embedding = nn.Linear(3, 5), nn.Sequential(nn.Embedding(9, 2), nn.Flatten(), nn.Linear(6, 5))
    whole = schema((3,), WHOLE, label=Column(WHOLE))
    assert probe(torch_model(linear), whole, None).floats
    assert not probe(torch_model(embedding), whole, None).floats


@pytest.mark.parametrize(
    ("module", "options", "columns", "says"),
    [
        (lambda: nn.Linear(4, 5), {}, {}, r"does not take its input \(data: float32 \(3\)\): mat1 and mat2"),
        (
            lambda: nn.Linear(3, 5),
            {"objective": Objective(loss=nn.CosineSimilarity())},
            {"label": Column(FLOATS, (7,))},
            r"cannot compare outputs of \(5,\) and labels of float32 \(7\)",
        ),
    ],
)
def test_a_net_or_loss_that_does_not_fit_the_columns_is_refused(
    module: Any, options: dict[str, Any], columns: dict[str, Column], says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        probe(torch_model(module, **options), schema((3,), **columns), None)


def test_a_function_that_makes_no_module_is_refused() -> None:
    with pytest.raises(UsageError, match=r"returns int: a torch\.nn\.Module is needed"):
        probe(torch_model(lambda: 3), schema((3,)), None)


def test_a_trained_net_comes_back_from_its_files_bit_for_bit(solver: Path) -> None:
    rng = np.random.default_rng(0)
    mean = rng.random((3, 8, 8)).astype(np.float32)
    caffe = caffe_model(solver, schema((3, 8, 8), np.uint8), batch_size=2, test_batch_size=2)
    made = [
        Trained(
            model=torch_model(lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4))),
            weights=rng.normal(size=772).astype(np.float32),
            features={"data": "pixels"},
            schema=schema((3, 8, 8), np.uint8),
            transforms=Transform(mean=mean, scale=0.5),
            kind="classes",
            names=("a", "b", "c", "d"),
        ),
        Trained(
            model=caffe,
            weights=rng.normal(size=caffe().weights.numel()).astype(np.float32),
            features="pixels",
            schema=schema((3, 8, 8), np.uint8),
            transforms=Transform(mean=mean, scale=0.5),
            kind="classes",
        ),
    ]
    pixels = rng.integers(0, 256, (5, 3, 8, 8), np.uint8)
    for trained in made:
        again = restored(contents(trained).__getitem__)
        first, second = (
            one.inference(one.outputs()).open(one.weights)({"data": pixels})[0] for one in (trained, again)
        )
        assert first.tobytes() == second.tobytes()
        assert (again.names, again.kind, again.features) == (trained.names, trained.kind, trained.features)
        assert again.form() == trained.form()


def test_a_trained_net_gives_its_tensors_by_name(solver: Path, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    flat = torch.arange(16, dtype=torch.float32).numpy()
    trained = Trained(
        model=torch_model(module), weights=flat, features=["a"], schema=schema((3,)), kind="any"
    )
    state = trained.state_dict()
    assert state["0.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert state["1.running_var"].tolist() == [14, 15]
    trained.save_weights(tmp_path / "net.pt")
    assert torch.load(tmp_path / "net.pt")["0.bias"].tolist() == [6, 7]
    with pytest.raises(ModelError, match="a torch module is no Caffe net"):
        trained.net()


def test_the_best_test_is_the_least_loss_or_the_highest_accuracy() -> None:
    losses, accuracies = Best("loss"), Best("accuracy")
    assert [losses.is_new({"loss": value}) for value in (3.0, 2.0, 2.5, None, 1.0)] == [
        True,
        True,
        False,
        False,
        True,
    ]
    assert [accuracies.is_new({"accuracy": value}) for value in (0.1, 0.3, 0.2)] == [True, True, False]
    assert accuracies.tests_since == 1
    assert not Best("loss", min_delta=0.5).is_new({"loss": None})
    with pytest.raises(UsageError, match="there is no score 'auc': the tests give loss"):
        Best("auc").is_new({"loss": 1.0})
    with pytest.raises(UsageError, match="patience is 0 tests"):
        EarlyStopping(patience=0)
