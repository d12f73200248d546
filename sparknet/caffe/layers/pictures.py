"""Picture files and encoded records, as OpenCV gives them to Caffe: uint8 (C, H, W), colours as B, G, R."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparknet.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

_ONE = 1 << 11
"""The weight of a pixel that counts fully, in ``resize``."""


def decode(data: bytes, where: str, *, color: bool | None = None) -> Tensor:
    """The picture of a JPEG or PNG file's bytes: 3 channels, or 1 if ``color`` is False; None keeps its own.

    Raises DataError, beginning with ``where``, for bytes that are no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as opened:
            picture: Image.Image = opened
            is_gray = picture.mode in ("1", "L", "I", "I;16", "I;16B")
            if picture.mode.startswith("I"):
                picture = _high_bytes(picture)  # what OpenCV leaves of 16 bits
            if is_gray if color is None else not color:
                pixels = np.array(picture) if picture.mode == "L" else _grays(picture)
            else:
                pixels = np.array(picture.convert("RGB"))
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"{where}: not a picture that can be read: {error}") from None
    if pixels.ndim == 2:
        return torch.from_numpy(pixels).unsqueeze(0)
    return torch.from_numpy(pixels[:, :, ::-1].copy()).permute(2, 0, 1).contiguous()


def read(path: Path, *, color: bool, height: int = 0, width: int = 0) -> Tensor:
    """The picture of a file, resized unless ``height`` and ``width`` are 0. Raises DataError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    image = decode(data, str(path), color=color)
    return resize(image, height, width) if height and width else image


def resize(image: Tensor, height: int, width: int) -> Tensor:
    """uint8 (C, H, W) to (C, height, width), linearly between the four nearest pixels.

    The numbers are those of OpenCV, which calculates with weights of 11 bits.
    """
    if image.shape[1:] == (height, width):
        return image
    top, bottom, below = _weights(image.shape[1], height)
    left, right, beside = _weights(image.shape[2], width)
    beside[left == right] = 0  # at the edges; up and down OpenCV weighs the same pixel twice
    rows = image.int()
    across = rows[:, :, left] * (_ONE - beside) + rows[:, :, right] * beside
    if (2 * height, 2 * width) == image.shape[1:]:  # halving is the mean of four, not quite the same number
        four: Tensor = rows.view(-1, height, 2, width, 2).sum((2, 4))
        return ((four + 2) >> 2).to(torch.uint8)
    upper = ((_ONE - below)[:, None] * (across[:, top] >> 4)) >> 16
    lower = (below[:, None] * (across[:, bottom] >> 4)) >> 16
    return ((upper + lower + 2) >> 2).clamp_(0, 255).to(torch.uint8)


def _weights(old: int, new: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each of ``new`` places the two of ``old`` beside it, and the second's weight, of ``_ONE``."""
    place = ((torch.arange(new, dtype=torch.float64) + 0.5) * (old / new) - 0.5).float()
    first = place.floor()
    weight = ((place - first) * _ONE).round().int()
    first = first.long()
    return first.clamp(0, old - 1), (first + 1).clamp(0, old - 1), weight


def _high_bytes(picture: Image.Image) -> Image.Image:
    from PIL import Image

    return Image.fromarray((np.array(picture).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))


def _grays(picture: Image.Image) -> NDArray[np.uint8]:
    """(H, W), by the weights of OpenCV's reader of the format: each has its own rounding."""
    if picture.format == "JPEG" and picture.mode == "RGB":
        picture.draft("L", picture.size)  # the brightness that the file holds
        if picture.mode == "L":
            brightness: NDArray[np.uint8] = np.array(picture)
            return brightness
    red, green, blue = np.moveaxis(np.array(picture.convert("RGB")).astype(np.int64), 2, 0)
    if picture.format == "PNG":
        mixed = (red * 9797 + green * 19234 + blue * 3737) >> 15  # libpng's, cut off
        mixed = np.where((red == green) & (red == blue), red, mixed)
    else:
        mixed = (red * 4899 + green * 9617 + blue * 1868 + (1 << 13)) >> 14
    grays: NDArray[np.uint8] = mixed.astype(np.uint8)
    return grays
