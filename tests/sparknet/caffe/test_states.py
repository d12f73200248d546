"""Phase, level and stages; split layers; data layers replaced by inputs."""

from __future__ import annotations

import json

import pytest

from sparknet.caffe import schema
from sparknet.caffe.net import Net
from sparknet.caffe.schema.caffe_pb2 import Phase
from sparknet.errors import ModelError
from tests.sparknet.caffe.oracle import oracle_file

ORACLE = oracle_file("misc")


@pytest.mark.skipif(ORACLE is None, reason="SPARKNET_ORACLE names no folder with Caffe's numbers")
def test_layers_blobs_and_outputs_in_all_states_are_those_of_caffe() -> None:
    assert ORACLE is not None
    param = schema.load_net(ORACLE / "state_rules.prototxt")
    for state in json.loads((ORACLE / "state_rules.json").read_text()):
        net = Net(param, Phase.Value(state["phase"]), state["level"], state["stages"])
        assert net.layer_names == state["layers"]
        assert list(net.blobs) == state["blobs"]
        assert net.outputs == state["outputs"]


@pytest.mark.parametrize(
    ("rules", "phase", "level", "stages", "is_there"),
    [
        ("include { phase: TRAIN }", "TEST", 0, [], False),
        ('include { phase: TRAIN } include { stage: "a" }', "TEST", 0, ["a"], True),
        ('include { stage: "a" stage: "b" }', "TEST", 0, ["a"], False),
        ('include { not_stage: "a" }', "TEST", 0, ["a"], False),
        ("include { min_level: 1 max_level: 2 }", "TEST", 2, [], True),
        ("include { min_level: 1 max_level: 2 }", "TEST", 3, [], False),
        ('exclude { stage: "a" } exclude { min_level: 2 }', "TRAIN", 2, [], False),
        ("exclude { phase: TEST }", "TRAIN", 0, [], True),
    ],
)
def test_a_layer_is_there_where_its_rules_say(
    rules: str, phase: str, level: int, stages: list[str], is_there: bool
) -> None:
    param = schema.parse_net(
        f'input: "x" input_shape {{ dim: 1 }} layer {{ name: "l" type: "Power" bottom: "x" top: "y"'
        f" {rules} }}"
    )
    assert ("l" in Net(param, Phase.Value(phase), level, stages).layer_names) == is_there


def test_the_state_in_the_file_holds_too() -> None:
    param = schema.parse_net(
        'state { level: 3 stage: "deploy" } input: "x" input_shape { dim: 1 }'
        ' layer { name: "l" type: "Power" bottom: "x" top: "y" include { min_level: 2 stage: "deploy"'
        ' stage: "b" } }'
    )
    assert "l" in Net(param, schema.TEST, stages=["b"]).layer_names
    assert "l" not in Net(param, schema.TEST).layer_names
    assert "l" not in Net(param, schema.TEST, level=0, stages=["b"]).layer_names


def test_include_and_exclude_together_are_an_error() -> None:
    param = schema.parse_net(
        'layer { name: "l" include { level: 1 } exclude { phase: TEST } }'.replace("level", "min_level")
    )
    with pytest.raises(ModelError, match='layer "l" has include and exclude rules'):
        Net(param, schema.TEST)


def test_a_blob_with_loss_weight_that_is_read_counts_once_in_the_loss() -> None:
    net = Net(
        schema.parse_net(
            'force_backward: true input: "x" input_shape { dim: 2 }'
            ' layer { name: "p" type: "Power" bottom: "x" top: "y" loss_weight: 3 }'
            ' layer { name: "q" type: "Power" bottom: "y" top: "z" power_param { scale: 2 } loss_weight: 1 }'
        ),
        schema.TEST,
    )
    import torch

    net.forward({"x": torch.tensor([1.0, 2.0])})
    net.backward()
    assert net.layer_names == ["input", "p", "y_p_0_split", "q"]
    assert net.loss.item() == 3 * 3 + 2 * 3
    assert net.blobs["x"].diff.tolist() == [5.0, 5.0]


def test_data_layers_give_way_to_inputs_of_the_batch_sizes() -> None:
    net = schema.parse_net(
        'layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TRAIN } data_param'
        " { batch_size: 7 } }"
        'layer { name: "d" type: "Data" top: "data" top: "label" include { phase: TEST } }'
        'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {'
        " num_output: 2 } }"
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }'
    )
    replaced = schema.replace_data_layers(net, 5, 9, 3, 4, 6)
    for phase, batch in ((schema.TRAIN, 5), (schema.TEST, 9)):
        built = Net(replaced, phase)
        assert built.blobs["data"].shape == (batch, 3, 4, 6)
        assert built.blobs["label"].shape == (batch,)
    assert [layer.type for layer in net.layer[:2]] == ["Data", "Data"], "the net given is left as it was"


def test_a_net_without_data_layers_has_none_to_replace() -> None:
    with pytest.raises(ModelError, match="has no data layer"):
        schema.replace_data_layers(
            schema.parse_net('layer { name: "p" type: "Parameter" top: "w" }'), 1, 1, 1, 1, 1
        )
