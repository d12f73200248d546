"""Weights on disk, as Caffe writes them: ``.caffemodel`` (binary), ``.caffemodel.h5`` and ``.binaryproto``.

Weights go to layers of the same name. Layers that only the file or only the net has are left alone; another
number of blobs, or another shape, is an error. Files of all ages are read: those before 2015 give a blob
four axes, and fit a blob of fewer if the leading ones are 1.

Source: ``Net::CopyTrainedLayersFrom``, ``Net::ToProto`` and ``Net::ToHDF5`` of BVLC Caffe.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from google.protobuf.message import DecodeError
from torch import Tensor

from sparknet.caffe.blob import Blob
from sparknet.caffe.hdf5 import DAMAGED, array
from sparknet.caffe.schema import caffe_pb2, weights_pb2
from sparknet.caffe.wire import Piece, field, floats
from sparknet.errors import ModelError
from sparknet.weights import Shape

if TYPE_CHECKING:
    from sparknet.caffe.net import Net

Weights = dict[str, "list[Stored]"]

_LAYER = caffe_pb2.NetParameter.LAYER_FIELD_NUMBER
_BLOBS = caffe_pb2.LayerParameter.BLOBS_FIELD_NUMBER
_DATA, _DIFF = caffe_pb2.BlobProto.DATA_FIELD_NUMBER, caffe_pb2.BlobProto.DIFF_FIELD_NUMBER


@dataclass(frozen=True)
class Stored:
    """A blob of a file, float32; ``is_legacy`` if it gives its shape as num, channels, height, width."""

    data: Tensor
    is_legacy: bool = False
    index: int = 0

    def fits(self, shape: Shape) -> bool:
        """Whether the blob can fill one of ``shape``."""
        mine = tuple(self.data.shape)
        if not self.is_legacy:
            return mine == shape
        return len(shape) <= 4 and mine == (1,) * (4 - len(shape)) + shape


# ---- whole nets


def load(net: Net, path: str | Path) -> list[str]:
    """Copy the weights of a file into ``net``; the names of the layers that got some.

    Raises ModelError for a file that is no weight file or is cut short, and for shapes that do not fit.
    """
    return copy(net, read(path), source=str(path))


def copy(net: Net, weights: Mapping[str, Sequence[Stored]], *, source: str = "the weights") -> list[str]:
    """Copy ``weights`` into the layers of ``net`` that have their names; the names of these layers."""
    for name, stored in weights.items():  # look at everything first: a net is filled wholly or not at all
        if name in net.params and stored:
            _check_fit(name, net.params[name], stored, source)
    copied = [name for name, stored in weights.items() if name in net.params and stored]
    for name in copied:
        for blob in weights[name]:
            target = net.params[name][blob.index].data
            target.copy_(blob.data.reshape(target.shape))
    return copied


def read(path: str | Path) -> Weights:
    """The weights of a file by layer name, in the file's order. ``.h5`` names mean HDF5."""
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"there is no weight file {path}")
    weights = _read_hdf5(path) if _is_hdf5(path) else _read_binary(path)
    if not weights:
        raise ModelError(f"{path} holds no layers: it is not a Caffe weight file")
    return weights


def save(net: Net, path: str | Path, *, with_diffs: bool = False, hdf5: bool = False) -> None:
    """Write the net and its weights, as HDF5 if told so or ``path`` ends in ``.h5``; ``with_diffs`` too.

    The file is there wholly or not at all.
    """
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if hdf5 or path.suffix == ".h5":
            _write_hdf5(net, partial, with_diffs)
        else:
            with partial.open("wb") as file:
                file.writelines(_pieces(net, with_diffs))
        partial.replace(path)
    except OSError as error:
        raise ModelError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)


# ---- single blobs: mean images and the like


def read_blob(path: str | Path) -> Tensor:
    """The array of a ``.binaryproto`` file, float32."""
    return decode_blob(_parsed(weights_pb2.Blob(), Path(path)), str(path)).data


def write_blob(array: Tensor, path: str | Path) -> None:
    """Write ``array`` (float32) as a ``.binaryproto`` file."""
    Path(path).write_bytes(encode_blob(array).SerializeToString())


def decode_blob(blob: weights_pb2.Blob, where: str, index: int = 0) -> Stored:
    """The array of a message. Raises ModelError, beginning with ``where``, if data and shape do not agree."""
    values = _values(blob)
    is_legacy = not blob.HasField("shape") and any(
        blob.HasField(name) for name in ("num", "channels", "height", "width")
    )
    shape = tuple(blob.shape.dim)
    if is_legacy:
        shape = (blob.num, blob.channels, blob.height, blob.width)
    if values.size != math.prod(shape) or min(shape, default=0) < 0:
        raise ModelError(f"{where}: {values.size} numbers for a blob of shape {shape}: the file is damaged")
    try:
        return Stored(torch.from_numpy(values.reshape(shape)), is_legacy, index)
    except (
        ValueError,
        RuntimeError,
    ):  # no numbers at all, or too many axes
        raise ModelError(f"{where}: a blob of shape {shape} cannot be: the file is damaged") from None


def encode_blob(data: Tensor, diff: Tensor | None = None) -> weights_pb2.Blob:
    """A message with ``data`` and, if given, ``diff``, as float32."""
    blob = weights_pb2.Blob(data=_bytes(data))
    blob.shape.dim.extend(data.shape)
    if diff is not None:
        blob.diff = _bytes(diff)
    return blob


# ---- binary


def _read_binary(path: Path) -> Weights:
    net = _parsed(weights_pb2.Net(), path)
    weights: Weights = {}
    for name, blobs in _layers(net):
        if blobs or name not in weights:
            where = f'{path}: layer "{name}"'
            weights[name] = [decode_blob(blob, f"{where} blob {i}", i) for i, blob in enumerate(blobs)]
    return weights


def _layers(net: weights_pb2.Net) -> Iterator[tuple[str, Sequence[weights_pb2.Blob]]]:
    for layer in net.layer:
        yield layer.name, layer.blobs
    for old in net.layers:
        yield (old.layer.name, old.layer.blobs) if old.HasField("layer") else (old.name, old.blobs)


def _parsed(message: Any, path: Path) -> Any:
    try:
        data = path.read_bytes()
        message.ParseFromString(data)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from None
    except DecodeError:
        raise ModelError(
            f"{path} ({len(data):,} bytes) is not in Caffe's binary format, or is cut short: fetch it again"
        ) from None
    return message


def _values(blob: weights_pb2.Blob) -> np.ndarray[Any, np.dtype[np.float32]]:
    if blob.HasField("double_data"):
        return np.frombuffer(blob.double_data, "<f8").astype(np.float32)
    if blob.HasField("data"):
        if len(blob.data) % 4:
            raise ModelError("a blob ends within a number: the file is damaged")
        return np.frombuffer(bytearray(blob.data), "<f4")
    # numbers one by one, not packed: what protobuf 1 wrote
    unpacked = caffe_pb2.BlobProto.FromString(blob.SerializeToString())
    return np.array(unpacked.data or unpacked.double_data, np.float32)


def _bytes(tensor: Tensor) -> bytes:
    array = tensor.detach().cpu().contiguous().to(torch.float32).numpy()
    return (array if sys.byteorder == "little" else array.astype("<f4")).tobytes()


def _pieces(net: Net, with_diffs: bool) -> Iterator[Piece]:
    """The net as Caffe's binary NetParameter: a name and layers, each a LayerParameter with its blobs."""
    yield caffe_pb2.NetParameter(name=net.name).SerializeToString()
    for layer in net.layers:
        blobs = [
            piece for blob in layer.blobs for piece in field(_BLOBS, list(_blob_pieces(blob, with_diffs)))
        ]
        yield from field(_LAYER, [_without_blobs(layer.param), *blobs])


def _blob_pieces(blob: Blob, with_diffs: bool) -> Iterator[Piece]:
    message = weights_pb2.Blob()
    message.shape.dim.extend(blob.shape)
    yield message.SerializeToString()
    yield from floats(_DATA, blob.data)
    if with_diffs:
        yield from floats(_DIFF, blob.diff)


def _without_blobs(param: caffe_pb2.LayerParameter) -> bytes:
    if not param.blobs:
        return param.SerializeToString()
    bare = caffe_pb2.LayerParameter()
    bare.CopyFrom(param)
    bare.ClearField("blobs")
    return bare.SerializeToString()


# ---- HDF5


def _is_hdf5(path: Path) -> bool:
    if path.suffix == ".h5":
        return True
    try:
        with path.open("rb") as file:
            beginning = file.read(8)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from None
    return beginning == b"\x89HDF\r\n\x1a\n"


def _read_hdf5(path: Path) -> Weights:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if "data" not in file:
                raise ModelError(f"{path} has no group /data: it is not a Caffe weight file")
            return dict(_hdf5_layers(file["data"], ""))
    except DAMAGED as error:
        raise ModelError(f"cannot read {path} as HDF5: {error}") from None


def _hdf5_layers(group: Any, prefix: str) -> Iterator[tuple[str, list[Stored]]]:
    """A layer is a group of datasets called 0, 1, ..; a slash in its name makes groups within groups."""
    import h5py

    for name, member in group.items():
        if not isinstance(member, h5py.Group):
            raise ValueError(f"/data/{prefix}{name} is no group")
        datasets = {int(i): d for i, d in member.items() if isinstance(d, h5py.Dataset) and i.isdigit()}
        blobs = [Stored(torch.from_numpy(array(d)), index=i) for i, d in sorted(datasets.items())]
        yield prefix + name, blobs
        if len(datasets) < len(member):
            yield from _hdf5_layers(
                {n: m for n, m in member.items() if isinstance(m, h5py.Group)}, f"{prefix}{name}/"
            )


def _write_hdf5(net: Net, path: Path, with_diffs: bool) -> None:
    """As Caffe: a group per layer, and of shared blobs only the owner's."""
    import h5py

    owned = {blob.name for blob in net.learnable}
    with h5py.File(path, "w") as file:
        for name in ("data", "diff") if with_diffs else ("data",):
            for layer in net.layers:
                group = file.require_group(name).require_group(layer.name)
                for i, blob in enumerate(layer.blobs):
                    if blob.name == f"{layer.name}/{i}" and blob.name in owned:
                        group.create_dataset(str(i), data=getattr(blob, name).detach().cpu().numpy())


def _check_fit(name: str, blobs: Sequence[Blob], stored: Sequence[Stored], source: str) -> None:
    given = {blob.index for blob in stored}
    shared = {i for i, blob in enumerate(blobs) if blob.name != f"{name}/{i}"}
    if given | shared != set(range(len(blobs))):
        raise ModelError(
            f'{source}: layer "{name}" has {len(stored)} blobs there and {len(blobs)} in the net: '
            "rename the layer in the net to start it afresh"
        )
    for blob in stored:
        shape = blobs[blob.index].shape
        if not blob.fits(shape):
            raise ModelError(
                f'{source}: layer "{name}" blob {blob.index} has shape {tuple(blob.data.shape)} there and '
                f"{shape} in the net: rename the layer in the net to start it afresh"
            )
