"""Convolution, Deconvolution and Im2col.

Weights are (out, in / group, *kernel) for a convolution and (in, out / group, *kernel) for a deconvolution;
the kernel is not flipped. Source: ``base_conv_layer.cpp`` and ``im2col_layer.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from sparknet.caffe.layers.kernel import Kernel, convolution_kernel
from sparknet.caffe.layers.layer import ANY, ONE_ENGINE, Gradients, Layer, Shapes, TapeLayer, Tensors
from sparknet.weights import Shape

_HINTS = {**ONE_ENGINE, "force_nd_im2col": "there is one implementation"}


class Convolution(Layer):
    """Cross-correlation with learned kernels; several bottoms share them."""

    type = "Convolution"
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
        weight, bias = self.blobs[0].data, self.blobs[1].data if len(self.blobs) > 1 else None
        self.saved = [self._batched(bottom) for bottom in bottoms]
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
            _fast_layout(diff), x, self.blobs[0].data, [self.outputs] if has_bias else None,
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
    """The windows of a convolution as columns: (N, C, H, W) -> (N, C * kernel, out_h, out_w)."""

    type = "Im2col"
    messages = ("convolution_param",)
    hints: ClassVar[Mapping[str, str]] = {
        **_HINTS,
        "num_output, bias_term, group, weight_filler, bias_filler": "it has no weights",
    }

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.convolution_param
        if self.axis(p.axis, bottoms[0]) != 1 or len(bottoms[0]) != 4:
            raise self.error(
                f"needs a bottom (N, C, H, W) and axis 1, not {tuple(bottoms[0])} and axis {p.axis}"
            )
        self.kernel: Kernel = convolution_kernel(self, p, 2)

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        n, channels, *spatial = bottoms[0]
        outputs = self.kernel.outputs(spatial)
        if min(outputs) < 1:
            raise self.error(
                f"a kernel of {self.kernel.extent} does not fit a bottom of shape {tuple(bottoms[0])}"
            )
        return [(n, channels * self.kernel.size[0] * self.kernel.size[1], *outputs)]

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        k = self.kernel
        columns = F.unfold(bottoms[0], k.size, k.dilation, k.pad, k.stride)
        return [columns.view(self.top_shapes([tuple(bottoms[0].shape)])[0])]


def _fast_layout(x: Tensor) -> Tensor:
    """Channels last for pictures on the CPU, where its kernels are faster; contiguous otherwise."""
    if x.dim() != 4 or x.device.type != "cpu":
        return x.contiguous()
    if x.shape[1] != 1:
        return x.contiguous(memory_format=torch.channels_last)
    # both layouts are the same memory here; only the strides tell the kernels which is meant
    _, _, height, width = x.shape
    return x.contiguous().as_strided(x.shape, (height * width, 1, width, 1))
