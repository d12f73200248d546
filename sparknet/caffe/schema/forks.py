"""Fields, values and layers of Caffe's forks, which BVLC Caffe does not have, told from misspelt names.

A name close to one that is known is taken for misspelt. All others are of a fork: which is said, with file,
line and layer, of all of them at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor

from sparknet.caffe.schema import caffe_pb2
from sparknet.errors import ModelError, SchemaError

_ADVICE = (
    "sparknet.caffe.schema.load_net_tolerantly, or sparknet caffe upgrade --tolerant, reads a net without a "
    "fork's fields and names what it left out; a fork's layer can be written as a layer of type \"Python\""
)
_Layer = tuple[str, str, int, int]  # name, type, line, column
_Row = tuple[int, int, str, bool]  # line, column, sentence, whether it is a fork's


@dataclass(frozen=True, kw_only=True)
class UnknownField:
    """A field, or the ``value`` of one, that BVLC Caffe does not know: where it stood, and in which layer."""

    message: str
    field: str
    file: str
    line: int
    column: int
    layer: str = ""
    value: str = ""

    def __str__(self) -> str:
        value = f": {self.value}" if self.value else ""
        return f"{self.file or '<text>'}:{self.line}:{self.column}: {self.message}.{self.field}{value}"


@dataclass(frozen=True, kw_only=True)
class Equivalent:
    """The field of BVLC Caffe that says the same as one of a fork: ``values`` from the fork's to Caffe's."""

    name: str
    values: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    takes_any: bool = False


_ROUND = caffe_pb2.PoolingParameter
EQUIVALENTS: Mapping[tuple[str, str], Equivalent] = {
    ("PoolingParameter", "ceil_mode"): Equivalent(
        name="round_mode", values=MappingProxyType({0: _ROUND.FLOOR, 1: _ROUND.CEIL})
    ),
    ("ConvolutionParameter", "hole"): Equivalent(name="dilation", takes_any=True),  # DeepLab's word for it
}

_TYPES = """
    AbsVal Accuracy ArgMax BatchNorm BatchReindex Bias BNLL Clip Concat ContrastiveLoss Convolution
    Crop Data Deconvolution Dropout DummyData Eltwise ELU Embed EuclideanLoss Exp Filter Flatten
    HDF5Data HDF5Output HingeLoss Im2col ImageData InfogainLoss InnerProduct Input Log LRN LSTM
    LSTMUnit MemoryData MultinomialLogisticLoss MVN Parameter Pooling Power PReLU Python Reduction
    ReLU Reshape RNN Scale Sigmoid SigmoidCrossEntropyLoss Silence Slice Softmax SoftmaxWithLoss
    Split SPP Swish TanH Threshold Tile WindowData
"""
BVLC_TYPES = frozenset(_TYPES.split())
"""The layer types of BVLC Caffe."""

FORK_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("AnnotatedData", "DetectionEvaluate", "DetectionOutput", "MultiBoxLoss"), "SSD"),
    **dict.fromkeys(("Normalize", "Permute", "PriorBox", "VideoData"), "SSD"),
    **dict.fromkeys(("ROIPooling", "SmoothL1Loss"), "Fast R-CNN"),
    **dict.fromkeys(("PSROIPooling", "BoxAnnotatorOHEM", "SmoothL1LossOHEM", "SoftmaxWithLossOHEM"), "R-FCN"),
    **dict.fromkeys(("BN", "Upsample", "DenseImageData"), "SegNet"),
    **dict.fromkeys(("Interp", "ImageSegData", "MatRead", "MatWrite", "DenseCRF", "SegAccuracy"), "DeepLab"),
    **dict.fromkeys(("Correlation", "FlowWarp", "Resample", "ChannelNorm", "DataAugmentation"), "FlowNet"),
    **dict.fromkeys(("CPMData", "ImResize", "Nms"), "OpenPose"),
    **dict.fromkeys(("Convolution3D", "Pooling3D"), "C3D"),
    **dict.fromkeys(("ConvolutionDepthwise", "DepthwiseConvolution"), "MobileNet-Caffe"),
    **dict.fromkeys(("Region", "RegionLoss", "Reorg", "EvalDetection"), "caffe-yolo"),
    "Axpy": "SENet",
    "CenterLoss": "caffe-face",
    "CoSData": "CaffeOnSpark",
    "DetectNetTransformation": "NVCaffe",
    "L1Loss": "NVCaffe",
    "ReLU6": "MobileNet-Caffe",
    "ShuffleChannel": "ShuffleNet",
    "SpatialTransformer": "a spatial transformer network",
}
"""Layer types of well-known forks, and which these are."""


def is_typo_of(unknown: UnknownField) -> str:
    """The known name that was probably meant, or ""."""
    if unknown.value:
        return typo_of(unknown.value, _enum(unknown).values_by_name)
    return typo_of(unknown.field, _descriptor(unknown.message).fields_by_name)


def typo_of(name: str, known: Iterable[str]) -> str:
    """The one of ``known`` that ``name`` is a slip of the fingers for, or "".

    One letter may differ, in names of eight letters or more two; but the first letter and all digits are the
    same, and neither is the other with an ending: ``Permute`` is not ``Parameter``, nor ``ReLU6`` ``ReLU``.
    """
    names = list(known)
    for other in names:
        if other.lower() == name.lower():
            return other
    allowed = 2 if len(name.removesuffix("_param")) >= 8 else 1
    near = [
        (distance, -difflib.SequenceMatcher(None, name.lower(), other.lower()).ratio(), other)
        for other in names
        if _akin(name, other) and (distance := _distance(name.lower(), other.lower(), allowed)) <= allowed
    ]
    return min(near)[2] if near else ""


def has_no_influence(message: Any, name: str) -> bool:
    """Whether a value of this field changes no number: one engine serves all, and few fillers have a norm."""
    if name == "engine":
        return True
    if name == "variance_norm":
        return message.type not in ("xavier", "msra")
    return False


def refusal(unknown: Sequence[UnknownField], file: str, layers: Sequence[_Layer] = ()) -> SchemaError:
    """One error for all that is not known; ``layers`` are all of the text, forks' or not."""
    strange = [layer for layer in layers if layer[1] and layer[1] not in BVLC_TYPES]
    typos = [is_typo_of(one) for one in unknown]
    if len(unknown) == 1 and typos[0] and not strange:
        (one,) = unknown
        return SchemaError(_what(one, typos[0]), file=file, line=one.line, column=one.column)
    rows = [_type_row(layer, BVLC_TYPES) for layer in strange]
    rows += [
        (one.line, one.column, _in_layer(one.layer) + _what(one, typo), not typo)
        for one, typo in zip(unknown, typos, strict=True)
    ]
    rows.sort(key=lambda row: row[:2])
    return SchemaError(_list_of(rows, file), file=file, line=rows[0][0], column=rows[0][1])


def type_refusal(
    layers: Sequence[tuple[str, str]],
    known: Iterable[str],
    *,
    file: str = "",
    places: Mapping[tuple[str, str], tuple[int, int]] = MappingProxyType({}),
) -> ModelError:
    """One error for all layers, (name, type), of types not ``known``; ``places`` has lines and columns."""
    names = list(known)
    rows = [_type_row((*layer, *places.get(layer, (0, 0))), names) for layer in layers]
    message = _list_of(rows, file)
    if not file:
        return ModelError(message)
    return SchemaError(message, file=file, line=rows[0][0], column=rows[0][1])


def _type_row(layer: _Layer, known: Iterable[str]) -> _Row:
    name, kind, line, column = layer
    typo = "" if kind in FORK_TYPES else typo_of(kind, known)
    hint = f'; the nearest is "{typo}"' if typo else ""
    fork = f" (it is of {FORK_TYPES[kind]})" if kind in FORK_TYPES else ""
    return line, column, f'layer "{name}": there is no type "{kind}"{hint}{fork}', not typo


def _list_of(rows: Sequence[_Row], file: str) -> str:
    """Sentences with their places, the first without, and what they have in common."""
    (_, _, first, _), *rest = rows
    lines = [first]
    lines += [f"{_place(file, line, column)}{what}" for line, column, what, _ in rest]
    if forks := sum(is_fork for *_, is_fork in rows):
        lines.append(f"{_share(forks, len(rows))} not of BVLC Caffe but of a fork of it. {_ADVICE}")
    return "\n  ".join(lines)


def _share(forks: int, count: int) -> str:
    if forks < count:
        return f"{forks} of these {count} {'is' if forks == 1 else 'are'}"
    return "this is" if count == 1 else f"these {count} are"


def _place(file: str, line: int, column: int) -> str:
    return f"{file or '<text>'}:{line}:{column}: " if line else ""


def _in_layer(name: str) -> str:
    return f'layer "{name}": ' if name else ""


def _what(unknown: UnknownField, typo: str) -> str:
    if not unknown.value:
        hint = f'; the nearest is "{typo}"' if typo else _meaning(unknown)
        return f'{unknown.message} has no field "{unknown.field}"{hint}'
    enum = _enum(unknown)
    names = list(enum.values_by_name)
    close = difflib.get_close_matches(unknown.value.upper(), names, 3, 0.5) if typo else []
    values = ", ".join(close if len(names) > 12 and close else names[:12])
    return f'{enum.name} has no value "{unknown.value}"; it can be {values}'


def _meaning(unknown: UnknownField) -> str:
    equivalent = EQUIVALENTS.get((unknown.message, unknown.field))
    return f" (its word for {equivalent.name})" if equivalent else ""


def _descriptor(name: str) -> Descriptor:
    descriptor = caffe_pb2.DESCRIPTOR.message_types_by_name[name]
    assert isinstance(descriptor, Descriptor)
    return descriptor


def _enum(unknown: UnknownField) -> EnumDescriptor:
    enum = _descriptor(unknown.message).fields_by_name[unknown.field].enum_type
    assert enum is not None
    return enum


def _akin(name: str, other: str) -> bool:
    """Whether one could be the other misspelt at all."""
    mine, theirs = name.lower(), other.lower()
    digits = [[letter for letter in word if letter.isdigit()] for word in (mine, theirs)]
    has_ending = abs(len(mine) - len(theirs)) > 1 and (mine.startswith(theirs) or theirs.startswith(mine))
    return mine[:1] == theirs[:1] and digits[0] == digits[1] and not has_ending


def _distance(one: str, other: str, most: int) -> int:
    """How many letters are inserted, left out, replaced or swapped with the next; ``most + 1`` for more."""
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        fresh = [i]
        for j, against in enumerate(other, 1):
            cost = min(row[j] + 1, fresh[j - 1] + 1, row[j - 1] + (letter != against))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == against:
                cost = min(cost, before[j - 2] + 1)
            fresh.append(cost)
        before, row = row, fresh
    return row[-1]
