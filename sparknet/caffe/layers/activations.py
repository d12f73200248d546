"""Layers that act on each element by itself: ReLU and the other activation functions.

Source: the ``*_layer.cpp`` of the same names in BVLC Caffe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sparknet.caffe.layer import ONE_ENGINE, Gradients, Layer, Shapes, TapeLayer, Tensors
from sparknet.caffe.precision import Arithmetic
from sparknet.caffe.schema.caffe_pb2 import FillerParameter


class Neuron(Layer):
    """y = f(x) element by element; its gradient is made of x and y as they are in the blobs by then.

    In place, or with an in-place layer after it, that is not always the derivative (a Clip in place, a
    Dropout in place on a Sigmoid), but it is what Caffe trains with.
    """

    rereads = True

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        top = self.value(bottoms[0])
        self.saved = bottoms[0], top
        return [top]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        return [self.slope(top_diffs[0], *self.saved) if propagate_down[0] else None]

    def reread(self, bottom: Tensor, top: Tensor) -> None:
        self.saved = bottom, top

    def value(self, x: Tensor) -> Tensor:
        """f(x)."""
        raise NotImplementedError

    def slope(self, diff: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """``diff`` times f'."""
        raise NotImplementedError


class ReLU(Neuron):
    """max(x, 0) + negative_slope * min(x, 0); the gradient at 0 is the slope."""

    type = "ReLU"
    arithmetic = Arithmetic.ANY
    messages = ("relu_param",)
    hints = ONE_ENGINE

    def value(self, x: Tensor) -> Tensor:
        slope = self.param.relu_param.negative_slope
        if slope:
            return torch.nn.functional.leaky_relu(x, slope)
        return x.relu_() if self.may_overwrite else x.relu()

    def slope(self, diff: Tensor, x: Tensor, y: Tensor) -> Tensor:
        slope = self.param.relu_param.negative_slope
        if slope:
            return torch.ops.aten.leaky_relu_backward(diff, x, slope, False)  # type: ignore[no-any-return]
        return torch.ops.aten.threshold_backward(diff, x, 0)  # type: ignore[no-any-return]


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


class ELU(Neuron):
    """x, or alpha * (exp(x) - 1) for x <= 0."""

    type = "ELU"
    messages = ("elu_param",)

    def value(self, x: Tensor) -> Tensor:
        return torch.nn.functional.elu(x, self.param.elu_param.alpha)

    def slope(self, diff: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return torch.where(x > 0, diff, diff * (y + self.param.elu_param.alpha))


class Sigmoid(Neuron):
    """1 / (1 + exp(-x))."""

    type = "Sigmoid"
    messages = ("sigmoid_param",)
    hints = ONE_ENGINE

    def value(self, x: Tensor) -> Tensor:
        return x.sigmoid()

    def slope(self, diff: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return torch.ops.aten.sigmoid_backward(diff, y)  # type: ignore[no-any-return]


class TanH(Neuron):
    """tanh(x)."""

    type = "TanH"
    messages = ("tanh_param",)
    hints = ONE_ENGINE

    def value(self, x: Tensor) -> Tensor:
        return x.tanh()

    def slope(self, diff: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return torch.ops.aten.tanh_backward(diff, y)  # type: ignore[no-any-return]


class AbsVal(TapeLayer):
    """abs(x); the gradient at 0 is 0."""

    type = "AbsVal"
    may_be_in_place = False
    arithmetic = Arithmetic.ANY

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        return [bottoms[0].abs()]


class Power(Neuron):
    """(shift + scale * x) ^ power."""

    type = "Power"
    messages = ("power_param",)

    def value(self, x: Tensor) -> Tensor:
        p = self.param.power_param
        if p.power * p.scale == 0:  # a constant, even where x is infinite
            return torch.full_like(x, p.shift if p.power else 1.0).pow(p.power)
        inner = x * p.scale + p.shift
        return inner if p.power == 1 else inner.pow(p.power)

    def slope(self, diff: Tensor, x: Tensor, y: Tensor) -> Tensor:
        p = self.param.power_param
        factor = p.power * p.scale
        if factor == 0 or p.power == 1:
            return diff * factor
        inner = x * p.scale + p.shift
        if p.power == 2:
            return diff * inner * factor
        ratio = torch.where(inner == 0, inner.pow(p.power - 1), y / inner)  # Caffe's, but not 0 / 0
        return diff * ratio * factor

    def reread(self, bottom: Tensor, top: Tensor) -> None:
        if bottom is not top:  # in place Caffe squares a constant, whatever comes from above: not kept
            super().reread(bottom, top)


class Exp(Neuron):
    """base ^ (shift + scale * x); base -1 is e."""

    type = "Exp"
    messages = ("exp_param",)

    def configure(self, bottoms: Shapes) -> None:
        self.log_base = _log_base(self, self.param.exp_param.base)

    def value(self, x: Tensor) -> Tensor:
        p = self.param.exp_param
        return ((x * p.scale + p.shift) * self.log_base).exp()

    def slope(self, diff: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return diff * y * (self.param.exp_param.scale * self.log_base)


class Log(Neuron):
    """The logarithm to ``base`` (-1 is e) of shift + scale * x."""

    type = "Log"
    rereads = False  # in place Caffe multiplies what is no gradient: not kept
    messages = ("log_param",)

    def configure(self, bottoms: Shapes) -> None:
        self.log_base = _log_base(self, self.param.log_param.base)
        if not self.log_base:
            raise self.error("base is 1, to which there is no logarithm")

    def value(self, x: Tensor) -> Tensor:
        p = self.param.log_param
        return (x * p.scale + p.shift).log() / self.log_base

    def slope(self, diff: Tensor, x: Tensor, y: Tensor) -> Tensor:
        p = self.param.log_param
        return diff * (p.scale / self.log_base) / (x * p.scale + p.shift)


class BNLL(Neuron):
    """log(1 + exp(x)), the binomial normal log likelihood; the gradient sees x cut at 50."""

    type = "BNLL"

    def value(self, x: Tensor) -> Tensor:
        return x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))

    def slope(self, diff: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return diff * x.clamp(max=50).sigmoid()


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


class Clip(Neuron):
    """x kept between ``min`` and ``max``."""

    type = "Clip"
    arithmetic = Arithmetic.ANY
    messages = ("clip_param",)

    def configure(self, bottoms: Shapes) -> None:
        if not self.param.HasField("clip_param"):
            raise self.error("needs clip_param { min: .. max: .. }")

    def value(self, x: Tensor) -> Tensor:
        p = self.param.clip_param
        return x.clamp(max=p.max).clamp(min=p.min)  # in this order where min > max

    def slope(self, diff: Tensor, x: Tensor, y: Tensor) -> Tensor:
        p = self.param.clip_param
        return diff * ((x >= p.min) & (x <= p.max))


class Swish(Neuron):
    """x * sigmoid(beta * x)."""

    type = "Swish"
    messages = ("swish_param",)

    def value(self, x: Tensor) -> Tensor:
        self.gate = (x * self.param.swish_param.beta).sigmoid()
        return x * self.gate

    def slope(self, diff: Tensor, x: Tensor, y: Tensor) -> Tensor:
        inner = y * self.param.swish_param.beta
        return diff * (inner + self.gate * (1 - inner))


def _log_base(layer: Layer, base: float) -> float:
    if base == -1:
        return 1.0
    if not 0 < base < math.inf:
        raise layer.error(f"base is {base:g}; it must be positive and finite, or -1 for e")
    return math.log(base)
