"""Datum: one labelled picture in a database of Caffe's, raw or as an encoded file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparknet.caffe.schema.caffe_pb2 import Datum
from sparknet.errors import DataError

Pixels = NDArray[np.uint8] | NDArray[np.float32]


def parsed(value: bytes, where: str) -> Datum:
    """The record in these bytes. Raises DataError, beginning with ``where``."""
    from google.protobuf.message import DecodeError

    try:
        return Datum.FromString(value)
    except DecodeError:
        raise DataError(f"{where}: not a Caffe Datum") from None


def raw_pixels(datum: Datum, where: str) -> Pixels:
    """(channels, height, width) of a record that is not encoded: uint8, or float32 of ``float_data``.

    Raises DataError, beginning with ``where``, where there are more or fewer.
    """
    shape = (datum.channels, datum.height, datum.width)
    pixels: Pixels = (
        np.frombuffer(datum.data, np.uint8) if datum.data else np.array(datum.float_data, np.float32)
    )
    if pixels.size != np.prod(shape):
        raise DataError(f"{where}: {pixels.size} values for a picture of shape {shape}")
    return pixels.reshape(shape)
