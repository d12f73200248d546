"""The weights of a net on disk, as Caffe writes them: ``.caffemodel`` (binary) and ``.caffemodel.h5``.

Weights go to layers of the same name. Layers that only the file or only the net has are left alone; another
number of blobs, or another shape, is an error. Files of all versions are read: those before 2015 give a blob
four axes, and fit a blob of fewer if the leading ones are 1.

Source: ``Net::CopyTrainedLayersFrom``, ``Net::ToProto`` and ``Net::ToHDF5`` of BVLC Caffe.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from sparknet.caffe.blob import Blob
from sparknet.caffe.files.blobs import Stored, decode_blob, parsed
from sparknet.caffe.files.hdf5 import DAMAGED, array
from sparknet.caffe.files.kinds import hint, is_hdf5
from sparknet.caffe.files.protobuf_stream import Piece, field, floats
from sparknet.caffe.layer import Layer
from sparknet.caffe.schema import caffe_pb2, weights_pb2
from sparknet.errors import ModelError

Weights = dict[str, list[Stored]]

_LAYER = caffe_pb2.NetParameter.LAYER_FIELD_NUMBER
_BLOBS = caffe_pb2.LayerParameter.BLOBS_FIELD_NUMBER
_DATA, _DIFF = caffe_pb2.BlobProto.DATA_FIELD_NUMBER, caffe_pb2.BlobProto.DIFF_FIELD_NUMBER


class NetOfLayers(Protocol):
    """What is read of a ``Net``: ``params`` by layer name, and ``learnable`` with each shared blob once."""

    @property
    def name(self) -> str: ...
    @property
    def layers(self) -> Sequence[Layer]: ...
    @property
    def params(self) -> Mapping[str, Sequence[Blob]]: ...
    @property
    def learnable(self) -> Sequence[Blob]: ...


def load(net: NetOfLayers, path: str | Path) -> list[str]:
    """Copy the weights of a file into ``net``; the names of the layers that got some.

    Raises ModelError for a file that is no weight file or is cut short, and for shapes that do not fit.
    """
    return copy(net, read(path), source=str(path))


def copy(
    net: NetOfLayers, weights: Mapping[str, Sequence[Stored]], *, source: str = "the weights"
) -> list[str]:
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
    weights = _read_hdf5(path) if path.suffix == ".h5" or is_hdf5(path) else _read_binary(path)
    if not any(weights):  # nor are there any in a message of another kind, whose layers would be nameless
        raise ModelError(f"{path} holds no layers: it is not a Caffe weight file{hint(path)}")
    return weights


def save(net: NetOfLayers, path: str | Path, *, with_diffs: bool = False, hdf5: bool = False) -> None:
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


# ---- binary


def _read_binary(path: Path) -> Weights:
    net = parsed(weights_pb2.Net(), path)
    weights: Weights = {}
    for name, blobs in _layers(net):
        if blobs or name not in weights:
            where = f'{path}: layer "{name}"'
            weights[name] = [decode_blob(blob, f"{where} blob {i}", i) for i, blob in enumerate(blobs)]
    return weights


def _layers(net: weights_pb2.Net) -> Iterator[tuple[str, Sequence[weights_pb2.Blob]]]:
    for layer in net.layer:
        yield os.fsdecode(layer.name), layer.blobs  # bytes, if they are not UTF-8
    for old in net.layers:
        named = old.layer if old.HasField("layer") else old
        yield os.fsdecode(named.name), named.blobs


def _pieces(net: NetOfLayers, with_diffs: bool) -> Iterator[Piece]:
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


def _read_hdf5(path: Path) -> Weights:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if "data" not in file:
                raise ModelError(f"{path} has no group /data: it is not a Caffe weight file{hint(path)}")
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


def _write_hdf5(net: NetOfLayers, path: Path, with_diffs: bool) -> None:
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
