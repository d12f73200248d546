"""Convolution, Deconvolution and Im2col.

Weights are (out, in / group, *kernel) for a convolution and (in, out / group, *kernel) for a deconvolution;
the kernel is not flipped. Source: ``base_conv_layer.cpp`` and ``im2col_layer.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sparknet.caffe.layers.kernel import Kernel, convolution_kernel
from sparknet.caffe.layers.layer import ANY, ONE_ENGINE, Gradients, Layer, Shapes, TapeLayer, Tensors
from sparknet.caffe.precision import Arithmetic
from sparknet.weights import Shape

_HINTS = {**ONE_ENGINE, "force_nd_im2col": "there is one implementation"}


class Convolution(Layer):
    """Cross-correlation with learned kernels; several bottoms share them."""

    type = "Convolution"
    arithmetic = Arithmetic.LOW
    messages = ("convolution_param",)
    hints = _HINTS
    bottom_arity = top_arity = ANY
    same_count = True
    fresh_tops = True
    transposed = False

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.convolution_param
        self.channel_axis = self.axis(p.axis, bottoms[0])
        self.kernel = convolution_kernel(self, p, self._spatial_axes(bottoms[0]))
        channels, self.outputs, self.group = bottoms[0][self.channel_axis], p.num_output, p.group
        if self.outputs < 1 or self.group < 1:
            raise self.error("num_output and group must be positive")
        if channels % self.group or self.outputs % self.group:
            raise self.error(
                f"group {self.group} divides not both the {channels} channels of the bottom and the "
                f"{self.outputs} of num_output"
            )
        self.channels = channels
        first, second = (channels, self.outputs) if self.transposed else (self.outputs, channels)
        self.declare((first, second // self.group, *self.kernel.size), p.weight_filler)
        if p.bias_term:
            self.declare((self.outputs,), p.bias_filler)

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        for shape in bottoms:
            if shape[self.channel_axis :][:1] != (self.channels,) or len(shape) != len(bottoms[0]):
                raise self.error(
                    f"the kernels are for {self.channels} channels on axis {self.channel_axis}, "
                    f"and a bottom has shape {tuple(shape)}"
                )
        return [self._top_shape(shape) for shape in bottoms]

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        self.saved = [self._batched(bottom) for bottom in bottoms]
        weight, *rest = (blob.data.to(self.saved[0].dtype) for blob in self.blobs)
        bias = rest[0] if rest else None
        tops = [
            torch.convolution(
                x, weight, bias, self._stride(x), self.kernel.pad, self.kernel.dilation,
                self.transposed, [0] * len(self.kernel.size), self.group,
            )
            for x in self.saved
        ]  # fmt: skip
        if self.channel_axis == 1:
            return tops
        return [top.reshape(self._top_shape(b.shape)) for top, b in zip(tops, bottoms, strict=True)]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        return [
            self._backward_one(x, diff, want)
            for x, diff, want in zip(self.saved, top_diffs, propagate_down, strict=True)
        ]

    def _backward_one(self, x: Tensor, diff: Tensor, want: bool) -> Tensor | None:
        has_bias = len(self.blobs) > 1
        wants = [want, self.wants_gradient[0], has_bias and self.wants_gradient[1]]
        if not any(wants):
            return None
        leading = diff.shape[: self.channel_axis]
        diff = diff if self.channel_axis == 1 else diff.reshape(-1, *diff.shape[self.channel_axis :])
        grad_x, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            _fast_layout(diff), x, self.blobs[0].data.to(x.dtype), [self.outputs] if has_bias else None,
            self._stride(x), self.kernel.pad, self.kernel.dilation,
            self.transposed, [0] * len(self.kernel.size), self.group, wants,
        )  # fmt: skip
        for i, grad in enumerate((grad_weight, grad_bias)):
            if wants[i + 1]:
                self.gradient(i, grad)
        if not want or self.channel_axis == 1:
            return grad_x  # type: ignore[no-any-return]
        return grad_x.reshape(*leading, *x.shape[1:])  # type: ignore[no-any-return]

    def _batched(self, bottom: Tensor) -> Tensor:
        """All axes before the channels as one."""
        if self.channel_axis != 1:
            bottom = bottom.reshape(-1, *bottom.shape[self.channel_axis :])
        return _fast_layout(bottom)

    def _stride(self, x: Tensor) -> tuple[int, ...]:
        """The stride, but along an axis with one window, where it plays no part, 1: huge ones break torch."""
        windows = x.shape[2:] if self.transposed else self.kernel.outputs(x.shape[2:])
        return tuple(1 if n == 1 else s for n, s in zip(windows, self.kernel.stride, strict=True))

    def _spatial_axes(self, shape: Shape) -> int:
        axes = len(shape) - self.channel_axis - 1
        if not 1 <= axes <= 3:
            raise self.error(
                f"a bottom of shape {tuple(shape)} has {axes} spatial axes after the channels (axis "
                f"{self.channel_axis}); 1, 2 or 3 are possible"
            )
        return axes

    def _top_shape(self, shape: Shape) -> Shape:
        spatial = shape[self.channel_axis + 1 :]
        outputs = self.kernel.inputs(spatial) if self.transposed else self.kernel.outputs(spatial)
        if min(outputs) < 1:
            raise self.error(
                f"a kernel of {self.kernel.extent} does not fit a bottom of shape {tuple(shape)}"
            )
        return (*shape[: self.channel_axis], self.outputs, *outputs)


class Deconvolution(Convolution):
    """Convolution run backward: learned upsampling."""

    type = "Deconvolution"
    transposed = True


class Im2col(TapeLayer):
    """The windows of a convolution as columns: (N, C, ...) -> (N, C * kernel, *outputs)."""

    type = "Im2col"
    arithmetic = Arithmetic.ANY
    messages = ("convolution_param",)
    hints: ClassVar[Mapping[str, str]] = {
        **_HINTS,
        "num_output, bias_term, group, weight_filler, bias_filler": "it has no weights",
    }

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.convolution_param
        self.channel_axis = self.axis(p.axis, bottoms[0])
        self.spatial_axes = len(bottoms[0]) - self.channel_axis - 1
        if not self.spatial_axes:
            raise self.error(f"a bottom of shape {tuple(bottoms[0])} has no axis after the channels")
        self.kernel: Kernel = convolution_kernel(self, p, self.spatial_axes)

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        shape, a = tuple(bottoms[0]), self.channel_axis
        if len(shape) != a + 1 + self.spatial_axes:
            raise self.error(f"the kernel is for {self.spatial_axes} axes, and a bottom has shape {shape}")
        outputs = self.kernel.outputs(shape[a + 1 :])
        if min(outputs) < 1:
            raise self.error(f"a kernel of {self.kernel.extent} does not fit a bottom of shape {shape}")
        return [(*shape[:a], shape[a] * math.prod(self.kernel.size), *outputs)]

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        a, k, axes = self.channel_axis, self.kernel, self.spatial_axes
        margins = [margin for pad in reversed(k.pad) for margin in (pad, pad)]
        windows = F.pad(bottoms[0], margins)  # (.., C, *spatial), then (.., C, *outputs, *kernel)
        for i, (extent, stride, dilation) in enumerate(zip(k.extent, k.stride, k.dilation, strict=True)):
            windows = windows.unfold(a + 1 + i, extent, stride)[..., ::dilation]
        first = windows.dim() - axes
        order = [*range(a + 1), *range(first, windows.dim()), *range(a + 1, first)]
        return [windows.permute(order).reshape(self.top_shapes([tuple(bottoms[0].shape)])[0])]


def _fast_layout(x: Tensor) -> Tensor:
    """Channels last for pictures, on a GPU in low precision only: where it is faster; else contiguous."""
    if x.dim() != 4 or (x.device.type != "cpu" and x.dtype == torch.float32):
        return x.contiguous()
    if x.shape[1] != 1:
        return x.contiguous(memory_format=torch.channels_last)
    # both layouts are the same memory here; only the strides tell the kernels which is meant
    _, _, height, width = x.shape
    return x.contiguous().as_strided(x.shape, (height * width, 1, width, 1))
