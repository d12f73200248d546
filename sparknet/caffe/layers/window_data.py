"""WindowData: windows of pictures, labelled by how much they overlap an object, for detectors such as R-CNN.

A window file has one block per picture::

    # 0
    path/of/picture.jpg
    3 480 640              (channels, height, width; each on a line of its own)
    2                      (number of windows)
    15 0.83 10 20 200 300  (class, overlap, x1, y1, x2, y2)
    0  0.10 50 60 110 130

Source: ``window_data_layer.cpp`` of BVLC Caffe; Girshick et al., 2014 (arXiv 1311.2524).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from sparknet.caffe.files.blobs import read_blob
from sparknet.caffe.layer import Arity, Shapes, Tensors
from sparknet.caffe.layers import pictures
from sparknet.caffe.layers.lists import words
from sparknet.caffe.layers.source import SourceLayer
from sparknet.errors import DataError
from sparknet.weights import Shape


@dataclass(frozen=True)
class Window:
    """A rectangle of a picture, corners included."""

    path: str
    label: int
    overlap: float
    box: tuple[int, int, int, int]


class WindowData(SourceLayer):
    """Tops: windows (batch_size, C, crop_size, crop_size), and labels (batch_size), 0 for background.

    ``fg_fraction`` of a batch is drawn from windows that overlap an object by ``fg_threshold`` or more, the
    rest from those below ``bg_threshold``.
    """

    type = "WindowData"
    messages = ("window_data_param", "transform_param")
    hints: ClassVar[Mapping[str, str]] = {
        "scale, mean_file, crop_size, mirror": "moved to transform_param, as Caffe does in V1 nets",
        "force_color, force_gray of transform_param": "windows are cut from colour pictures",
    }
    top_arity = Arity(least=2, most=2)

    def configure(self, bottoms: Shapes) -> None:
        p, t = self.param.window_data_param, self.param.transform_param
        if t.crop_size < 1 or p.batch_size < 1:
            raise self.error("transform_param { crop_size } and batch_size must be given and positive")
        if p.crop_mode not in ("warp", "square"):
            raise self.error(f'crop_mode is "{p.crop_mode}"; it can be "warp" or "square"')
        if t.crop_size <= 2 * p.context_pad:
            raise self.error(f"context_pad {p.context_pad} leaves nothing of crop_size {t.crop_size}")
        self.channels, windows = read_windows(p.source)
        self.foreground = [w for w in windows if w.overlap >= p.fg_threshold]
        self.background = [w for w in windows if w.overlap < p.bg_threshold]
        self.mean = self._mean()
        self.cache: dict[str, Tensor] = {}
        wanted = int(p.batch_size * p.fg_fraction)
        self.wanted = [(self.background, p.batch_size - wanted, False), (self.foreground, wanted, True)]
        for pool, count, is_object in self.wanted:
            if count and not pool:
                kind = "fg_threshold" if is_object else "bg_threshold"
                raise DataError(f"{self}: {p.source} has no window within {kind}")

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        p, crop = self.param.window_data_param, self.param.transform_param.crop_size
        return [(p.batch_size, self.channels, crop, crop), (p.batch_size,)]

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        images, labels = [], []
        for pool, count, is_object in self.wanted:
            for i in torch.randint(0, max(1, len(pool)), (count,)).tolist():
                images.append(self._cut(pool[i]))
                labels.append(float(pool[i].label if is_object else 0))
        return [torch.stack(images).to(self.device), torch.tensor(labels, device=self.device)]

    def _cut(self, window: Window) -> Tensor:
        """The window, warped, less the mean, times the scale; zeros where it reaches out of the picture."""
        t, pad = self.param.transform_param, self.param.window_data_param.context_pad
        is_mirrored = t.mirror and bool(torch.randint(0, 2, ()))
        image, crop = self._read(window.path), t.crop_size
        if pad or self.param.window_data_param.crop_mode == "square":
            box, size, offset = self._with_context(window.box, image.shape, is_mirrored)
        else:
            box, size, offset = window.box, (crop, crop), (0, 0)
        x1, y1, x2, y2 = box
        patch = pictures.resize(image[:, y1 : y2 + 1, x1 : x2 + 1], *size).float()
        if is_mirrored:
            patch = patch.flip(2)
        place = slice(offset[0], offset[0] + size[0]), slice(offset[1], offset[1] + size[1])
        out = torch.zeros(self.channels, crop, crop)
        if self.mean is not None:
            patch = patch - (self.mean[:, *place] if self.mean.shape[1] > 1 else self.mean)
        out[:, *place] = patch * t.scale
        return out

    def _with_context(
        self, box: tuple[int, int, int, int], shape: torch.Size, is_mirrored: bool
    ) -> tuple[tuple[int, int, int, int], tuple[int, int], tuple[int, int]]:
        """The box widened by ``context_pad`` pixels of the warped window and cut to the picture.

        Gives the box, the size it is warped to, and where that lies within the crop.
        """
        p, crop = self.param.window_data_param, self.param.transform_param.crop_size
        scale = crop / (crop - 2 * p.context_pad)
        x1, y1, x2, y2 = box
        half_height, half_width = (y2 - y1 + 1) / 2, (x2 - x1 + 1) / 2
        centre_x, centre_y = x1 + half_width, y1 + half_height
        if p.crop_mode == "square":
            half_height = half_width = max(half_height, half_width)
        edges = (
            centre_x - half_width * scale,
            centre_y - half_height * scale,
            centre_x + half_width * scale,
            centre_y + half_height * scale,
        )
        x1, y1, x2, y2 = (_rounded(edge) for edge in edges)
        full_width, full_height = x2 - x1 + 1, y2 - y1 + 1
        out_left, out_top = max(0, -x1), max(0, -y1)
        out_right = max(0, x2 - shape[2] + 1)
        clipped = (x1 + out_left, y1 + out_top, min(x2, shape[2] - 1), min(y2, shape[1] - 1))
        scale_x, scale_y = crop / full_width, crop / full_height
        width = min(crop, _rounded((clipped[2] - clipped[0] + 1) * scale_x))
        height = min(crop, _rounded((clipped[3] - clipped[1] + 1) * scale_y))
        left = _rounded((out_right if is_mirrored else out_left) * scale_x)
        top = _rounded(out_top * scale_y)
        return clipped, (max(1, height), max(1, width)), (min(top, crop - height), min(left, crop - width))

    def _read(self, path: str) -> Tensor:
        if path in self.cache:
            return self.cache[path]
        image = pictures.read(Path(self.param.window_data_param.root_folder + path), color=self.channels != 1)
        if self.param.window_data_param.cache_images:
            self.cache[path] = image
        return image

    def _mean(self) -> Tensor | None:
        """(C, crop, crop) from the centre of the mean picture, or (C, 1, 1)."""
        t = self.param.transform_param
        if t.HasField("mean_file") and t.mean_value:
            raise self.error("mean_file and mean_value are both given: keep one")
        if t.mean_value:
            values = list(t.mean_value)
            if len(values) not in (1, self.channels):
                raise self.error(f"{len(values)} mean_value for {self.channels} channels")
            return torch.tensor(values).view(-1, 1, 1).expand(self.channels, 1, 1)
        if not t.HasField("mean_file"):
            return None
        mean = read_blob(t.mean_file)
        mean = mean.reshape(mean.shape[-3:])
        start = (mean.shape[2] - t.crop_size) // 2
        if start < 0 or mean.shape[1] != mean.shape[2] or len(mean) != self.channels:
            raise self.error(
                f"the mean in {t.mean_file}, {tuple(mean.shape)}, does not fit crop_size {t.crop_size}"
            )
        return mean[:, start : start + t.crop_size, start : start + t.crop_size]


def read_windows(source: str) -> tuple[int, list[Window]]:
    """Channels and windows of a window file. Raises DataError if it does not have the form of one."""
    read = iter(words(source, "WindowData"))
    windows: list[Window] = []
    channels = 0
    try:
        for mark in read:
            if mark != "#":
                raise ValueError(f'"#" expected, not {mark!r}')
            next(read)
            path = next(read)
            channels, _, _, count = (int(next(read)) for _ in range(4))
            windows += [_window(path, [next(read) for _ in range(6)]) for _ in range(count)]
    except (ValueError, StopIteration, RuntimeError, OverflowError) as error:
        raise DataError(f"{source} is not a window file: {error or 'it ends too early'}") from None
    return channels, windows


def _window(path: str, words: list[str]) -> Window:
    label, overlap = int(words[0]), float(words[1])
    x1, y1, x2, y2 = (int(word) for word in words[2:])
    return Window(path, label, overlap, (x1, y1, x2, y2))


def _rounded(value: float) -> int:
    """To the nearest integer, halves away from zero, as C does."""
    return math.floor(abs(value) + 0.5) * (1 if value >= 0 else -1)
