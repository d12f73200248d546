"""Single blobs on disk: mean images (``.binaryproto``), and the blobs within weight files and solver states.

Files of all versions of Caffe are read: those before 2015 give a blob four axes, and protobuf 1 wrote numbers
one by one.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from google.protobuf.message import DecodeError
from torch import Tensor

from sparknet.caffe.files.kinds import hint
from sparknet.caffe.schema import caffe_pb2, weights_pb2
from sparknet.errors import ModelError
from sparknet.weights import Shape


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


def read_blob(path: str | Path) -> Tensor:
    """The array of a ``.binaryproto`` file, float32."""
    path = Path(path)
    blob = parsed(weights_pb2.Blob(), path)
    array = decode_blob(blob, str(path)).data if blob.ListFields() else torch.zeros(0)
    if not array.numel():
        raise ModelError(f"{path} holds no array: it is not a .binaryproto{hint(path)}")
    return array


def write_blob(array: Tensor, path: str | Path) -> None:
    """Write ``array`` (float32) as a ``.binaryproto`` file."""
    Path(path).write_bytes(encode_blob(array).SerializeToString())


def decode_blob(blob: weights_pb2.Blob, where: str, index: int = 0) -> Stored:
    """The array of a message. Raises ModelError, beginning with ``where``, if data and shape do not agree."""
    values = _values(blob, where)
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


def parsed(message: Any, path: Path) -> Any:
    """``message`` filled from a file. Raises ModelError for one that is missing or broken."""
    try:
        data = path.read_bytes()
        message.ParseFromString(data)
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise ModelError(f"cannot read {str(path)!r}: this is no path") from None
    except DecodeError:
        raise ModelError(
            f"{path} ({len(data):,} bytes) is not in Caffe's binary format, or is cut short"
            f"{hint(path) or ': fetch it again'}"
        ) from None
    return message


def _values(blob: weights_pb2.Blob, where: str) -> np.ndarray[Any, np.dtype[np.float32]]:
    if blob.HasField("double_data"):
        return np.frombuffer(blob.double_data, "<f8").astype(np.float32)
    if blob.HasField("data"):
        if len(blob.data) % 4:
            raise ModelError(f"{where}: a blob ends within a number: the file is damaged")
        return np.frombuffer(bytearray(blob.data), "<f4")
    # numbers one by one, not packed: what protobuf 1 wrote
    unpacked = caffe_pb2.BlobProto.FromString(blob.SerializeToString())
    return np.array(unpacked.data or unpacked.double_data, np.float32)


def _bytes(tensor: Tensor) -> bytes:
    array = tensor.detach().cpu().contiguous().to(torch.float32).numpy()
    return (array if sys.byteorder == "little" else array.astype("<f4")).tobytes()
