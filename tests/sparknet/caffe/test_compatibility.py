"""The compatibility page is current, and no setting of a layer type is silently ignored."""

from __future__ import annotations

import inspect
import re

import pytest

from sparknet.caffe import compatibility
from sparknet.caffe.layers import TYPES
from sparknet.caffe.layers import kernel as kernel_module
from sparknet.caffe.layers import transform as transform_module
from sparknet.caffe.schema.caffe_pb2 import LayerParameter

CAFFE_TYPES = """
AbsVal Accuracy ArgMax BatchNorm BatchReindex Bias BNLL Clip Concat ContrastiveLoss Convolution Crop Data
Deconvolution Dropout DummyData Eltwise ELU Embed EuclideanLoss Exp Filter Flatten HDF5Data HDF5Output
HingeLoss Im2col ImageData InfogainLoss InnerProduct Input Log LRN LSTM LSTMUnit MemoryData
MultinomialLogisticLoss MVN Parameter Pooling Power PReLU Python Reduction ReLU Reshape RNN Scale Sigmoid
SigmoidCrossEntropyLoss Silence Slice Softmax SoftmaxWithLoss Split SPP Swish TanH Threshold Tile
WindowData
"""


def test_the_page_says_what_the_code_has() -> None:
    hint = "python -m sparknet.caffe.compatibility"
    assert compatibility.PAGE.read_text(encoding="utf-8") == compatibility.page(), hint


def test_all_layer_types_of_caffe_are_there() -> None:
    assert sorted(TYPES) == sorted(CAFFE_TYPES.split())


@pytest.mark.parametrize("name", sorted(TYPES))
def test_every_setting_is_read_or_declared_to_be_without_influence(name: str) -> None:
    layer = TYPES[name]
    modules = {inspect.getmodule(base) for base in layer.__mro__ if base.__module__.startswith("sparknet")}
    code = "".join(
        inspect.getsource(module) for module in (*modules, kernel_module, transform_module) if module
    )
    for message in layer.messages:
        fields = LayerParameter.DESCRIPTOR.fields_by_name[message].message_type.fields
        without_influence = compatibility.hinted(layer, message)
        for field in fields:
            is_read = re.search(rf"\b{field.name}\b|\b{_stem(field.name)}\b", code)
            assert is_read or field.name in without_influence, f"{message}.{field.name}"


def _stem(field: str) -> str:
    """``kernel_h`` is read through ``kernel_size``, ``pad_h`` through ``pad``."""
    base = re.sub(r"_[hw]$", "", field)
    return "kernel_size" if base == "kernel" else base
