"""Layers that act on each element by itself: ReLU and the other activation functions.

Source: the ``*_layer.cpp`` of the same names in BVLC Caffe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sparknet.caffe.layers.layer import ONE_ENGINE, Gradients, Layer, Shapes, TapeLayer, Tensors
from sparknet.caffe.precision import Arithmetic
from sparknet.caffe.schema.caffe_pb2 import FillerParameter
from sparknet.weights import Shape


class ReLU(Layer):
    """max(x, 0) + negative_slope * min(x, 0); the gradient at 0 is the slope."""

    type = "ReLU"
    arithmetic = Arithmetic.ANY
    messages = ("relu_param",)
    hints = ONE_ENGINE

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        slope = self.param.relu_param.negative_slope
        if slope:
            self.saved = bottoms[0]
            return [torch.nn.functional.leaky_relu(bottoms[0], slope)]
        top = bottoms[0].relu_() if self.may_overwrite else bottoms[0].relu()
        self.saved = top
        return [top]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        if not propagate_down[0]:
            return [None]
        slope = self.param.relu_param.negative_slope
        if slope:
            return [torch.ops.aten.leaky_relu_backward(top_diffs[0], self.saved, slope, False)]
        return [torch.ops.aten.threshold_backward(top_diffs[0], self.saved, 0)]


class PReLU(TapeLayer):
    """As ReLU, with a learned slope per channel, or one for all with ``channel_shared``."""

    type = "PReLU"
    messages = ("prelu_param",)

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.prelu_param
        if len(bottoms[0]) < 2:
            raise self.error(f"needs a bottom with a channel axis, not {tuple(bottoms[0])}")
        filler = p.filler if p.HasField("filler") else FillerParameter(type="constant", value=0.25)
        self.declare(() if p.channel_shared else (bottoms[0][1],), filler)

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        x, slope = bottoms[0], parameters[0]
        if slope.dim():
            slope = slope.view(-1, *[1] * (x.dim() - 2))
        return [torch.where(x > 0, x, x * slope)]


class ELU(TapeLayer):
    """x, or alpha * (exp(x) - 1) for x <= 0."""

    type = "ELU"
    messages = ("elu_param",)

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        return [torch.nn.functional.elu(bottoms[0], self.param.elu_param.alpha)]


class Sigmoid(TapeLayer):
    """1 / (1 + exp(-x))."""

    type = "Sigmoid"
    messages = ("sigmoid_param",)
    hints = ONE_ENGINE

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        return [bottoms[0].sigmoid()]


class TanH(TapeLayer):
    """tanh(x)."""

    type = "TanH"
    messages = ("tanh_param",)
    hints = ONE_ENGINE

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        return [bottoms[0].tanh()]


class AbsVal(TapeLayer):
    """abs(x); the gradient at 0 is 0."""

    type = "AbsVal"
    arithmetic = Arithmetic.ANY

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        return [bottoms[0].abs()]


class Power(TapeLayer):
    """(shift + scale * x) ^ power."""

    type = "Power"
    messages = ("power_param",)

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        p = self.param.power_param
        if p.power * p.scale == 0:  # a constant, even where x is infinite; its gradient is 0
            return [torch.full_like(bottoms[0], p.shift if p.power else 1.0).pow(p.power)]
        inner = bottoms[0] * p.scale + p.shift
        return [inner if p.power == 1 else inner.pow(p.power)]


class Exp(TapeLayer):
    """base ^ (shift + scale * x); base -1 is e."""

    type = "Exp"
    messages = ("exp_param",)

    def configure(self, bottoms: Shapes) -> None:
        self.log_base = _log_base(self, self.param.exp_param.base)

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        p = self.param.exp_param
        return [((bottoms[0] * p.scale + p.shift) * self.log_base).exp()]


class Log(TapeLayer):
    """The logarithm to ``base`` (-1 is e) of shift + scale * x."""

    type = "Log"
    messages = ("log_param",)

    def configure(self, bottoms: Shapes) -> None:
        self.log_base = _log_base(self, self.param.log_param.base)

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        p = self.param.log_param
        return [(bottoms[0] * p.scale + p.shift).log() / self.log_base]


class BNLL(Layer):
    """log(1 + exp(x)), the binomial normal log likelihood; the gradient sees x cut at 50."""

    type = "BNLL"

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        self.saved = bottoms[0]
        x = bottoms[0]
        return [x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        return [top_diffs[0] * self.saved.clamp(max=50).sigmoid() if propagate_down[0] else None]


class Threshold(Layer):
    """1 where x > threshold, else 0. No gradient."""

    type = "Threshold"
    messages = ("threshold_param",)

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        return [(bottoms[0] > self.param.threshold_param.threshold).to(bottoms[0].dtype)]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        if propagate_down[0]:
            raise self.error("has no gradient; set propagate_down: false, or keep it away from a loss")
        return [None]


class Clip(TapeLayer):
    """x kept between ``min`` and ``max``."""

    type = "Clip"
    arithmetic = Arithmetic.ANY
    messages = ("clip_param",)

    def configure(self, bottoms: Shapes) -> None:
        if not self.param.HasField("clip_param"):
            raise self.error("needs clip_param { min: .. max: .. }")

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        return [bottoms[0].clamp(self.param.clip_param.min, self.param.clip_param.max)]


class Swish(TapeLayer):
    """x * sigmoid(beta * x)."""

    type = "Swish"
    messages = ("swish_param",)

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        return [bottoms[0] * (bottoms[0] * self.param.swish_param.beta).sigmoid()]


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

    def forward(self, bottoms: Tensors) -> list[Tensor]:
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


def _log_base(layer: Layer, base: float) -> float:
    if base == -1:
        return 1.0
    if base <= 0:
        raise layer.error(f"base is {base:g}; it must be positive, or -1 for e")
    return math.log(base)
