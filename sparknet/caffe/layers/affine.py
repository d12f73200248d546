"""Scale and Bias: multiply by, or add, a learned blob or a second bottom, along some of the axes.

Source: ``scale_layer.cpp`` and ``bias_layer.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparknet.caffe.layer import Arity, Gradients, Layer, Shapes, Tensors
from sparknet.caffe.schema.caffe_pb2 import BiasParameter, FillerParameter, ScaleParameter
from sparknet.weights import Shape


class _Aligned(Layer):
    """A blob whose axes are those of the first bottom from ``axis`` on."""

    bottom_arity = Arity(most=2)
    fresh_tops = True

    def _declare_operand(self, bottoms: Shapes, p: ScaleParameter | BiasParameter, default: float) -> None:
        """The blob of a layer without a second bottom."""
        self.first = 0 if p.num_axes == 0 and len(bottoms) == 1 else self.axis(p.axis, bottoms[0])
        if len(bottoms) > 1:
            return
        if p.num_axes < -1:
            raise self.error(f"num_axes is {p.num_axes}; it must be -1 (all) or more")
        end = len(bottoms[0]) if p.num_axes == -1 else self.first + p.num_axes
        if end > len(bottoms[0]):
            raise self.error(f"axis {p.axis} and num_axes {p.num_axes} exceed the shape {tuple(bottoms[0])}")
        filler = p.filler if p.HasField("filler") else FillerParameter(type="constant", value=default)
        self.declare(bottoms[0][self.first : end], filler)

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        operand = bottoms[1] if len(bottoms) > 1 else self.declarations[0].shape
        self.first = 0 if not operand else self.first
        along = tuple(bottoms[0][self.first : self.first + len(operand)])
        if tuple(operand) != along:
            raise self.error(
                f"a second operand of shape {tuple(operand)} does not fit axes {self.first} to "
                f"{self.first + len(operand) - 1} of a bottom of shape {tuple(bottoms[0])}"
            )
        return [tuple(bottoms[0])]

    def _spread(self, operand: Tensor, x: Tensor) -> Tensor:
        """``operand`` with axes of length 1 added, so that it broadcasts against ``x``."""
        trailing = x.dim() - self.first - operand.dim()
        return operand.reshape((*operand.shape, *[1] * trailing))

    def _reduced(self, diff: Tensor, shape: Sequence[int]) -> Tensor:
        """``diff`` summed over the axes that ``_spread`` added."""
        kept = range(self.first, self.first + len(shape))
        others = [i for i in range(diff.dim()) if i not in kept]
        return (diff.sum(others) if others else diff).reshape(tuple(shape))


class Scale(_Aligned):
    """y = x * scale, and + bias with ``bias_term``."""

    type = "Scale"
    messages = ("scale_param",)

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.scale_param
        self._declare_operand(bottoms, p, default=1.0)
        if p.bias_term:
            operand = bottoms[1] if len(bottoms) > 1 else self.declarations[0].shape
            self.declare(operand, p.bias_filler)

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        x, scale = bottoms[0], bottoms[1] if len(bottoms) > 1 else self.blobs[0].data
        self.saved = x, scale, len(bottoms)
        spread = self._spread(scale, x)
        if self.param.scale_param.bias_term:
            return [torch.addcmul(self._spread(self.blobs[-1].data, x), x, spread)]
        return [x * spread]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        x, scale, bottoms = self.saved
        wants_bias = self.param.scale_param.bias_term and self.wants_gradient[-1]
        wants = [propagate_down[0], self.wants_gradient[0] if bottoms == 1 else propagate_down[1], wants_bias]
        grad_x, grad_scale, grad_bias = self._gradients(top_diffs[0], x, scale, wants)
        if grad_bias is not None:
            self.gradient(len(self.blobs) - 1, grad_bias)
        if bottoms > 1:
            return [grad_x, grad_scale]
        if grad_scale is not None:
            self.gradient(0, grad_scale)
        return [grad_x]

    def _gradients(self, diff: Tensor, x: Tensor, scale: Tensor, wants: list[bool]) -> list[Tensor | None]:
        """Of x, scale and bias, those wanted."""
        if self.first == scale.dim() == 1 and x.dim() > 1 and x.numel():
            return self._by_channel(diff, x, scale, wants)
        return [
            diff * self._spread(scale, x) if wants[0] else None,
            self._reduced(diff * x, scale.shape) if wants[1] else None,
            self._reduced(diff, scale.shape) if wants[2] else None,
        ]

    def _by_channel(self, diff: Tensor, x: Tensor, scale: Tensor, wants: list[bool]) -> list[Tensor | None]:
        """The same in one pass: a scale per channel is a batch normalisation with mean 0 and variance 1."""
        mean, variance = torch.zeros_like(scale), torch.ones_like(scale)
        found = torch.ops.aten.native_batch_norm_backward(
            diff, x, scale, mean, variance, mean, variance, False, 0.0, wants
        )
        return [gradient if want else None for gradient, want in zip(found, wants, strict=True)]


class Bias(_Aligned):
    """y = x + bias."""

    type = "Bias"
    messages = ("bias_param",)

    def configure(self, bottoms: Shapes) -> None:
        self._declare_operand(bottoms, self.param.bias_param, default=0.0)

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        bias = bottoms[1] if len(bottoms) > 1 else self.blobs[0].data
        self.saved = bias.shape
        return [bottoms[0] + self._spread(bias, bottoms[0])]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        diff = top_diffs[0]
        gradients: Gradients = [diff if propagate_down[0] else None]
        if self.blobs:
            if self.wants_gradient[0]:
                self.gradient(0, self._reduced(diff, self.saved))
            return gradients
        return [*gradients, self._reduced(diff, self.saved) if propagate_down[1] else None]
