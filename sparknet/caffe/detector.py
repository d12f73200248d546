"""A net that scores windows of images, as pycaffe's ``Detector``, after R-CNN (arXiv 1311.2524)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sparknet.caffe import io
from sparknet.caffe.classifier import image_transformer
from sparknet.caffe.pycaffe.net import Net
from sparknet.caffe.schema.caffe_pb2 import TEST

Window = Sequence[float]  # ymin, xmin, ymax, xmax


class Detector(Net):
    """``detect_windows`` scores crops, each warped to the input of the net.

    With ``context_pad`` so many pixels of the warped crop, on each side, are what surrounds the window, and
    the mean where the image ends. The other settings are those of ``io.Transformer``.
    """

    def __init__(
        self,
        model_file: str,
        pretrained_file: str,
        mean: io.Array | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
        context_pad: int | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = image_transformer(
            self, mean=mean, input_scale=input_scale, raw_scale=raw_scale, channel_swap=channel_swap
        )
        self.context_pad = context_pad or 0
        channels, height, width = self.blobs[self.inputs[0]].data.shape[1:]
        self.crop_dims = (height, width, channels)
        self.crop_mean = self._mean_image()

    def detect_windows(self, images_windows: Iterable[tuple[str, Sequence[Window]]]) -> list[dict[str, Any]]:
        """One dict for each window of each (file name, windows) pair.

        ``filename``, ``window``, ``prediction``.
        """
        pairs = list(images_windows)
        images = {filename: io.load_image(filename) for filename, _ in pairs}
        found = [(filename, window) for filename, windows in pairs for window in windows]
        if not found:
            return []
        name = self.inputs[0]
        crops = [self.crop(images[filename], window) for filename, window in found]
        blob = np.stack([self.transformer.preprocess(name, crop) for crop in crops])
        predictions = self.forward_all(**{name: blob})[self.outputs[0]]
        return [
            {"window": window, "prediction": prediction, "filename": filename}
            for (filename, window), prediction in zip(found, predictions, strict=True)
        ]

    def crop(self, im: io.Array, window: Window) -> io.Array:
        """The part of an image ``(H, W, K)`` in ``window``, with its context if that was asked for."""
        ymin, xmin, ymax, xmax = (round(edge) for edge in window)
        if not self.context_pad:
            return im[ymin:ymax, xmin:xmax]
        rows, columns = self._context(ymin, ymax), self._context(xmin, xmax)
        crop = self.crop_mean.copy()
        (to_row, from_row), (to_column, from_column) = (
            _overlap(span, limit, self.crop_dims[0])
            for span, limit in ((rows, im.shape[0]), (columns, im.shape[1]))
        )
        size = to_row.stop - to_row.start, to_column.stop - to_column.start
        crop[to_row, to_column] = io.resize_image(im[from_row, from_column], size)
        return crop

    def _context(self, low: int, high: int) -> tuple[int, int]:
        """The edges, widened so that the window fills what the padding leaves of the crop."""
        size = self.crop_dims[0]
        half = (high - low + 1) / 2
        scaled = half * size / (size - 2 * self.context_pad)
        return round(low + half - scaled), round(low + half + scaled)

    def _mean_image(self) -> io.Array:
        """The mean in the space of images before preprocessing, ``(H, W, K)``."""
        name = self.inputs[0]
        if name not in self.transformer.mean:
            return np.zeros(self.crop_dims, dtype=np.float32)
        bare = io.Transformer(self.transformer.inputs)
        bare.transpose, bare.channel_swap = self.transformer.transpose, self.transformer.channel_swap
        bare.raw_scale = self.transformer.raw_scale
        height, width, channels = self.crop_dims
        mean = np.broadcast_to(self.transformer.mean[name], (channels, height, width))
        return bare.deprocess(name, mean).astype(np.float32)


def _overlap(span: tuple[int, int], limit: int, size: int) -> tuple[slice, slice]:
    """Where ``span`` lies in a crop of ``size`` pixels, and in an image of ``limit``, as far as it does."""
    low, high = span
    inside = max(low, 0), min(high + 1, limit)
    scale = size / (high - low + 1)
    start = round((inside[0] - low) * scale)
    stop = min(size, start + max(1, round((inside[1] - inside[0]) * scale)))
    return slice(start, stop), slice(*inside)
