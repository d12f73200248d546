"""Nets defined by functions equal those written as prototxt, and run with named arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparknet.caffe.definition import (
    AccuracyLayer,
    CaffeLayer,
    CaffeNet,
    CaffeSolver,
    ConcatLayer,
    ConvolutionLayer,
    DropoutLayer,
    Include,
    InnerProductLayer,
    LRNLayer,
    NetParam,
    Pooling,
    PoolingLayer,
    RDDLayer,
    ReLULayer,
    SigmoidLayer,
    SoftmaxLayer,
    SoftmaxWithLoss,
    TanHLayer,
    load_net_prototxt,
    load_solver_prototxt,
    load_solver_prototxt_with_net,
    load_solver_with_net_prototxt,
    replace_data_layers,
)
from sparknet.caffe.net import Net
from sparknet.caffe.schema.caffe_pb2 import TEST, TRAIN, NetParameter
from sparknet.errors import ModelError

MODELS = Path(__file__).parents[3] / "apps" / "models"
LENET = MODELS / "lenet_train_test.prototxt"


def lenet(batch: int) -> NetParameter:
    return NetParam(
        "LeNet",
        RDDLayer("data", shape=[batch, 1, 28, 28]),
        RDDLayer("label", shape=[batch]),
        ConvolutionLayer("conv1", ["data"], kernel=(5, 5), num_output=20),
        PoolingLayer("pool1", ["conv1"], pooling=Pooling.Max, kernel=(2, 2), stride=(2, 2)),
        ConvolutionLayer("conv2", ["pool1"], kernel=(5, 5), num_output=50),
        PoolingLayer("pool2", ["conv2"], pooling=Pooling.Max, kernel=(2, 2), stride=(2, 2)),
        InnerProductLayer("ip1", ["pool2"], num_output=500),
        ReLULayer("relu1", ["ip1"]),
        InnerProductLayer("ip2", ["relu1"], num_output=10),
        SoftmaxWithLoss("loss", ["ip2", "label"]),
    )


def digits(count: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(1)
    return {"data": draw.random((count, 1, 28, 28), dtype=np.float32), "label": draw.integers(0, 10, count)}


def test_lenet_by_functions_has_the_layers_of_lenet_by_prototxt() -> None:
    written = {layer.name: layer for layer in load_net_prototxt(LENET).layer}
    defined = {layer.name: layer for layer in lenet(64).layer}
    for name in ("conv1", "pool1", "conv2", "pool2", "ip1"):
        assert defined[name] == written[name]
    assert defined["ip2"].inner_product_param == written["ip2"].inner_product_param


def test_lenet_by_functions_computes_what_lenet_by_prototxt_computes() -> None:
    written, defined = CaffeNet(Net.for_file(LENET, TRAIN)), CaffeNet(lenet(8))
    assert defined.net.layout == written.net.layout
    assert [b.lr_mult for b in defined.net.learnable] == [b.lr_mult for b in written.net.learnable]
    defined.set_weights(written.get_weights())
    batch = digits(8)
    assert defined.forward_backward(batch) == pytest.approx(written.forward_backward(batch), rel=1e-6)
    np.testing.assert_allclose(defined.net.diffs.numpy(), written.net.diffs.numpy(), atol=1e-6)


def test_every_function_makes_a_layer_that_runs() -> None:
    net = NetParam(
        "all",
        RDDLayer("data", shape=[2, 4, 8, 8]),
        RDDLayer("label", shape=[2], include=Include.Test),
        ConvolutionLayer("conv", ["data"], kernel=(3, 1), num_output=4, stride=(2, 1), pad=(1, 0), group=2),
        LRNLayer("norm", ["conv"], local_size=3, alpha=0.5),
        PoolingLayer("pool", ["norm"], pooling=Pooling.Ave, kernel=(2, 3), stride=(1, 2), pad=(1, 1)),
        SigmoidLayer("sigmoid", ["pool"]),
        TanHLayer("tanh", ["pool"]),
        ConcatLayer("both", ["sigmoid", "tanh"]),
        DropoutLayer("drop", ["both"], ratio=0.25),
        InnerProductLayer("ip", ["drop"], num_output=5, weight_filler="msra", lr_mult=(3, 4)),
        SoftmaxLayer("prob", ["ip"]),
        AccuracyLayer("accuracy", ["ip", "label"], top_k=2),
        CaffeLayer("Power", "twice", ["prob"], power_param={"scale": 2}),
    )
    outputs = CaffeNet(net, TEST).forward({"data": np.ones((2, 4, 8, 8)), "label": [1, 2]}, ["prob", "conv"])
    np.testing.assert_allclose(outputs["twice"], 2 * outputs["prob"])
    assert outputs["conv"].shape == (2, 4, 4, 8)
    assert set(outputs) == {"twice", "accuracy", "prob", "conv"}
    assert "accuracy" not in CaffeNet(net, TRAIN).net.blobs
    assert [b.lr_mult for b in CaffeNet(net).net.params["ip"]] == [3, 4]


def test_a_layer_of_any_type_refuses_a_field_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="power_parm"):
        CaffeLayer("Power", "p", ["data"], power_parm={"scale": 2})


def test_weights_are_taken_and_set_as_copies() -> None:
    net = CaffeNet(lenet(2))
    weights = net.get_weights()
    assert [array.shape for array in weights["conv1"]] == [(20, 1, 5, 5), (20,)]
    weights["conv1"][0][...] = 7
    assert not (net.get_weights()["conv1"][0] == 7).any()
    net.set_weights({"conv1": weights["conv1"]})
    assert (net.get_weights()["conv1"][0] == 7).all()


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"conv9": []}, 'no layer "conv9"'),
        ({"conv1": [np.zeros((20, 1, 5, 5))]}, r"\[\(20, 1, 5, 5\), \(20,\)\], not \[\(20, 1, 5, 5\)\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused(weights: dict[str, list[np.ndarray]], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        CaffeNet(lenet(2)).set_weights(weights)


def test_weights_are_saved_and_loaded(tmp_path: Path) -> None:
    first, second = CaffeNet(lenet(2)), CaffeNet(lenet(2))
    for name in ("w.caffemodel", "w.caffemodel.h5"):
        first.save(tmp_path / name)
        second.set_weights({"ip2": [np.zeros((10, 500)), np.zeros(10)]})
        second.load(tmp_path / name)
        for layer, arrays in first.get_weights().items():
            for mine, theirs in zip(arrays, second.get_weights()[layer], strict=True):
                np.testing.assert_array_equal(mine, theirs)


def test_a_forward_pass_leaves_the_weights_and_takes_any_batch() -> None:
    net = CaffeNet(lenet(2))
    before = net.get_weights()["ip1"][0]
    assert net.forward(digits(5), ["ip2"])["ip2"].shape == (5, 10)
    net.forward_backward(digits(3))
    np.testing.assert_array_equal(net.get_weights()["ip1"][0], before)


def test_an_unknown_blob_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ModelError, match='no blob "ip3": it has data, label'):
        CaffeNet(lenet(2)).forward(digits(2), ["ip3"])


def test_a_solver_steps_on_a_defined_net() -> None:
    solver = CaffeSolver(load_solver_prototxt_with_net(MODELS / "lenet_solver.prototxt", one_phase()))
    batch = digits(8)
    losses = [solver.step(batch) for _ in range(6)]
    assert solver.iter == 6
    assert losses[-1] < losses[0]
    saved = solver.get_weights()
    solver.set_weights({name: [0 * array for array in arrays] for name, arrays in saved.items()})
    assert not solver.net.net.weights.any()


def one_phase() -> NetParameter:
    net = lenet(16)
    net.layer.append(AccuracyLayer("accuracy", ["ip2", "label"]))
    return net


def test_a_solver_is_set_on_another_net_and_snapshots_only_where_told() -> None:
    path = MODELS / "lenet_solver.prototxt"
    assert load_solver_prototxt(path).HasField("net")
    plain = load_solver_prototxt_with_net(path, lenet(4))
    assert (plain.HasField("net"), plain.net_param.name, plain.snapshot) == (False, "LeNet", 0)
    kept = load_solver_with_net_prototxt(path, LENET, snapshot_prefix="/tmp/x")
    assert (kept.snapshot_prefix, kept.snapshot) == ("/tmp/x", 5000)


def test_data_layers_are_replaced_by_inputs() -> None:
    net = replace_data_layers(
        load_net_prototxt(MODELS / "cifar10_quick_train_test.prototxt"), 5, 7, 3, 32, 32
    )
    for phase, batch in ((TRAIN, 5), (TEST, 7)):
        assert Net(net, phase).blobs["data"].shape == (batch, 3, 32, 32)
