"""Layers written in Python, for the tests of nets that have such layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sparknet import caffe


class Times(caffe.Layer):
    """Multiplies by the number in ``param_str``."""

    def setup(self, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        self.factor = float(self.param_str)

    def reshape(self, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        top[0].data[...] = self.factor * bottom[0].data

    def backward(self, top: Sequence[Any], propagate_down: Sequence[bool], bottom: Sequence[Any]) -> None:
        bottom[0].diff[...] = self.factor * top[0].diff


class Broken(caffe.Layer):
    """Cannot be set up."""

    def setup(self, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        raise ZeroDivisionError


class Learning(caffe.Layer):
    """Has a blob that begins at 5 and whose gradient is 1."""

    def setup(self, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        self.blobs.add_blob(1)
        self.blobs[0].data[0] = 5

    def reshape(self, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        pass

    def backward(self, top: Sequence[Any], propagate_down: Sequence[bool], bottom: Sequence[Any]) -> None:
        self.blobs[0].diff[0] = 1


class Phase(caffe.Layer):
    """Its top is the phase."""

    def reshape(self, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        top[0].reshape()

    def forward(self, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        top[0].data[()] = self.phase


class HalfSquare(caffe.Layer):
    """Half the sum of squares, as a loss."""

    def reshape(self, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        top[0].reshape(1)

    def forward(self, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        top[0].data[...] = 0.5 * np.sum(bottom[0].data ** 2)

    def backward(self, top: Sequence[Any], propagate_down: Sequence[bool], bottom: Sequence[Any]) -> None:
        bottom[0].diff[...] = top[0].diff[0] * bottom[0].data
