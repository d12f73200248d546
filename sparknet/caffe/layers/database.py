"""Data: labelled pictures from an LMDB or a LevelDB of Caffe's Datum records, in key order, over and over.

Source: ``data_layer.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from sparknet.caffe.files.datum import parsed, raw_pixels
from sparknet.caffe.layer import Arity, Shapes, Tensors
from sparknet.caffe.layers import pictures
from sparknet.caffe.layers.records import LevelDb, Lmdb, forever, open_records
from sparknet.caffe.layers.source import SourceLayer
from sparknet.caffe.layers.transform import Transformer, transformed
from sparknet.caffe.schema.caffe_pb2 import DataParameter, Datum
from sparknet.weights import Shape


class Data(SourceLayer):
    """Tops: pictures float32 (batch_size, C, H, W), transformed, and labels (batch_size)."""

    type = "Data"
    messages = ("data_param", "transform_param")
    hints: ClassVar[Mapping[str, str]] = {
        "prefetch": "records are read when a batch is asked for",
        "scale, mean_file, crop_size, mirror": "moved to transform_param, as Caffe does in V1 nets",
    }
    top_arity = Arity(least=1, most=2)

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.data_param
        if p.batch_size < 1:
            raise self.error("batch_size must be given and positive")
        records = open_records(p.source, Lmdb if p.backend == DataParameter.LMDB else LevelDb)
        self.transformer = Transformer(self, self.param.transform_param)
        self.cursor = forever(records)
        self.first = self._image(parsed(next(records.once())[1], p.source), p.source)
        for _ in range(int(torch.randint(0, p.rand_skip, ())) if p.rand_skip else 0):
            next(self.cursor)

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        batch = self.param.data_param.batch_size
        channels, height, width = self.first.shape
        image = self.transformer.shape(channels, height, width)
        return [(batch, *image), (batch,)][: self.tops_named]

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        images, labels = [], []
        for _ in range(self.param.data_param.batch_size):
            key, value = next(self.cursor)
            datum = parsed(value, f"{self.param.data_param.source} record {key!r}")
            images.append(self._image(datum, self.param.data_param.source))
            labels.append(datum.label)
        try:
            batch = transformed(self.transformer, images).to(self.device)
        except RuntimeError:
            raise self.error("the records differ in size: set transform_param { crop_size }") from None
        return [batch, torch.tensor(labels, dtype=torch.float32, device=self.device)][: self.tops_named]

    def _image(self, datum: Datum, where: str) -> Tensor:
        t = self.param.transform_param
        if not datum.encoded:
            return torch.from_numpy(raw_pixels(datum, where).copy())
        if t.force_color and t.force_gray:
            raise self.error("force_color and force_gray are both set")
        color = True if t.force_color or self.param.data_param.force_encoded_color else None
        return pictures.decode(datum.data, where, color=False if t.force_gray else color)
