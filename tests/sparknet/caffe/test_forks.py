"""Nets of Caffe's forks: refused with all that is theirs, or read without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparknet.caffe import schema
from sparknet.caffe.layers import TYPES
from sparknet.caffe.net import Net
from sparknet.caffe.schema.caffe_pb2 import NetParameter
from sparknet.caffe.schema.forks import BVLC_TYPES, FORK_TYPES, typo_of
from sparknet.caffe.solver import Solver
from sparknet.errors import ModelError, SchemaError

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: [1, 2, 112, 112] } } }\n'
POOL = """layer {
  pooling_param { kernel_size: 3 stride: 2 pad: 0 pool: MAX CEIL }
  name: "pool1" type: "Pooling" bottom: "data" top: "pool1"
}
"""
PERMUTE = """layer {
  name: "perm" type: "Permute" bottom: "pool1" top: "perm"
  permute_param { order: 0 order: 2 }
}
"""


def net_file(folder: Path, text: str) -> Path:
    path = folder / "net.prototxt"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("ceil", "size"),
    [("ceil_mode: false", 55), ("ceil_mode: 0", 55), ("ceil_mode: f", 55), ("ceil_mode: true", 56), ("", 56)],
)
def test_ceil_mode_is_caffes_round_mode(ceil: str, size: int, tmp_path: Path) -> None:
    path = net_file(tmp_path, INPUT + POOL.replace("CEIL", ceil))
    net, skipped = schema.load_net_tolerantly(path)
    assert skipped == []
    assert Net(net, schema.TEST).blobs["pool1"].shape == (1, 2, size, size)


def test_the_first_pooling_of_densenet_121_is_56_wide(tmp_path: Path) -> None:
    text = INPUT.replace("112", "224") + (
        'layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" convolution_param '
        "{ num_output: 4 bias_term: false pad: 3 kernel_size: 7 stride: 2 } }\n"
        'layer { name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param '
        "{ pool: MAX kernel_size: 3 stride: 2 pad: 1 ceil_mode: false } }\n"
    )
    net, _ = schema.load_net_tolerantly(net_file(tmp_path, text))
    assert Net(net, schema.TEST).blobs["pool1"].shape[2:] == (56, 56)


def test_a_field_that_contradicts_its_equivalent_is_refused(tmp_path: Path) -> None:
    path = net_file(tmp_path, INPUT + POOL.replace("CEIL", "ceil_mode: false round_mode: CEIL"))
    with pytest.raises(SchemaError, match=r"net\.prototxt:3:61: this contradicts round_mode"):
        schema.load_net_tolerantly(path)


def test_deeplabs_holes_are_dilation(tmp_path: Path) -> None:
    text = 'layer { type: "Convolution" convolution_param { kernel_size: 3 hole: 4 num_output: 1 } }'
    net, skipped = schema.load_net_tolerantly(net_file(tmp_path, text))
    assert (list(net.layer[0].convolution_param.dilation), skipped) == ([4], [])


def test_a_refusal_names_file_line_and_layer_of_all_that_is_a_forks(tmp_path: Path) -> None:
    path = net_file(tmp_path, INPUT + POOL.replace("CEIL", "ceil_mode: false") + PERMUTE)
    with pytest.raises(SchemaError) as caught:
        schema.load_net(path)
    lines = str(caught.value).split("\n  ")
    assert lines[0] == (
        f'{path}:3:61: layer "pool1": PoolingParameter has no field "ceil_mode" (its word for round_mode)'
    )
    assert lines[1] == f'{path}:6:1: layer "perm": there is no type "Permute" (it is of SSD)'
    assert lines[2] == f'{path}:8:3: layer "perm": LayerParameter has no field "permute_param"'
    assert lines[3].startswith("these 3 are not of BVLC Caffe but of a fork of it.")
    assert "load_net_tolerantly" in lines[3]
    assert "nearest" not in str(caught.value)
    assert (caught.value.file, caught.value.line) == (str(path), 3)


def test_layers_of_forks_are_refused_together_with_their_lines(tmp_path: Path) -> None:
    text = INPUT + POOL.replace("CEIL", "") + PERMUTE.replace("  permute_param { order: 0 order: 2 }\n", "")
    path = net_file(tmp_path, text + 'layer { name: "f" type: "Fnord" bottom: "perm" top: "f" }\n')
    with pytest.raises(SchemaError) as caught:
        Net.for_file(path, schema.TEST)
    lines = str(caught.value).split("\n  ")
    assert lines[0] == f'{path}:6:1: layer "perm": there is no type "Permute" (it is of SSD)'
    assert lines[1] == f'{path}:9:1: layer "f": there is no type "Fnord"'
    assert "these 2 are not of BVLC Caffe" in lines[2]


def test_a_solver_says_where_its_net_has_a_forks_layer(tmp_path: Path) -> None:
    path = net_file(tmp_path, INPUT + 'layer { name: "n" type: "Normalize" bottom: "data" top: "n" }')
    (tmp_path / "solver.prototxt").write_text('net: "net.prototxt" base_lr: 1 lr_policy: "fixed"')
    with pytest.raises(SchemaError, match=r"^[^\n]*net\.prototxt:2:1: layer \"n\": .* \(it is of SSD\)"):
        Solver.for_file(tmp_path / "solver.prototxt")
    (tmp_path / "solver.prototxt").write_text(
        f'net_param {{\n{path.read_text()} }}\nbase_lr: 1 lr_policy: "fixed"'
    )
    with pytest.raises(SchemaError, match=r"solver\.prototxt:3:1: layer \"n\""):
        Solver.for_file(tmp_path / "solver.prototxt")


def test_misspelt_names_are_told_from_those_of_forks(tmp_path: Path) -> None:
    path = net_file(tmp_path, "layer {\n name: 'a' typ: 'ReLU'\n fnord: 3 botom: 'x' }")
    with pytest.raises(SchemaError) as caught:
        schema.load_net(path)
    assert 'LayerParameter has no field "typ"; the nearest is "type"\n' in str(caught.value)
    assert 'no field "fnord"\n' in str(caught.value)
    assert 'no field "botom"; the nearest is "bottom"\n' in str(caught.value)
    assert "1 of these 3 is not of BVLC Caffe" in str(caught.value)


def test_the_types_of_bvlc_caffe_are_those_that_there_are() -> None:
    assert set(TYPES) == BVLC_TYPES


@pytest.mark.parametrize("name", sorted(FORK_TYPES))
def test_no_forks_layer_is_taken_for_one_of_caffes_misspelt(name: str) -> None:
    assert name not in TYPES
    assert typo_of(name, TYPES) == ""


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ("PoolingParameter", "ceil_mode"),
        ("LayerParameter", "permute_param"),
        ("LayerParameter", "norm_param"),
        ("LayerParameter", "bn_param"),
        ("LayerParameter", "interp_param"),
        ("LayerParameter", "roi_pooling_param"),
        ("LayerParameter", "prior_box_param"),
        ("LayerParameter", "pose_param"),
        ("ConvolutionParameter", "dilation_h"),
        ("DropoutParameter", "scale_train"),
        ("LayerParameter", "relu6_param"),
    ],
)
def test_no_forks_field_is_taken_for_one_of_caffes_misspelt(message: str, field: str) -> None:
    fields = schema.caffe_pb2.DESCRIPTOR.message_types_by_name[message].fields_by_name
    assert typo_of(field, fields) == ""


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        *(
            ("Convolutoin", "Convolution"),
            ("InnerProdcut", "InnerProduct"),
            ("relu", "ReLU"),
            ("Scal", "Scale"),
        ),
        ("Scal", "Scale"),
        *(("Batchnorm", "BatchNorm"), ("Concant", "Concat"), ("Eltwize", "Eltwise"), ("Poling", "Pooling")),
    ],
)
def test_a_slip_of_the_fingers_is_understood(name: str, meant: str) -> None:
    assert typo_of(name, TYPES) == meant


@pytest.mark.parametrize(
    "layer",
    [
        "convolution_param { num_output: 1 engine: MKL2017 }",
        "relu_param { engine: 17 }",
        "inner_product_param { weight_filler { type: 'constant' variance_norm: LOCAL } }",
    ],
)
def test_an_unknown_value_that_changes_nothing_is_passed_by_the_tolerant_reader(layer: str) -> None:
    text = f'layer {{ name: "a" type: "ReLU" {layer} }}'
    with pytest.raises(SchemaError, match=r'(?s)f:1:\d+: layer "a": .* has no value .* of a fork'):
        schema.parse_net(text, file="f")
    net, skipped = schema.parse_tolerantly(text, NetParameter())
    assert (net.layer[0].name, skipped) == ("a", [])


@pytest.mark.parametrize(
    ("layer", "named"),
    [
        (
            "inner_product_param { weight_filler { variance_norm: PRE_FIXED type: 'msra' } }",
            "FillerParameter.variance_norm: PRE_FIXED",
        ),
        ("lrn_param { norm_region: LOCAL }", "LRNParameter.norm_region: LOCAL"),
        ("pooling_param { pool: 7 }", "PoolingParameter.pool: 7"),
        ("data_param { backend: ROCKSDB }", "DataParameter.backend: ROCKSDB"),
    ],
)
def test_an_unknown_value_that_matters_is_named_by_the_tolerant_reader(layer: str, named: str) -> None:
    _, skipped = schema.parse_tolerantly(f'layer {{ name: "a" {layer} }}', NetParameter(), file="f")
    assert [str(field).partition(": ")[2] for field in skipped] == [named]
    assert skipped[0].layer == "a"


def test_a_net_given_as_a_message_names_its_layers_without_lines() -> None:
    net = schema.parse_net(INPUT + 'layer { name: "n" type: "Normalize" bottom: "data" top: "n" }')
    with pytest.raises(ModelError, match=r'^layer "n": there is no type "Normalize"'):
        Net(net, schema.TEST)
