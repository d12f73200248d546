"""Images and arrays in and out of nets, as pycaffe's ``caffe.io``.

Images are float32 ``(H, W, K)`` in [0, 1], RGB; blobs are ``(K, H, W)``. A ``Transformer`` leads from one
to the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from sparknet.caffe.schema.caffe_pb2 import BlobProto, BlobProtoVector, Datum
from sparknet.errors import DataError

Array = NDArray[Any]
Floats = NDArray[np.float32]

LUMINANCE = np.array([0.2125, 0.7154, 0.0721], dtype=np.float32)  # CRT primaries (ITU-R BT.709), of RGB
INTERPOLATION = {0: "nearest-exact", 1: "bilinear", 3: "bicubic"}


# -- messages


def blobproto_to_array(blob: BlobProto, return_diff: bool = False) -> Array:
    """The data of a blob (or its diff), of its shape.

    Raises ValueError if the shape does not hold the data.
    """
    values = np.array(blob.diff if return_diff else blob.data)
    legacy = ("num", "channels", "height", "width")
    if any(blob.HasField(name) for name in legacy):
        return values.reshape([getattr(blob, name) for name in legacy])
    return values.reshape(tuple(blob.shape.dim))


def array_to_blobproto(array: Array, diff: Array | None = None) -> BlobProto:
    """A blob of the array, and of a diff of the same shape."""
    blob = BlobProto()
    blob.shape.dim.extend(array.shape)
    blob.data.extend(array.astype(float).flat)
    if diff is not None:
        blob.diff.extend(diff.astype(float).flat)
    return blob


def arraylist_to_blobprotovector_str(arrays: Iterable[Array]) -> bytes:
    """The arrays as a serialised ``BlobProtoVector``."""
    return BlobProtoVector(blobs=[array_to_blobproto(array) for array in arrays]).SerializeToString()


def blobprotovector_str_to_arraylist(text: bytes) -> list[Array]:
    """The arrays of a serialised ``BlobProtoVector``."""
    return [blobproto_to_array(blob) for blob in BlobProtoVector.FromString(text).blobs]


def array_to_datum(array: Array, label: int | None = None) -> Datum:
    """A record of an array ``(K, H, W)``: bytes if it is uint8, floats if not.

    Raises ValueError for other shapes.
    """
    if array.ndim != 3:
        raise ValueError(f"a datum is an array of 3 axes, not {array.ndim}")
    datum = Datum()
    datum.channels, datum.height, datum.width = array.shape
    if array.dtype == np.uint8:
        datum.data = array.tobytes()
    else:
        datum.float_data.extend(array.astype(float).flat)
    if label is not None:
        datum.label = label
    return datum


def datum_to_array(datum: Datum) -> Array:
    """The array ``(K, H, W)`` of a record, uint8 or float64; its label is ``datum.label``."""
    shape = datum.channels, datum.height, datum.width
    if datum.data:
        return np.frombuffer(datum.data, dtype=np.uint8).reshape(shape)
    return np.array(datum.float_data).reshape(shape)


# -- images


def load_image(filename: str | Path, color: bool = True) -> Floats:
    """An image as float32 in [0, 1]: ``(H, W, 3)``, or ``(H, W, 1)`` of its luminance unless ``color``.

    Grey images are repeated, transparency is dropped. Raises DataError if the file is no image.
    """
    try:
        with Image.open(filename) as image:
            pixels = _as_floats(image)
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(f"{filename}: this is not an image that can be read: {error}") from error
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
        return np.tile(pixels, (1, 1, 3)) if color else pixels
    pixels = pixels[:, :, :3]
    return pixels if color else (pixels @ LUMINANCE)[:, :, np.newaxis]


def resize_image(im: Array, new_dims: Sequence[int] | Array, interp_order: int = 1) -> Floats:
    """``im`` ``(H, W, K)`` resized to ``new_dims`` (height, width), as float32.

    With 1 or 3 channels the centres of the corner pixels move as in ``skimage.transform.resize``, and past
    the edge all is the image's least value; with any other number they stay in the corners as in
    ``scipy.ndimage.zoom``: pycaffe uses the one or the other. Nothing is smoothed before shrinking, as in the
    skimage of Caffe's days (from 0.15 on it smooths). ``interp_order`` is 0, 1 or 3.
    """
    if interp_order not in INTERPOLATION:
        raise ValueError(f"interp_order is one of {sorted(INTERPOLATION)}, not {interp_order}")
    mode = INTERPOLATION[interp_order]
    image = torch.from_numpy(np.ascontiguousarray(im.transpose(2, 0, 1), dtype=np.float32))[None]
    size = int(new_dims[0]), int(new_dims[1])
    if im.shape[-1] in (1, 3):
        least = image.min()
        resized = _resampled(image - least, size, mode) + least
    else:
        resized = torch.nn.functional.interpolate(
            image, size=size, mode=mode, align_corners=True if interp_order else None
        )
    return np.asarray(resized[0].permute(1, 2, 0).numpy(), dtype=np.float32)


def _resampled(image: torch.Tensor, size: tuple[int, int], mode: str) -> torch.Tensor:
    """(N, C, H, W) at the centres of ``size`` pixels over it; outside are zeros."""
    rows, columns = ((2 * torch.arange(n) + 1) / n - 1 for n in size)
    place = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)[None]
    mode = mode.removesuffix("-exact")  # of two names for one thing, grid_sample has the other
    return torch.nn.functional.grid_sample(image, place, mode, "zeros", align_corners=False)


def oversample(images: Sequence[Array], crop_dims: Sequence[int] | Array) -> Floats:
    """Ten crops of each image: the corners, the centre, and all of them mirrored; ``(10 * N, H, W, K)``."""
    height, width = (int(size) for size in crop_dims)
    full = np.array(images[0].shape[:2])
    middle = ((full - (height, width)) / 2.0).astype(int)
    corners = [(i, j) for i in (0, full[0] - height) for j in (0, full[1] - width)]
    windows = [*corners, (middle[0], middle[1])]
    crops = []
    for image in images:
        plain = [image[i : i + height, j : j + width] for i, j in windows]
        crops += plain + [crop[:, ::-1] for crop in plain]
    return np.stack(crops).astype(np.float32)


# -- transformer


class Transformer:
    """Turns images into input blobs; ``inputs`` gives each input's name and shape ``(N, K, H, W)``.

    In this order: float32, resize, transpose, swap channels, times ``raw_scale``, minus the mean, times
    ``input_scale``. A step that is not set is left out. Raises ValueError for what does not fit an input.
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = dict(inputs)
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, Array] = {}
        self.input_scale: dict[str, float] = {}

    def preprocess(self, in_: str, data: Array) -> Floats:
        """The blob ``(K, H, W)`` of an image ``(H', W', K)``."""
        self._check(in_)
        blob = data.astype(np.float32)
        dims = tuple(self.inputs[in_][2:])
        if blob.shape[:2] != dims:
            blob = resize_image(blob, dims)
        if in_ in self.transpose:
            blob = blob.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            blob = blob[list(self.channel_swap[in_])]
        blob = blob * np.float32(self.raw_scale.get(in_, 1))
        if in_ in self.mean:
            blob = blob - self.mean[in_].astype(np.float32)
        return np.asarray(blob * np.float32(self.input_scale.get(in_, 1)), dtype=np.float32)

    def deprocess(self, in_: str, data: Array) -> Array:
        """The image of a blob: every step of ``preprocess`` but the resizing undone, last first."""
        self._check(in_)
        image = data.squeeze() / self.input_scale.get(in_, 1)
        image = (image + self.mean.get(in_, 0)) / self.raw_scale.get(in_, 1)
        if in_ in self.channel_swap:
            image = image[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            image = image.transpose(np.argsort(self.transpose[in_]))
        return np.asarray(image)

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """Give the axes another order: ``(2, 0, 1)`` leads from ``(H, W, K)`` to ``(K, H, W)``."""
        self._check(in_)
        if len(order) != len(self.inputs[in_]) - 1:
            raise ValueError("Transpose order needs to have the same number of dimensions as the input.")
        self.transpose[in_] = order

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """Give the channels another order, after the transpose: ``(2, 1, 0)`` leads from RGB to BGR."""
        self._check(in_)
        if len(order) != self.inputs[in_][1]:
            raise ValueError("Channel swap needs as many entries as the input has channels.")
        self.channel_swap[in_] = order

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """Multiply before the mean is taken off: 255 for nets that were trained on bytes."""
        self._check(in_)
        self.raw_scale[in_] = scale

    def set_mean(self, in_: str, mean: Array) -> None:
        """Take off a mean.

        One number a channel, or an image ``(K, H, W)``, resized to the input if need be.
        """
        self._check(in_)
        channels, *dims = self.inputs[in_][1:]
        if mean.ndim == 1:
            if mean.shape[0] != channels:
                raise ValueError("Mean channels incompatible with input.")
            mean = mean[:, np.newaxis, np.newaxis]
        else:
            mean = mean[np.newaxis] if mean.ndim == 2 else mean
            if mean.ndim != 3:
                raise ValueError("Mean shape invalid")
            if mean.shape[1:] != tuple(dims):
                mean = resize_image(mean.transpose(1, 2, 0), dims).transpose(2, 0, 1)
        self.mean[in_] = mean

    def set_input_scale(self, in_: str, scale: float) -> None:
        """Multiply after everything else."""
        self._check(in_)
        self.input_scale[in_] = scale

    def _check(self, in_: str) -> None:
        if in_ not in self.inputs:
            raise ValueError(f"{in_} is not one of the net inputs: {list(self.inputs)}")


def _as_floats(image: Image.Image) -> Floats:
    """Pixels in [0, 1], ``(H, W)`` or ``(H, W, 3 or 4)``, whatever the file holds."""
    if image.mode not in ("L", "RGB", "RGBA", "I;16"):
        image = image.convert("RGBA" if "A" in image.mode or "transparency" in image.info else "RGB")
    pixels = np.asarray(image)
    return (pixels / np.iinfo(pixels.dtype).max).astype(np.float32)
