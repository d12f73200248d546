"""Prototxt is read as C++ protobuf reads it: what is a number, a word, a string, a line."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest
from google.protobuf import text_format

from sparknet.caffe import schema
from sparknet.caffe.schema import caffe_pb2
from sparknet.caffe.schema.caffe_pb2 import NetParameter
from sparknet.errors import ModelError, SchemaError

MODELS = sorted((Path(__file__).parents[3] / "apps" / "models").glob("*.prototxt"))


def scale(value: str) -> float:
    net = schema.parse_net(f"layer {{ transform_param {{ scale: {value} }} }}")
    return net.layer[0].transform_param.scale


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", 0.5),
        ("- 0.5", -0.5),
        ("-\n0.5", -0.5),
        ("-# half\n.5", -0.5),
        ("5", 5.0),
        ("5f", 5.0),
        ("1.5F", 1.5),
        ("1.", 1.0),
        (".5e+1", 5.0),
        ("1e3", 1000.0),
        ("-inf", -math.inf),
        ("INFINITY", math.inf),
        ("1e999", math.inf),
        ("18446744073709551616", 18446744073709551616.0),
        ("0", 0.0),
        ("0.0", 0.0),
    ],
)
def test_a_decimal_number_is_what_cpp_takes_for_one(text: str, value: float) -> None:
    assert scale(text) == value


def test_nan_is_a_number_of_any_case_and_sign() -> None:
    assert math.isnan(scale("nan"))
    assert math.isnan(scale("- NaN"))


@pytest.mark.parametrize(
    "text",
    [
        *("+5", "+0.5", "1_000", "0b11", "0o17", "inff", "-inff", "nanf", "infinityy", "1e", "1e+", "1.2.3"),
        *(
            "0x1",
            "0x1p3",
            "010",
            "00.5",
            "09",
            "1.5x",
            "5kernel",
            '"5"',
            "--5",
            "- -5",
            "true",
            "5.f.",
            "1,5",
        ),
        *("1 000", "1,5", "½", "５", "0x", "1e5.5", ". 5"),
    ],
)
def test_what_is_no_decimal_number_in_cpp_is_refused(text: str) -> None:
    with pytest.raises(SchemaError, match=r"^f\.prototxt:1:\d+: "):
        schema.parse_net(f"layer {{ transform_param {{ scale: {text} }} }}", file="f.prototxt")


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("- 5", -5), ("0x1F", 31), ("-0X10", -16), ("017", 15), ("0", 0), ("-0", 0), ("00", 0)],
)
def test_a_whole_number_may_be_hexadecimal_or_octal(text: str, value: int) -> None:
    assert (
        schema.parse_net(f"layer {{ concat_param {{ axis: {text} }} }}").layer[0].concat_param.axis == value
    )


@pytest.mark.parametrize(
    "text",
    [
        "5.0",
        "5f",
        "1e2",
        "+5",
        "1_000",
        "0b1",
        "08",
        "0x",
        "0xg",
        "2147483648",
        "-2147483649",
        "true",
        "five",
    ],
)
def test_what_is_no_whole_number_in_cpp_is_refused(text: str) -> None:
    with pytest.raises(SchemaError):
        schema.parse_net(f"layer {{ concat_param {{ axis: {text} }} }}")


@pytest.mark.parametrize("text", ["true", "True", "t", "1", "0x1", "01", "0X01", "001"])
def test_what_cpp_takes_for_true_is_true(text: str) -> None:
    assert schema.parse_net(f"force_backward: {text}").force_backward


@pytest.mark.parametrize("text", ["false", "False", "f", "0", "0x0", "00"])
def test_what_cpp_takes_for_false_is_false(text: str) -> None:
    net = schema.parse_net(f"force_backward: {text}")
    assert net.HasField("force_backward")
    assert not net.force_backward


@pytest.mark.parametrize("text", ["TRUE", "yes", "2", "-1", "- 0", "1.0", '"true"', "0b1", "T", "on"])
def test_what_cpp_takes_for_no_boolean_is_refused(text: str) -> None:
    with pytest.raises(SchemaError):
        schema.parse_net(f"force_backward: {text}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"'a\tb\x41\101\u00fc\U0001F600\''", "a\tbAAü😀'"),
        ('"it\'s" \' "and" \' # joined\n"more"', 'it\'s "and" more'),
        ('"\\303\\274"', "ü"),
        ('"Zürich\x0b"', "Zürich\x0b"),
    ],
)
def test_strings_are_unescaped_and_joined(text: str, value: str) -> None:
    assert schema.parse_net(f"name: {text}").name == value


@pytest.mark.parametrize(
    ("text", "column"), [(r'"a\q"', 9), ('"a\nb"', 7), ("'a\"", 7), (r'"\xg"', 8), (r'"\377"', 7)]
)
def test_a_string_that_is_none_is_refused_at_its_place(text: str, column: int) -> None:
    with pytest.raises(SchemaError) as caught:
        schema.parse_net(f"name: {text}")
    assert (caught.value.line, caught.value.column) == (1, column)


@pytest.mark.parametrize("space", ["\f", "\v", "\r", "\r\n", "\t", "\n"])
def test_the_white_space_of_cpp_separates(space: str) -> None:
    assert schema.parse_net(f"name:{space}'n'{space}force_backward{space}:{space}true").name == "n"


@pytest.mark.parametrize("space", ["\u00a0", "\u2028", "\x85", "\x1c", "\x1f", "\ufeff", "\u3000"])
def test_other_white_space_is_refused_outside_of_comments_and_strings(space: str) -> None:
    assert schema.parse_net(f"# a{space}b\nname: 'a{space}b'").name == f"a{space}b"
    with pytest.raises(SchemaError, match=r"f\.prototxt:2:11"):
        schema.parse_net(f"#\nname: 'a' {space}", file="f.prototxt")


@pytest.mark.parametrize("sign", ["\f", "\v", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029", "\r"])
def test_only_a_line_feed_ends_a_line(sign: str) -> None:
    """Else what is left out of a fork's net would not be what was meant."""
    text = (
        f'# one{sign}comment\n# and{sign}{sign}another\nlayer {{ name: "a" fork: 3 top: "t" type: "ReLU" }}\n'
    )
    net, skipped = schema.parse_tolerantly(text, caffe_pb2.NetParameter())
    assert (net.layer[0].name, list(net.layer[0].top), net.layer[0].type) == ("a", ["t"], "ReLU")
    assert [(field.field, field.line, field.column) for field in skipped] == [("fork", 3, 19)]


def test_comments_need_not_be_utf8(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_bytes(b"# f\xfcr Z\xfcrich \xff\xfe\nname: 'n' # \x80\n")
    assert schema.load_net(path).name == "n"
    path.write_bytes(b"\n  name: 'Z\xfcrich'")
    with pytest.raises(SchemaError, match=r":2:9: name is not UTF-8: b'Z\\xfcrich'"):
        schema.load_net(path)


def test_separators_may_follow_a_field_and_lists_may_be_empty() -> None:
    net = schema.parse_net("name: 'n', force_backward: 1; layer { top: [] top: ['a', 'b'] };layer: [{}, <>],")
    assert (len(net.layer), list(net.layer[0].top)) == (3, ["a", "b"])


@pytest.mark.parametrize(
    "text",
    [
        *(
            "layer { top: ['a' 'b' 'c' }",
            "name 'n'",
            "name:: 'n'",
            "layer { ] }",
            *("layer { top: ['a',, 'b'] }", "layer { top: ['a',] }"),
        ),
        *(
            "name: 'n',,",
            "{}",
            "}",
            "layer <}",
            "layer: 5",
            "name: {}",
            "1: 2",
            "name: n",
            "name: ['n']",
            "'n'",
        ),
    ],
)
def test_what_does_not_parse_is_refused(text: str) -> None:
    with pytest.raises(SchemaError):
        schema.parse_net(text)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_what_both_readers_know_is_read_as_pythons_protobuf_reads_it(path: Path) -> None:
    text = path.read_text()
    kind = caffe_pb2.SolverParameter if path.stem.endswith("solver") else caffe_pb2.NetParameter
    expected = text_format.Parse(text, kind())
    assert schema.parse(text, kind()) == expected
    written = text_format.MessageToString(expected)
    assert schema.parse(written, kind()) == expected
    assert schema.parse(text_format.MessageToString(expected, as_one_line=True), kind()) == expected


def test_time_grows_with_the_text_not_with_what_is_unknown_in_it() -> None:
    layer = 'layer { name: "a" type: "ReLU" fork: 1 bottom: "x" top: "x" }\n'
    start = time.perf_counter()
    _, skipped = schema.parse_tolerantly(layer * 2000, caffe_pb2.NetParameter())
    assert len(skipped) == 2000
    assert time.perf_counter() - start < 10  # each start afresh of the older reader took 0.05 s


def test_a_caffemodel_without_zeros_is_told_from_text(tmp_path: Path) -> None:
    path = tmp_path / "w.caffemodel"
    path.write_bytes(NetParameter(layer=[{"name": "conv1", "type": "Convolution"}]).SerializeToString())
    with pytest.raises(ModelError, match=r"w\.caffemodel is not text: a \.caffemodel is given"):
        schema.load_net(path)
    path.write_bytes(b"name: 'n' \xfc")
    with pytest.raises(SchemaError, match=r":1:11: byte 0xfc can only stand in a comment or a string"):
        schema.load_net(path)
