"""Caffe's ``transform_param``: a batch of bytes becomes the float32 input of a net.

    output = (pixel - mean at its place in the full picture) * scale,   cropped, perhaps mirrored

as in Caffe's data_transformer.cpp. No loop over samples: crops are one gather, on the batch's own device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from sparknet.data.dataset import Bytes
from sparknet.errors import DataError, UsageError


@dataclass(frozen=True, kw_only=True, eq=False)
class Transform:
    """How pixels become numbers.

    ``mean``   float32: a mean image (c, h, w) as large as the pictures, or values (1,) or (c,)
    ``scale``  multiplies after the mean is subtracted
    ``crop``   side of the square cut out, 0 for none: at a random place in training, in the centre in testing
    ``mirror`` flips half of the pictures, left to right, at random: in training only

    Raises UsageError for settings that cannot be.
    """

    mean: NDArray[np.float32] | None = None
    scale: float = 1.0
    crop: int = 0
    mirror: bool = False

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise UsageError(f"crop_size {self.crop} is negative")
        if self.mean is not None and self.mean.ndim not in (1, 3):
            raise UsageError(
                f"a mean of shape {self.mean.shape} is neither a picture (c, h, w) nor values (c,)"
            )

    def __call__(
        self, images: Bytes | torch.Tensor, *, train: bool, rng: np.random.Generator | None = None
    ) -> torch.Tensor:
        """The batch ``images``, uint8 (n, c, h, w), as float32 (n, c, h, w) or (n, c, crop, crop).

        ``rng`` draws places and flips: only random crops and mirroring, so only training, need it.
        Raises DataError when the pictures are smaller than the crop or unlike the mean image.
        """
        batch = torch.as_tensor(images)
        self._check(tuple(batch.shape))
        if not train:
            return self.at(batch, *self._centre(batch))
        if rng is None and (self.crop or self.mirror):
            raise UsageError("random crops and mirroring need a generator (rng)")
        return self.at(batch, *self._drawn(batch, rng or np.random.default_rng(0)))

    def at(
        self, batch: torch.Tensor, rows: Places, columns: Places, flips: NDArray[np.bool_] | None = None
    ) -> torch.Tensor:
        """As a call, with each crop's upper left corner given, (n,) or one for all, and the flips, (n,)."""
        out = _cut(batch, rows, columns, self.crop).to(torch.float32, copy=True)
        if self.mean is not None:
            out -= self._mean_at(batch, rows, columns)
        if self.scale != 1.0:
            out *= self.scale
        if flips is not None:
            which = torch.as_tensor(np.flatnonzero(flips), device=out.device)
            out[which] = out[which].flip(-1)
        return out.contiguous()

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 4:
            raise DataError(f"a batch has the shape (n, c, h, w), not {shape}")
        _, channels, height, width = shape
        if self.crop > min(height, width):
            raise DataError(f"crop_size {self.crop} is larger than the {height} x {width} pictures")
        if self.mean is None:
            return
        if self.mean.ndim == 3 and self.mean.shape != shape[1:]:
            raise DataError(
                f"the mean image is {self.mean.shape}, the pictures are {shape[1:]}: "
                "it belongs to another set"
            )
        if self.mean.ndim == 1 and len(self.mean) not in (1, channels):
            raise DataError(
                f"{len(self.mean)} mean values for {channels} channels: give one, or one per channel"
            )

    def _centre(self, batch: torch.Tensor) -> tuple[int, int]:
        height, width = batch.shape[2:]
        return ((height - self.crop) // 2, (width - self.crop) // 2) if self.crop else (0, 0)

    def _drawn(
        self, batch: torch.Tensor, rng: np.random.Generator
    ) -> tuple[Places, Places, NDArray[np.bool_] | None]:
        count, _, height, width = batch.shape
        rows, columns = (
            rng.integers(side - self.crop + 1, size=count) if self.crop else 0 for side in (height, width)
        )
        return rows, columns, rng.random(count) < 0.5 if self.mirror else None

    def _mean_at(self, batch: torch.Tensor, rows: Places, columns: Places) -> torch.Tensor:
        if batch.device not in self._means:
            self._means[batch.device] = self._mean.to(batch.device)
        mean = self._means[batch.device]
        return mean if mean.shape[2:] == (1, 1) else _cut(mean, rows, columns, self.crop)

    def __getstate__(self) -> dict[str, object]:
        """The settings alone: what was kept of them for a device stays there."""
        return {name: getattr(self, name) for name in ("mean", "scale", "crop", "mirror")}

    @cached_property
    def _means(self) -> dict[torch.device, torch.Tensor]:
        """The mean on each device that has asked for it."""
        return {}

    @cached_property
    def _mean(self) -> torch.Tensor:
        """(1, c, h, w), or (1, c, 1, 1) for values."""
        mean = torch.as_tensor(np.asarray(self.mean, np.float32))
        return mean[None] if mean.ndim == 3 else mean[None, :, None, None]


Places = int | NDArray[np.int64]


def _cut(pictures: torch.Tensor, rows: Places, columns: Places, side: int) -> torch.Tensor:
    """A ``side`` x ``side`` square of each picture, or all of it if ``side`` is 0.

    With a place for each square ``pictures`` may be a single one, (1, c, h, w), which all are cut from.
    """
    if not side:
        return pictures
    if isinstance(rows, int) and isinstance(columns, int):
        return pictures[:, :, rows : rows + side, columns : columns + side]
    return _lines(pictures, torch.as_tensor(rows), torch.as_tensor(columns), side)


def _lines(pictures: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, side: int) -> torch.Tensor:
    """Each line of each square is ``side`` neighbours in memory: all are copied by one ``index_select``."""
    count, channels, height, width = pictures.shape
    flat = pictures.contiguous().view(-1)
    every_line = flat.as_strided((flat.numel() - side + 1, side), (1, 1))
    corners = rows * width + columns
    if count > 1:
        corners = corners + torch.arange(count) * (channels * height * width)
    planes, lines = torch.arange(channels) * (height * width), torch.arange(side) * width
    starts = corners[:, None, None] + planes[:, None] + lines
    cut = every_line.index_select(0, starts.view(-1).to(pictures.device))
    return cut.view(len(corners), channels, side, side)
