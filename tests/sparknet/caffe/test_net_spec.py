"""Nets written in Python become the prototxt that was meant."""

from __future__ import annotations

import pytest

from sparknet.caffe.net_spec import NetSpec, assign_proto, layers, params, to_proto
from sparknet.caffe.schema import parse_net
from sparknet.caffe.schema.caffe_pb2 import LayerParameter

L, P = layers, params

SMALL = """
layer { name: "data" type: "DummyData" top: "data" top: "label"
        dummy_data_param { shape { dim: [4, 1, 8, 8] } shape { dim: 4 } } transform_param { scale: 0.5 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
        convolution_param { num_output: 6 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
        pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
layer { name: "relu" type: "ReLU" bottom: "pool" top: "pool" }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" loss_weight: 0.5 }
"""


def small() -> NetSpec:
    n = NetSpec()
    n.data, n.label = L.DummyData(
        shape=[{"dim": [4, 1, 8, 8]}, {"dim": [4]}], transform_param={"scale": 0.5}, ntop=2
    )
    n.conv = L.Convolution(
        n.data,
        num_output=6,
        kernel_size=3,
        weight_filler={"type": "xavier"},
        param=[{"lr_mult": 1}, {"lr_mult": 2, "decay_mult": 0}],
    )
    n.pool = L.Pooling(n.conv, pool=P.Pooling.AVE, kernel_size=2, stride=2)
    n.relu = L.ReLU(n.pool, in_place=True)
    n.ip = L.InnerProduct(n.relu, num_output=3)
    n.loss = L.SoftmaxWithLoss(n.ip, n.label, loss_weight=0.5)
    return n


def test_a_net_spec_is_the_prototxt_it_stands_for() -> None:
    assert small().to_proto() == parse_net(SMALL)


def test_blobs_without_a_name_are_numbered_by_type() -> None:
    data = L.Input(shape={"dim": [1, 3]})
    hidden = L.InnerProduct(L.InnerProduct(data, num_output=2), num_output=2)
    net = hidden.to_proto()
    assert [layer.name for layer in net.layer] == ["Input1", "InnerProduct1", "InnerProduct2"]
    assert net.layer[2].bottom == ["InnerProduct1"]


def test_a_layer_that_two_blobs_need_is_written_once() -> None:
    data = L.Input(shape={"dim": [1, 3]})
    net = to_proto(L.ReLU(data), L.TanH(data))
    assert [layer.type for layer in net.layer] == ["Input", "ReLU", "TanH"]


def test_a_layer_without_blobs_is_kept_under_the_name_of_its_type() -> None:
    n = NetSpec()
    n.data = L.Input(shape={"dim": [1, 3]})
    n.rest = L.Silence(n.data, ntop=0)
    assert [(layer.name, list(layer.top)) for layer in n.to_proto().layer] == [
        ("data", ["data"]),
        ("rest", []),
    ]


def test_items_and_attributes_are_the_same() -> None:
    n = small()
    assert n["conv"] is n.conv
    del n["loss"]
    assert "loss" not in [layer.name for layer in n.to_proto().layer]
    with pytest.raises(AttributeError):
        _ = n.loss


def test_an_input_that_is_no_blob_is_refused() -> None:
    with pytest.raises(TypeError, match="Convolution input 0 is not a Top"):
        L.Convolution("data", num_output=1)


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(AttributeError, match="kernel_sice"):
        L.Convolution(L.Input(), kernel_sice=3).to_proto()


def test_a_parameter_message_can_be_given_whole() -> None:
    by_name = L.Convolution(L.Input(), num_output=2).to_proto()
    whole = L.Convolution(L.Input(), convolution_param={"num_output": 2}).to_proto()
    assert by_name == whole


def test_a_single_value_of_a_repeated_field_is_a_list_of_one() -> None:
    layer = LayerParameter()
    assign_proto(layer, "loss_weight", 3)
    assert list(layer.loss_weight) == [3]


def test_the_constants_of_a_layer_type_are_its_enum_values() -> None:
    assert (P.Pooling.MAX, P.Pooling.AVE, P.Eltwise.PROD) == (0, 1, 0)
