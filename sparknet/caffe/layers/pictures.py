"""Picture files and encoded records, as OpenCV gives them to Caffe: uint8 (C, H, W), colours as B, G, R.

A picture that is asked for in colour or in grey is turned as its EXIF data say; one that is taken as it is,
from an encoded record, keeps its channels, transparency too, and is not turned.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparknet.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]

_GRAYS = frozenset({"1", "L", "I", "I;16", "I;16B"})
_ORIENTATION = 0x0112  # the tag of EXIF
_TURNS: Mapping[int, Callable[[Pixels], Pixels]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}
"""What brings a picture of each orientation upright; others are upright."""

_ONE = 1 << 11
"""The weight of a pixel that counts fully, in ``resize``."""


def decode(data: bytes, where: str, *, color: bool | None = None) -> Tensor:
    """The picture of a JPEG or PNG file's bytes: 3 channels, or 1 if ``color`` is False.

    None keeps its own, which are 4 (B, G, R, A) of a picture with transparency. Raises DataError, beginning
    with ``where``, for bytes that are no picture.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as opened:
            picture: Image.Image = opened
            orientation = _orientation(picture) if color is not None else 1
            is_gray = picture.mode in _GRAYS
            if picture.mode.startswith("I"):
                picture = _high_bytes(picture)  # what OpenCV leaves of 16 bits
            if is_gray if color is None else not color:
                pixels = np.array(picture) if picture.mode == "L" else _grays(picture)
            else:
                has_alpha = color is None and _is_transparent(picture)
                pixels = np.array(_converted(picture, "RGBA" if has_alpha else "RGB"))
    except MemoryError:
        raise DataError(f"{where}: there is no memory for the picture") from None
    except Exception as error:  # noqa: BLE001 - Pillow's readers let pass what damaged files make them raise
        raise DataError(f"{where}: not a picture that can be read: {error}") from None
    if orientation in _TURNS:
        pixels = _TURNS[orientation](pixels)
    if pixels.ndim == 2:
        return torch.from_numpy(pixels.copy()).unsqueeze(0)
    channels = [2, 1, 0, 3][: pixels.shape[2]]
    return torch.from_numpy(pixels[:, :, channels]).permute(2, 0, 1).contiguous()


def read(path: Path, *, color: bool, height: int = 0, width: int = 0) -> Tensor:
    """The picture of a file, resized unless ``height`` and ``width`` are 0. Raises DataError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise DataError(f"cannot read {str(path)!r}: this is no path") from None
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


def _orientation(picture: Image.Image) -> int:
    """1 to 8, as EXIF has it; a TIFF is turned while it is read."""
    if picture.format == "TIFF":
        return 1
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged EXIF data say nothing, as in OpenCV
        return 1


def _is_transparent(picture: Image.Image) -> bool:
    """Whether OpenCV has four channels of it: an alpha channel, or a PNG's transparent colours."""
    if picture.format == "BMP":
        return False
    return picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or (
        picture.format == "PNG" and picture.mode in ("P", "RGB") and "transparency" in picture.info
    )


def _converted(picture: Image.Image, mode: str) -> Image.Image:
    """In another mode; by way of RGBA where a palette is transparent, of which Pillow warns else."""
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture.convert(mode)


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
    red, green, blue = np.moveaxis(np.array(_converted(picture, "RGB")).astype(np.int64), 2, 0)
    if picture.format == "PNG":
        mixed = (red * 9797 + green * 19234 + blue * 3737) >> 15  # libpng's, cut off
        mixed = np.where((red == green) & (red == blue), red, mixed)
    else:
        mixed = (red * 4899 + green * 9617 + blue * 1868 + (1 << 13)) >> 14
    grays: NDArray[np.uint8] = mixed.astype(np.uint8)
    return grays
