"""Picture files and encoded records, as OpenCV gives them to Caffe: uint8 (C, H, W), colours as B, G, R."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sparknet.errors import DataError


def decode(data: bytes, where: str, *, color: bool | None = None) -> Tensor:
    """The picture of a JPEG or PNG file's bytes: 3 channels, or 1 if ``color`` is False; None keeps its own.

    Raises DataError, beginning with ``where``, for bytes that are no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as picture:
            gray = picture.mode in ("1", "L", "I;16") if color is None else not color
            pixels = np.array(picture.convert("L" if gray else "RGB"))
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
    """uint8 (C, H, W) to (C, height, width), linearly between the four nearest pixels, as OpenCV does."""
    if image.shape[1:] == (height, width):
        return image
    out = F.interpolate(image.unsqueeze(0).float(), (height, width), mode="bilinear", align_corners=False)
    return out.squeeze(0).round_().clamp_(0, 255).to(torch.uint8)
