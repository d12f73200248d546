"""Encoded pictures (JPEG, PNG and what else Pillow knows) to arrays, quickly and at the size that is wanted.

    JPEG      libjpeg-turbo (simplejpeg), which skips what a smaller picture does not need: n/8 of each side,
              n from 1 to 8, is decoded, the least that is no smaller than the size wanted
    others    Pillow, as are JPEGs that libjpeg-turbo cannot turn into RGB (CMYK, YCCK)
    the rest  of the way is bilinear (OpenCV), or the mean of areas where a side shrinks to half or less

What is in a file is shown as a viewer shows it: turned as its EXIF orientation says. Of 16 bits the upper 8
are kept, transparency is dropped, grey is repeated where colour is wanted.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps

from sparknet.data.archives import DAMAGED
from sparknet.data.dataset import Bytes
from sparknet.errors import DataError, UsageError

Order = Literal["rgb", "bgr"]
Size = tuple[int, int]
"""(height, width)"""

MOST_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)
"""A file that declares more is refused, by Pillow too: it could be made to fill the memory."""

_NO_PICTURE = (*DAMAGED, SyntaxError, TypeError, LookupError, AttributeError, Image.DecompressionBombError)
"""What Pillow's readers let pass of damaged files."""

_ORIENTATION = 0x0112
_HEADER_BYTES = 1 << 16  # where EXIF is found, if at all: segments before the pixels are at most so long
_JPEG = b"\xff\xd8"


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How pictures are decoded.

    ``size``      (height, width) of all of them, proportions not kept; None leaves each as large as it is
    ``channels``  3, 1, or None for the picture's own
    ``order``     of three channels: "rgb", or "bgr" as Caffe and its published weights have it

    Raises UsageError for anything else.
    """

    size: Size | None = None
    channels: Literal[1, 3] | None = 3
    order: Order = "rgb"

    def __post_init__(self) -> None:
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            raise UsageError(f"size {self.size} is not (height, width), both positive")
        if self.channels not in (1, 3, None):
            raise UsageError(f"channels {self.channels} is not 1 (grey) or 3 (colour)")
        if self.order not in ("rgb", "bgr"):
            raise UsageError(f"order {self.order!r} is not rgb or bgr")


def decode(data: bytes, where: str, how: Decoding | None = None) -> Bytes:
    """The picture in the bytes of a file, uint8 (channels, height, width).

    Raises DataError, beginning with ``where``, for bytes that are no picture, or only a part of one.
    """
    how = how or Decoding()
    try:
        pixels = _jpeg(data, how) if data[:2] == _JPEG else None
        if pixels is None:
            pixels = _other(data, how)
    except _NO_PICTURE as error:
        raise DataError(f"{where}: not a picture that can be read: {_words(error)}") from None
    return planes(resized(pixels, how.size))


def resized(pixels: Bytes, size: Size | None) -> Bytes:
    """uint8 (h, w) or (h, w, 3) at ``size``: bilinear, or areas' means where a side at least halves."""
    if size is None or pixels.shape[:2] == size:
        return pixels
    cv2 = _opencv()
    halves = pixels.shape[0] >= 2 * size[0] or pixels.shape[1] >= 2 * size[1]
    how = cv2.INTER_AREA if halves else cv2.INTER_LINEAR
    out: Bytes = cv2.resize(pixels, (size[1], size[0]), interpolation=how)
    return out


def planes(pixels: Bytes) -> Bytes:
    """(h, w) or (h, w, channels) as (channels, h, w)."""
    if pixels.ndim == 2:
        return pixels[None]
    out: Bytes = np.empty((pixels.shape[2], *pixels.shape[:2]), np.uint8)
    _opencv().split(pixels, list(out))
    return out


def is_encoded(data: bytes) -> bool:
    """Whether bytes begin as a picture file does: JPEG, PNG, GIF, BMP, WebP or TIFF."""
    begins = data[:4]
    return begins[:2] in (_JPEG, b"BM") or begins in (b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")


def encode(pixels: Bytes, kind: str, *, order: Order = "rgb", quality: int = 95) -> bytes:
    """The file, "png" or "jpeg", of a picture uint8 (1 or 3, h, w)."""
    image = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    if len(pixels) == 3 and order == "bgr":
        image = image[:, :, ::-1]
    image = np.ascontiguousarray(image)
    if kind == "jpeg":
        import simplejpeg

        space = "RGB" if len(pixels) == 3 else "GRAY"
        data: bytes = simplejpeg.encode_jpeg(
            image if image.ndim == 3 else image[:, :, None], quality=quality, colorspace=space
        )
        return data
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


@cache
def _opencv() -> Any:
    """OpenCV, on one thread: a task has one core, and threads do not survive the fork of Spark's daemon."""
    import cv2

    cv2.setNumThreads(1)
    return cv2


def _jpeg(data: bytes, how: Decoding) -> Bytes | None:
    """(h, w) or (h, w, 3), or None where Pillow has to try: odd colours, or a file with faults."""
    import simplejpeg

    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=True)
        if space not in ("Gray", "GRAY", "YCbCr", "RGB") or height * width > MOST_PIXELS:
            return None
        turned = _orientation(data)
        is_gray = how.channels == 1 or (how.channels is None and space.upper() == "GRAY")
        least = _least(how.size, turned)
        pixels: Any = simplejpeg.decode_jpeg(
            data,
            "GRAY" if is_gray else how.order.upper(),
            min_height=least[0],
            min_width=least[1],
            min_factor=1,
            strict=True,
        )
    except ValueError:
        return None
    if is_gray:
        pixels = pixels[:, :, 0]
    return _turned(pixels, turned)


def _least(size: Size | None, orientation: int) -> Size:
    """The least size to decode, of the picture as it lies in the file; (0, 0) for all of it."""
    if size is None:
        return 0, 0
    return (size[1], size[0]) if orientation >= 5 else size


def _other(data: bytes, how: Decoding) -> Bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # twice as large is an error
        with Image.open(io.BytesIO(data)) as opened:
            image: Image.Image = ImageOps.exif_transpose(opened)
            is_gray = image.mode in ("1", "L", "LA", "I", "F") or image.mode.startswith("I;16")
            if image.mode == "I" or image.mode.startswith("I;16"):
                image = _upper_bytes(image)
            if how.channels == 1 or (how.channels is None and is_gray):
                return np.array(image.convert("L"))
            pixels: Bytes = np.array(image.convert("RGB"))
    return np.ascontiguousarray(pixels[:, :, ::-1]) if how.order == "bgr" else pixels


def _upper_bytes(image: Image.Image) -> Image.Image:
    return Image.fromarray((np.array(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))


def _orientation(data: bytes) -> int:
    """EXIF's, 1 to 8; 1, as it should be, where nothing is said."""
    if b"Exif\0\0" not in data[:_HEADER_BYTES]:
        return 1
    with Image.open(io.BytesIO(data)) as image:
        said = image.getexif().get(_ORIENTATION, 1)
    return said if said in range(1, 9) else 1


def _turned(pixels: Bytes, orientation: int) -> Bytes:
    """Rows and columns as ``orientation`` says they are meant."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = np.swapaxes(pixels, 0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _words(error: Exception) -> str:
    """Pillow's own words, less the address of the object it was given."""
    text = str(error)
    return "no format of pictures that is known" if "cannot identify" in text else text
