"""Prototxt: what it says when it is wrong, and that the compiled schema is the schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparknet.caffe import schema
from sparknet.caffe.schema import caffe_pb2
from sparknet.caffe.schema.generate import FOLDER, SCHEMAS, generate
from sparknet.errors import ModelError, SchemaError


def test_the_compiled_schemas_are_current(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools")
    generate(tmp_path)
    for name in SCHEMAS:
        for suffix in ("_pb2.py", "_pb2.pyi"):
            compiled = name.removesuffix(".proto") + suffix
            fresh = (tmp_path / "sparknet" / "caffe" / "schema" / compiled).read_text()
            assert fresh == (FOLDER / compiled).read_text(), (
                f"{compiled}: python -m sparknet.caffe.schema.generate"
            )


def test_a_misspelt_field_is_named_with_its_place_and_the_nearest_field(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text('name: "n"\nlayer {\n  name: "ip"\n  typ: "InnerProduct"\n}\n')
    with pytest.raises(SchemaError) as caught:
        schema.load_net(path)
    assert str(caught.value) == f'{path}:4:3: LayerParameter has no field "typ"; the nearest is "type"'
    assert (caught.value.file, caught.value.line, caught.value.column) == (str(path), 4, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "layer { pooling_param { pool: MX } }",
            '1:31: PoolMethod has no value "MX"; it can be MAX, AVE, STOCHASTIC',
        ),
        ('name: "a" name: "b"', '1:17: NetParameter takes one "name", and this is the second'),
        ("layer { pooling_param {\n kernel_size: -3 } }", "2:15: Value out of range: -3"),
        ('layer { name: "abc\n }', "1:15: String missing ending quote"),
        ('layer { name: "x"', 'Expected "}"'),
        ("layer { clip_param { min: 1 } }", "required and not given: layer[0].clip_param.max"),
        (
            "layers { type: CONVOLUTON }",
            'LayerType has no value "CONVOLUTON"; it can be CONVOLUTION, DECONVOLUTION',
        ),
        ("layer { zzzqqq: 1 }", 'LayerParameter has no field "zzzqqq"'),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, message: str) -> None:
    with pytest.raises(SchemaError) as caught:
        schema.parse_net(text, file="f.prototxt")
    assert str(caught.value).startswith("f.prototxt:")
    assert message in str(caught.value)


def test_the_text_format_is_read_as_protobuf_reads_it() -> None:
    net = schema.parse_net(
        "# a comment\n"
        "name: 'a' \"b\"\n"
        "layer: { convolution_param { kernel_size: [3, 5] pad: 1 pad: 2 engine: 1 bias_term: f }"
        " phase: TEST; }\n"
        'layer < name: "n\\"q" loss_weight: .5e-1 >'
    )
    assert net.name == "ab"
    assert list(net.layer[0].convolution_param.kernel_size) == [3, 5]
    assert net.layer[0].convolution_param.engine == caffe_pb2.ConvolutionParameter.CAFFE
    assert not net.layer[0].convolution_param.bias_term
    assert net.layer[1].name == 'n"q'
    assert list(net.layer[1].loss_weight) == [pytest.approx(0.05)]


def test_unknown_fields_are_left_out_and_named_only_where_asked(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(
        'layer { name: "d"\n source_class: "com.yahoo" ".Lmdb" # which reader\n type: "Data"'
        ' cos { a: 1 b { c: "}" } } list: [1, 2]; x: -3 top: "data" }\n'
    )
    with pytest.raises(SchemaError, match="source_class"):
        schema.load_net(path)
    net, skipped = schema.load_net_tolerantly(path)
    assert [field.field for field in skipped] == ["source_class", "cos", "list", "x"]
    assert str(skipped[0]) == f"{path}:2:2: LayerParameter.source_class"
    assert (net.layer[0].name, net.layer[0].type, list(net.layer[0].top)) == ("d", "Data", ["data"])


def test_tolerance_ends_at_other_errors() -> None:
    with pytest.raises(SchemaError, match="it can be MAX"):
        schema.parse_tolerantly("layer { foo: 1 pooling_param { pool: MX } }", schema.NetParameter())


def test_a_file_that_is_no_text_or_not_there_is_a_model_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot read"):
        schema.load_net(tmp_path / "absent.prototxt")
    (tmp_path / "net.caffemodel").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ModelError, match="is not text"):
        schema.load_net(tmp_path / "net.caffemodel")


@pytest.mark.parametrize(
    ("message", "field", "number", "default"),
    [
        ("NetParameter", "layer", 100, None),
        ("NetParameter", "layers", 2, None),
        ("LayerParameter", "clip_param", 148, None),
        ("LayerParameter", "recurrent_param", 146, None),
        ("SolverParameter", "weights", 42, None),
        ("SolverParameter", "momentum2", 39, pytest.approx(0.999)),
        ("SolverParameter", "random_seed", 20, -1),
        ("PoolingParameter", "round_mode", 13, 0),
        ("BlobProto", "shape", 7, None),
        ("V1LayerParameter", "blob_share_mode", 1002, None),
        ("V0LayerParameter", "det_crop_mode", 59, "warp"),
        ("BatchNormParameter", "moving_average_fraction", 2, pytest.approx(0.999)),
        ("InfogainLossParameter", "axis", 2, 1),
    ],
)
def test_numbers_and_defaults_are_those_of_the_file_format(
    message: str, field: str, number: int, default: object
) -> None:
    descriptor = caffe_pb2.DESCRIPTOR.message_types_by_name[message].fields_by_name[field]
    assert descriptor.number == number
    if default is not None:
        assert descriptor.default_value == default
