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

from sparknet.caffe.layer import ANY, ONE_ENGINE, Gradients, Layer, Shapes, TapeLayer, Tensors
from sparknet.caffe.layers import many_axes
from sparknet.caffe.layers.kernel import Kernel, convolution_kernel
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
        self.saved = [self._widened(self._batched(bottom)) for bottom in bottoms]
        self.spatial = [tuple(bottom.shape[self.channel_axis + 1 :]) for bottom in bottoms]
        weight, *rest = (blob.data.to(self.saved[0].dtype) for blob in self.blobs)
        bias = rest[0] if rest else None
        tops = [self._top(x, weight, bias) for x in self.saved]
        if self.channel_axis == 1:
            return tops
        return [top.reshape(self._top_shape(b.shape)) for top, b in zip(tops, bottoms, strict=True)]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        return [
            self._backward_one(x, diff, want, spatial)
            for x, diff, want, spatial in zip(
                self.saved, top_diffs, propagate_down, self.spatial, strict=True
            )
        ]

    def _backward_one(self, x: Tensor, diff: Tensor, want: bool, spatial: Shape) -> Tensor | None:
        has_bias = len(self.blobs) > 1
        wants = [want, self.wants_gradient[0], has_bias and self.wants_gradient[1]]
        if not any(wants):
            return None
        leading = diff.shape[: self.channel_axis]
        diff = diff if self.channel_axis == 1 else diff.reshape(-1, *diff.shape[self.channel_axis :])
        find = self._gradients if self.is_torchs else self._gradients_of_many_axes
        grad_x, grad_weight, grad_bias = find(_fast_layout(diff), x, self.blobs[0].data.to(x.dtype), wants)
        for i, grad in enumerate((grad_weight, grad_bias)):
            if wants[i + 1]:
                self.gradient(i, grad)
        if not want:
            return grad_x
        for axis, length in enumerate(spatial, 2):
            grad_x = grad_x.narrow(axis, 0, length)
        return grad_x if self.channel_axis == 1 else grad_x.reshape(*leading, *grad_x.shape[1:])

    def _top(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        k = self.kernel
        if self.is_torchs:
            return torch.convolution(
                x, weight, bias, self._stride(x), k.pad, k.dilation,
                self.transposed, [0] * len(k.size), self.group,
            )  # fmt: skip
        if self.transposed:
            top = many_axes.scatter(x, weight, k, self.group, k.inputs(x.shape[2:]))
        else:
            top = many_axes.gather(x, weight, k, self.group)
        return top if bias is None else top + bias.view(-1, *[1] * len(k.size))

    def _gradients(
        self, diff: Tensor, x: Tensor, weight: Tensor, wants: Sequence[bool]
    ) -> tuple[Tensor, ...]:
        return torch.ops.aten.convolution_backward(  # type: ignore[no-any-return]
            diff, x, weight, [self.outputs] if wants[2] else None, self._stride(x), self.kernel.pad,
            self.kernel.dilation, self.transposed, [0] * len(self.kernel.size), self.group, wants,
        )  # fmt: skip

    def _gradients_of_many_axes(
        self, diff: Tensor, x: Tensor, weight: Tensor, wants: Sequence[bool]
    ) -> tuple[Tensor, ...]:
        k, group = self.kernel, self.group
        if self.transposed:
            grad_x = many_axes.gather(diff, weight, k, group)
            grad_weight = many_axes.weight_gradient(x, diff, weight, k, group)
        else:
            grad_x = many_axes.scatter(diff, weight, k, group, x.shape[2:])
            grad_weight = many_axes.weight_gradient(diff, x, weight, k, group)
        return grad_x, grad_weight, diff.sum([0, *range(2, diff.dim())])

    def _batched(self, bottom: Tensor) -> Tensor:
        """All axes before the channels as one."""
        if self.channel_axis != 1:
            bottom = bottom.reshape(-1, *bottom.shape[self.channel_axis :])
        return _fast_layout(bottom)

    def _widened(self, x: Tensor) -> Tensor:
        """With zeros at the ends of the axes that a window is larger than."""
        if self.transposed or not any(overhang := self.kernel.overhang(x.shape[2:])):
            return x
        return F.pad(x, [margin for size in reversed(overhang) for margin in (0, size)])

    def _stride(self, x: Tensor) -> tuple[int, ...]:
        """The stride, but no longer than it plays a part: huge ones break torch."""
        k = self.kernel
        if self.transposed:
            return tuple(1 if n == 1 else s for n, s in zip(x.shape[2:], k.stride, strict=True))
        geometry = zip(x.shape[2:], k.pad, k.extent, k.stride, strict=True)
        return tuple(min(stride, n + 2 * pad - extent + 1) for n, pad, extent, stride in geometry)

    def _spatial_axes(self, shape: Shape) -> int:
        axes = len(shape) - self.channel_axis - 1
        self.is_torchs = 1 <= axes <= 3  # for which torch has kernels
        return axes

    def _top_shape(self, shape: Shape) -> Shape:
        spatial = shape[self.channel_axis + 1 :]
        outputs = self.kernel.inputs(spatial) if self.transposed else self.kernel.outputs(spatial)
        if min(outputs, default=1) < 1:
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
        a, axes = self.channel_axis, self.spatial_axes
        overhang = self.kernel.overhang(bottoms[0].shape[a + 1 :])
        widened = F.pad(bottoms[0], [margin for size in reversed(overhang) for margin in (0, size)])
        windows = many_axes.windows(widened, self.kernel, a + 1)  # (.., C, *outputs, *kernel)
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
