"""A net that classifies images: resized, cropped, and scored crop by crop, as pycaffe's ``Classifier``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparknet.caffe import io
from sparknet.caffe.pycaffe.net import Net
from sparknet.caffe.schema.caffe_pb2 import TEST

CROPS = 10  # of io.oversample


class Classifier(Net):
    """``predict`` gives the first output of the net for each image.

    ``image_dims`` (height, width) is what images are resized to before they are cropped to the input of the
    net; the net's input size unless given. The rest are settings of ``io.Transformer`` for the first input.
    """

    def __init__(
        self,
        model_file: str,
        pretrained_file: str,
        image_dims: Sequence[int] | None = None,
        mean: io.Array | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        self.transformer = image_transformer(
            self, mean=mean, input_scale=input_scale, raw_scale=raw_scale, channel_swap=channel_swap
        )
        self.crop_dims = np.array(self.blobs[self.inputs[0]].data.shape[2:])
        self.image_dims = self.crop_dims if image_dims is None else np.array(image_dims)

    def predict(self, inputs: Sequence[io.Array], oversample: bool = True) -> io.Array:
        """Scores ``(N, C)`` of images ``(H, W, K)``.

        Of the centre, or the mean over ten crops if ``oversample``.
        """
        images = np.stack([io.resize_image(image, self.image_dims) for image in inputs])
        crops = io.oversample(list(images), self.crop_dims) if oversample else self._centre(images)
        name = self.inputs[0]
        blob = np.stack([self.transformer.preprocess(name, crop) for crop in crops])
        scores: io.Array = self.forward_all(**{name: blob})[self.outputs[0]]
        if oversample:
            scores = scores.reshape(len(scores) // CROPS, CROPS, -1).mean(axis=1)
        return scores

    def _centre(self, images: io.Array) -> io.Array:
        top, left = ((self.image_dims - self.crop_dims) / 2.0).astype(int)
        height, width = self.crop_dims
        return images[:, top : top + height, left : left + width]


def image_transformer(net: Net, **settings: Any) -> io.Transformer:
    """The transformer from images to the first input of ``net``; settings that are None are left out."""
    name = net.inputs[0]
    transformer = io.Transformer({name: net.blobs[name].data.shape})
    transformer.set_transpose(name, (2, 0, 1))
    for setting, value in settings.items():
        if value is not None:
            getattr(transformer, f"set_{setting}")(name, value)
    return transformer
