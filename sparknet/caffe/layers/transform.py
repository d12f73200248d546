"""What data layers do to pictures: cut, mirror, subtract a mean, multiply, as ``transform_param`` says.

    out = (pixel - mean at its place in the whole picture) * scale

TRAIN cuts at a random place, TEST in the centre; mirroring is random in both. Source:
``data_transformer.cpp`` of BVLC Caffe; checked by oracle/data_layer. A batch is one indexing operation,
without a step per picture.
"""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from sparknet.caffe.files.blobs import read_blob
from sparknet.caffe.layer import Layer
from sparknet.caffe.schema.caffe_pb2 import TransformationParameter
from sparknet.weights import Shape


class Transformer:
    """The preprocessing of one data layer."""

    def __init__(self, layer: Layer, param: TransformationParameter) -> None:
        self.layer: Layer = weakref.proxy(layer)  # no cycle: a net is freed with its last reference
        self.param = param
        if param.HasField("mean_file") and param.mean_value:
            raise layer.error("mean_file and mean_value are both given: keep one")
        self.mean: Tensor | None = None
        if param.HasField("mean_file"):
            mean = read_blob(param.mean_file)
            self.mean = mean.reshape(mean.shape[-3:])
        elif param.mean_value:
            self.mean = torch.tensor(list(param.mean_value)).view(-1, 1, 1)

    def shape(self, channels: int, height: int, width: int) -> Shape:
        """What becomes of a picture of this shape. Raises ModelError if crop or mean do not fit it."""
        self._check(channels, height, width)
        crop = self.param.crop_size
        return (channels, crop or height, crop or width)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 or float32 (N, C, H, W) -> float32 (N, C, h, w)."""
        count, channels, height, width = images.shape
        _, out_height, out_width = self.shape(channels, height, width)
        rows = self._start(count, height - out_height)[:, None] + torch.arange(out_height)
        columns = self._start(count, width - out_width)[:, None] + self._columns(count, out_width)
        place = torch.arange(channels).view(1, -1, 1, 1), rows[:, None, :, None], columns[:, None, None, :]
        if (out_height, out_width) == (height, width) and not self.param.mirror:
            out = images.to(torch.float32)
        else:
            out = images[torch.arange(count).view(-1, 1, 1, 1), *place].to(torch.float32)
        if self.mean is not None:
            whole = self.mean.shape[1] > 1 or self.param.HasField("mean_file")
            out = out - (self.mean[place] if whole else self.mean)
        return out * self.param.scale if self.param.scale != 1 else out

    def _start(self, count: int, room: int) -> Tensor:
        """Where each picture's cut begins, along one axis with ``room`` to spare."""
        if self.layer.is_training and self.param.crop_size:
            return torch.randint(0, room + 1, (count,))
        return torch.full((count,), room // 2)

    def _columns(self, count: int, width: int) -> Tensor:
        """(count, width): the columns of a cut, from right to left where it is mirrored."""
        columns = torch.arange(width).expand(count, width)
        if not self.param.mirror:
            return columns
        return torch.where(torch.randint(0, 2, (count, 1)) == 1, columns.flip(1), columns)

    def _check(self, channels: int, height: int, width: int) -> None:
        crop = self.param.crop_size
        if crop > height or crop > width:
            raise self.layer.error(f"crop_size is {crop}, and a picture has {height} x {width} pixels")
        if self.mean is None:
            return
        if self.param.HasField("mean_file") and self.mean.shape != (channels, height, width):
            raise self.layer.error(
                f"the mean in {self.param.mean_file} has shape {tuple(self.mean.shape)}, and a picture "
                f"{(channels, height, width)}"
            )
        if len(self.mean) not in (1, channels):
            raise self.layer.error(
                f"{len(self.mean)} mean_value for {channels} channels: give 1, or {channels}"
            )


def transformed(transformer: Transformer, images: list[Tensor]) -> Tensor:
    """A batch of (C, H, W) pictures, which need not be of one size if all are cut to one."""
    if all(image.shape == images[0].shape for image in images):
        return transformer(torch.stack(images))
    return torch.cat([transformer(image.unsqueeze(0)) for image in images])
