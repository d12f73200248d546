"""The reader of prototxt against C++ protobuf itself, whose ``protoc --encode`` reads the same format."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sparknet.caffe import schema
from sparknet.caffe.schema.caffe_pb2 import NetParameter
from sparknet.errors import SchemaError

ROOT = Path(__file__).parents[3]
PROTOC = [sys.executable, "-m", "grpc_tools.protoc", "-I."]
NET = ["--encode=sparknet.caffe.NetParameter", "sparknet/caffe/schema/caffe.proto"]

FLOATS = (
    '0.5', '- 0.5', '-\n0.5', '5', '5f', '1.5F', '1.', '.5e+1', '1e3', '-inf', 'INFINITY', 'nan',
    '1e999', '18446744073709551616', '0', '+5', '1_000', '0b11', '0o17', 'inff', '-inff', 'nanf', '1e',
    '1e+', '1.2.3', '0x1', '010', '00.5', '09', '1.5x', '"5"', '--5', '- -5', 'true', '1 000', '0x',
    '1e5.5', '. 5', '1e-400', '-0', '00', '5.f', '1.e5', 'infinityy', 'Inf', '-Nan', '0f', '0.f', '007',
    '1E5', '1e05', '08.5', '0e0', '0x1f',
)  # fmt: skip
INTEGERS = (
    '5', '- 5', '0x1F', '-0X10', '017', '0', '-0', '00', '5.0', '5f', '1e2', '+5', '1_000', '08', '0x',
    '2147483648', '-2147483648', '-2147483649', 'true', '-0x80000000', '0xFFFFFFFF', '-010',
)  # fmt: skip
BOOLEANS = (
    'true', 'True', 't', '1', '0x1', '01', '0X01', '001', 'false', 'False', 'f', '0', '0x0', '00',
    'TRUE', 'yes', '2', '-1', '- 0', '1.0', '"true"', '0b1', 'T', '-0',
)  # fmt: skip
STRINGS = (
    "'a\\tb\\x41\\101\\u00fc\\U0001F600\\''", '"it\'s" \' "and" \'', '"a\nb"', '"a\\q"', '"\\xg"',
    '"\\X41"', '"\\u00f"', '"\\8"', '"\\?"', '"\\400"', '\'a"', '"\\U0011FFFF"', "'a' # c\n 'b'",
)  # fmt: skip
MESSAGES = (
    "layer { name: 'a' } name: 'n',", "name: 'n';", "name: 'n',,", 'layer: { }', 'layer < >',
    'layer { >', 'layer: [{}, <>]', 'layer [{}]', "layer { top: ['a', 'b',] }", 'layer { top: [] }',
    "layer { top: ['a' 'b'] }", "name 'n'", '{}', '', '# only', "name: 'n' # c",
    "name:'n'force_backward:1", 'layer { propagate_down: [true, false 1] }',
    "layer { top: 'a' top: 'b'; }", 'layer{phase:1}', 'layer{phase: 2}', 'layer{phase:-1}',
    "layer{phase: 'TRAIN'}", 'layer { phase: 0x1 }', "layer{bottom:'x'}layer{}", "name:'a'name:'b'",
    'state{}state{}', 'input_dim: 1 input_dim: [2,3]', "name: 'a';force_backward: 1,",
    "layer { name: 'a'\x0c\x0b\r}", "name: 'n' \x00", "name: \x85'n'", "name: 'a.b'.5",
    'layer { loss_weight: 1loss_weight: 2}', 'layer { loss_weight: 1,loss_weight: 2}',
    'force_backward : true',
)  # fmt: skip

TEXTS = (
    *(f"layer {{ transform_param {{ scale: {text} }} }}" for text in FLOATS),
    *(f"layer {{ concat_param {{ axis: {text} }} }}" for text in INTEGERS),
    *(f"force_backward: {text}" for text in BOOLEANS),
    *(f"name: {text}" for text in STRINGS),
    *MESSAGES,
)


def of_cpp(text: str) -> NetParameter | None:
    """What C++ protobuf makes of ``text``; None if it refuses it."""
    ran = subprocess.run([*PROTOC, *NET], cwd=ROOT, input=text.encode(), capture_output=True, timeout=60)
    return NetParameter.FromString(ran.stdout) if ran.returncode == 0 else None


def of_ours(text: str) -> NetParameter | None:
    try:
        return schema.parse(text, NetParameter())
    except SchemaError:
        return None


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_read_or_refused_as_by_cpp(text: str) -> None:
    pytest.importorskip("grpc_tools")
    assert str(of_ours(text)) == str(of_cpp(text))  # as text: NaN is not equal to itself
