"""Dropout: elements left out at random in training.

Source: ``dropout_layer.cpp`` of BVLC Caffe; Srivastava et al., 2014.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from sparknet.caffe.layer import Gradients, Layer, Shapes, Tensors
from sparknet.caffe.precision import Arithmetic
from sparknet.weights import Shape


class Dropout(Layer):
    """TRAIN: each element 0 with probability ``dropout_ratio``, else scaled to keep the mean. TEST: x."""

    type = "Dropout"
    arithmetic = Arithmetic.ANY
    messages = ("dropout_param",)

    def configure(self, bottoms: Shapes) -> None:
        if not 0 <= self.param.dropout_param.dropout_ratio < 1:
            raise self.error(
                f"dropout_ratio is {self.param.dropout_param.dropout_ratio:g}; it lies between 0 and 1"
            )

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        return [tuple(bottoms[0])]

    def forward(self, bottoms: Tensors) -> list[torch.Tensor]:
        if not self.is_training:
            return [bottoms[0]]
        top, self.saved = torch.native_dropout(bottoms[0], self.param.dropout_param.dropout_ratio, True)
        return [top]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        if not propagate_down[0]:
            return [None]
        if not self.is_training:
            return [top_diffs[0]]
        scale = 1 / (1 - self.param.dropout_param.dropout_ratio)
        return [torch.ops.aten.native_dropout_backward(top_diffs[0], self.saved, scale)]
