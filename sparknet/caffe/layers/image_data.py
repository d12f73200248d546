"""ImageData: labelled pictures from files, named in a list of lines "path label".

Source: ``image_data_layer.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from sparknet.caffe.layer import Arity, Shapes, Tensors
from sparknet.caffe.layers import pictures
from sparknet.caffe.layers.lists import labelled_names
from sparknet.caffe.layers.source import SourceLayer
from sparknet.caffe.layers.transform import Transformer, transformed
from sparknet.errors import DataError
from sparknet.weights import Shape


class ImageData(SourceLayer):
    """Tops: pictures float32 (batch_size, C, H, W), B G R, transformed, and labels (batch_size)."""

    type = "ImageData"
    messages = ("image_data_param", "transform_param")
    hints: ClassVar[Mapping[str, str]] = {
        "scale, mean_file, crop_size, mirror": "moved to transform_param, as Caffe does in V1 nets",
        "force_color, force_gray of transform_param": "is_color says it",
    }
    top_arity = Arity(least=2, most=2)

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.image_data_param
        if bool(p.new_height) != bool(p.new_width):
            raise self.error("new_height and new_width are given together or not at all")
        if p.batch_size < 1:
            raise self.error("batch_size must be positive")
        self.lines = labelled_names(p.source, self)
        if not self.lines:
            raise DataError(f"{self}: the list {p.source} is empty")
        self.transformer = Transformer(self, self.param.transform_param)
        self.position = 0
        if p.shuffle:
            self._shuffle()
        if p.rand_skip:
            self.position = int(torch.randint(0, p.rand_skip, ()))
            if self.position >= len(self.lines):
                raise self.error(f"rand_skip {p.rand_skip} can skip all {len(self.lines)} pictures")
        self.first = self._read(self.lines[self.position][0])

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        batch = self.param.image_data_param.batch_size
        channels, height, width = self.first.shape
        return [(batch, *self.transformer.shape(channels, height, width)), (batch,)]

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        lines = [self._next() for _ in range(self.param.image_data_param.batch_size)]
        try:
            images = transformed(self.transformer, [self._read(path) for path, _ in lines])
        except RuntimeError:
            raise self.error("the pictures differ in size: set new_height, new_width or crop_size") from None
        labels = torch.tensor([label for _, label in lines])
        return [images.to(self.device), labels.to(self.device)]

    def _next(self) -> tuple[str, float]:
        line = self.lines[self.position]
        self.position += 1
        if self.position == len(self.lines):
            self.position = 0
            if self.param.image_data_param.shuffle:
                self._shuffle()
        return line

    def _read(self, path: str) -> Tensor:
        p = self.param.image_data_param
        return pictures.read(
            Path(p.root_folder + path), color=p.is_color, height=p.new_height, width=p.new_width
        )

    def _shuffle(self) -> None:
        self.lines = [self.lines[i] for i in torch.randperm(len(self.lines)).tolist()]
