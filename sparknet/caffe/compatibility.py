"""Writes COMPATIBILITY.md, the table of what there is of Caffe: ``python -m sparknet.caffe.compatibility``.

What it says comes from the layer classes themselves, so it cannot say more than they do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from sparknet.caffe.fillers import FILLERS
from sparknet.caffe.layer import Layer
from sparknet.caffe.layers import TYPES
from sparknet.caffe.schema.caffe_pb2 import LayerParameter

PAGE = Path(__file__).parent / "COMPATIBILITY.md"

DIFFERENCES = """\
- Random numbers are torch's: a seed gives the same net again here, but not the net it gives in Caffe.
- `SoftmaxWithLoss`, `SigmoidCrossEntropyLoss` and `InfogainLoss` take a second top (the probabilities), which
  BVLC Caffe cannot build at its last commit.
- STOCHASTIC pooling works on the CPU too; its padding is refused, as in Caffe.
- Where layers overwrite a blob in place, the gradients of the elementwise layers, `Softmax`, `LRN`, `MVN` and
  products are made of what is in the blobs afterwards, as in Caffe, even where that is not the derivative.
  A `Power` or `Log` in place has its derivative, where Caffe multiplies numbers that are none.
- A layer in place after a `Split`, `Reshape` or `Flatten` leaves their bottom as it was; Caffe's
  share one memory.
- Pooling with a stride beyond its window drops a last window that would begin outside the picture,
  where Caffe reads memory that is not its own.
- `Data` reads a LevelDB with the package `plyvel-ci`, which there is for Python 3.11 and 3.12.
- `Data` heeds `force_encoded_color`, which Caffe reads and forgets.
- `Data` skips up to `rand_skip` records at the start, as Caffe once did; Caffe now ignores the field.
- `MemoryData` does not transform the arrays it is given.
- `HDF5Output` adds the rows of each forward pass; Caffe can write only one.
- With `force_backward`, layers that have no gradient for a bottom (labels, indices, `Accuracy`,
  `ArgMax`) give none, where Caffe aborts.
- A gradient set by hand on a top with a loss weight holds until the next forward pass.
- Settings in a layer that its type does not read are ignored, as in Caffe, but a warning
  (`UnusedSetting`) names them.
- Fields of Caffe's forks are errors; `load_net_tolerantly` leaves them out and names them.
- Where Caffe aborts the process, a `ModelError` or `DataError` says what is wrong and where.
"""


def page() -> str:
    """The text of COMPATIBILITY.md."""
    return "\n".join(
        [
            "# What there is of Caffe",
            "",
            "Written by `python -m sparknet.caffe.compatibility`; a test compares it with the code.",
            "",
            f"## Layer types: {len(TYPES)}",
            "",
            'All types of BVLC Caffe. "Read" are the settings that act as in Caffe; in brackets',
            "those without influence on any number here.",
            "",
            "| type | bottoms | tops | read |",
            "|---|---|---|---|",
            *(_row(TYPES[name]) for name in sorted(TYPES, key=str.lower)),
            "",
            "Besides, all layers read `name`, `type`, `bottom`, `top`, `phase`, `loss_weight`, `param`,",
            "`blobs`, `propagate_down`, `include` and `exclude`.",
            "",
            f"Fillers: {', '.join(f'`{name}`' for name in FILLERS)}.",
            "",
            "## Files",
            "",
            "| file | read | written |",
            "|---|---|---|",
            "| net and solver prototxt, of today, V1 (2014) and V0 (2013) | yes | of today |",
            "| `.caffemodel`, of today, V1 and V0, with blobs of 4 axes | yes | of today |",
            "| `.caffemodel.h5` | yes | yes |",
            "| `.binaryproto` | yes | yes |",
            "| LMDB of Datum, plain and encoded | yes | no |",
            "| LevelDB of Datum, plain and encoded | yes | no |",
            "",
            "## Where it differs",
            "",
            DIFFERENCES,
        ]
    )


def _row(layer: type[Layer]) -> str:
    return f"| {layer.type} | {layer.bottom_arity} | {layer.top_arity} | {'; '.join(_settings(layer))} |"


def _settings(layer: type[Layer]) -> Iterator[str]:
    for name in layer.messages:
        message = LayerParameter.DESCRIPTOR.fields_by_name[name].message_type
        assert isinstance(message, Descriptor)
        read = [f"`{field.name}`" for field in message.fields if not _is_hint(layer, name, field)]
        yield f"{name}: {', '.join(read)}" if read else name
    for field, why in layer.refused.items():
        yield f"`{field}` is refused: {why}"
    if layer.hints:
        yield "(" + "; ".join(f"`{field}`: {why}" for field, why in layer.hints.items()) + ")"


def _is_hint(layer: type[Layer], message: str, field: FieldDescriptor) -> bool:
    return field.name in hinted(layer, message)


def hinted(layer: type[Layer], message: str) -> set[str]:
    """Names of the fields of ``message`` (as ``data_param``) that ``layer`` declares to be without influence.

    A hint is "field", "field, field", or "field, field of message"; the first message is meant by default.
    """
    names: set[str] = set()
    for hint in layer.hints:
        fields, _, of = hint.partition(" of ")
        if hint == message or message in fields.split(", "):
            names |= set(_fields(message))
        elif (of or layer.messages[0]) == message:
            names |= set(fields.split(", "))
    return names


def _fields(message: str) -> Iterable[str]:
    descriptor = LayerParameter.DESCRIPTOR.fields_by_name[message].message_type
    assert isinstance(descriptor, Descriptor)
    return descriptor.fields_by_name


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
