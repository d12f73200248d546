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
- `MemoryData` does not transform the arrays it is given, and warns of a `transform_param`, as in Caffe.
- `HDF5Output` adds the rows of each forward pass; Caffe can write only one.
- With `force_backward`, layers that have no gradient for a bottom (labels, indices, `Accuracy`,
  `ArgMax`) give none, where Caffe aborts.
- A gradient set by hand on a top with a loss weight holds until the next forward pass.
- Settings in a layer that its type does not read are ignored, as in Caffe, but a warning
  (`UnusedSetting`) names them.
- A LevelDB is read with `paranoid_checks`: one whose log is torn is refused, where Caffe leaves records
  out.
- A snapshot without `snapshot_prefix` is named after the solver's file, wherever the net stands.
- Of 16 bits per channel in an encoded record the upper 8 count, where Caffe aborts.
- Where Caffe aborts the process, a `ModelError` or `DataError` says what is wrong and where. What Caffe
  checks, and the answer to each check, is in [CHECKS.md](CHECKS.md).
"""

FORKS = """\
Fields, values and layers of Caffe's forks are errors: one that names all of them, with file, line and
layer, and tells them from misspelt names. `sparknet.caffe.schema.load_net_tolerantly(path)` gives the net
and a list of what it left out; `sparknet caffe upgrade --tolerant SOURCE TARGET` writes that net. What a
fork says in other words is put in Caffe's and not left out: `ceil_mode: false` of a pooling is
`round_mode: FLOOR`, `hole` of a convolution is `dilation`. A value that changes no number
(`engine: MKL2017`) passes without a word.
"""

PYTHON_LAYERS = """\
A layer of `type: "Python"` names a module, found on `PYTHONPATH`, and a class in it. The module may say
`import caffe` (and `from caffe import layers`, `import caffe.io` ..): under `sparknet caffe` and in every
net that is built here the name `caffe` is then `sparknet.caffe`, unless something else has been imported as
`caffe` before. `sparknet.caffe.pycaffe.alias.install()` gives a script the same.

Building a net with such a layer runs the code of that module. Before you build a net that came from
elsewhere, look for `python_param` in it, and read the module.
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
            "| `.solverstate`, `.solverstate.h5` | yes | yes |",
            "| `.binaryproto` | yes | yes |",
            "| LMDB of Datum, plain and encoded | yes | no |",
            "| LevelDB of Datum, plain and encoded | yes | no |",
            "",
            "Prototxt is read as C++ protobuf reads it: its numbers, booleans, strings and white space;",
            "bytes that are not UTF-8 may stand in comments. Databases are read as they are when a net is",
            "made; pictures have the channels, and are turned by EXIF, as OpenCV gives them to Caffe.",
            "Damaged files are refused by name.",
            "",
            "## Nets of forks",
            "",
            FORKS,
            "## Layers in Python",
            "",
            PYTHON_LAYERS,
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
