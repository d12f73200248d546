"""What kind of file was given in place of the one that is needed, for error messages."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.message import DecodeError

from sparknet.caffe.files.hdf5 import DAMAGED
from sparknet.caffe.schema import caffe_pb2, weights_pb2
from sparknet.errors import ModelError

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

WEIGHTS = "it holds the weights of a net, as a .caffemodel does"
STATE = "it holds the state of a solver, as a .solverstate does"
BLOB = "it holds one array, as a mean .binaryproto does"
_SIGNATURES = {
    b"\x1f\x8b": "it is compressed by gzip: unpack it first",
    b"PK\x03\x04": "it is a zip archive, as .npz and PyTorch's files are",
    b"\x80\x02": "it is a pickle",
    b"\x93NUMPY": "it is an array of NumPy's (.npy)",
    b"\x89PNG": "it is a picture",
    b"\xff\xd8\xff": "it is a picture",
    b"version https://git-lfs": "it is the pointer that git-lfs leaves in place of a large file: fetch that",
}


def is_hdf5(path: Path) -> bool:
    """Whether the file begins as HDF5 files do. Raises ModelError if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from None


def hint(path: Path) -> str:
    """``": it holds .."`` of a file of a kind that is known; "" of others, and of one that cannot be read."""
    kind = _kind(path)
    return f": {kind}" if kind else ""


def _kind(path: Path) -> str:
    try:
        data = path.read_bytes()
    except (OSError, ValueError, MemoryError):
        return ""
    if data.startswith(HDF5_SIGNATURE):
        return _hdf5_kind(path)
    for signature, kind in _SIGNATURES.items():
        if data.startswith(signature):
            return kind
    return _message_kind(data) or ("it is text, as a .prototxt is" if _is_text(data) else "")


def _message_kind(data: bytes) -> str:
    """The first that fits: a blob has numbers, a state an iteration, a net layers with names."""
    blob, state, net = weights_pb2.Blob(), caffe_pb2.SolverState(), weights_pb2.Net()
    if _fits(blob, data) and (blob.data or blob.double_data):
        return BLOB
    if _fits(state, data) and state.HasField("iter"):
        return STATE
    if _fits(net, data) and (net.layer or net.layers):
        return WEIGHTS
    return ""


def _fits(message: weights_pb2.Blob | caffe_pb2.SolverState | weights_pb2.Net, data: bytes) -> bool:
    try:
        message.ParseFromString(data)
    except DecodeError:
        return False
    return True


def _hdf5_kind(path: Path) -> str:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if "iter" in file and "history" in file:
                return STATE
            if "data" in file and isinstance(file["data"], h5py.Group):
                return WEIGHTS
            return f"it holds {', '.join(list(file)[:5]) or 'nothing'}"
    except DAMAGED:
        return ""


def _is_text(data: bytes) -> bool:
    return bool(data) and all(byte >= 0x20 or byte in b"\t\n\r\f\v" for byte in data[:1000])
