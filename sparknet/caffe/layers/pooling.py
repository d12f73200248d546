"""Pooling: MAX (with mask), AVE and STOCHASTIC over windows of a picture.

The last window may reach beyond the picture (``round_mode: CEIL``, Caffe's default), but must begin inside
it. AVE divides by the part of the window inside the padded picture, padding counted. Source:
``pooling_layer.cpp`` and ``pooling_layer.cu`` of BVLC Caffe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparknet.caffe.layer import ONE_ENGINE, Arity, Gradients, Layer, Shapes, Tensors
from sparknet.caffe.precision import Arithmetic
from sparknet.caffe.schema.caffe_pb2 import PoolingParameter
from sparknet.weights import Shape

Pair = tuple[int, int]


class Pooling(Layer):
    """(N, C, H, W) -> (N, C, out_h, out_w); a second top of MAX is the winner's index in the H x W plane."""

    type = "Pooling"
    arithmetic = Arithmetic.ANY
    messages = ("pooling_param",)
    hints = ONE_ENGINE
    top_arity = Arity(most=2)
    fresh_tops = True

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.pooling_param
        self._check_bottom(bottoms[0])
        self.method = p.pool
        if self.method == PoolingParameter.STOCHASTIC:  # it adds up windows to draw from them
            self.arithmetic = Arithmetic.FULL
        self.ceil_mode = p.round_mode == PoolingParameter.CEIL
        self.pad: Pair = _pair(self, p, "pad")
        self.stride: Pair = _pair(self, p, "stride")
        self.size: Pair | None = None if p.global_pooling else _pair(self, p, "kernel_size")
        self._check(p)

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        self._check_bottom(bottoms[0])
        n, channels, height, width = bottoms[0]
        size = self.size or (height, width)
        out = [self._outputs(length, axis, size[axis]) for axis, length in enumerate((height, width))]
        if min(out) < 1:
            raise self.error(f"a window of {size} does not fit a bottom of shape {tuple(bottoms[0])}")
        return [(n, channels, *out)] * max(1, self.tops_named)

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        x = bottoms[0]
        size = self.size or tuple(x.shape[2:])
        if self.method == PoolingParameter.MAX:
            return self._forward_max(x, size)
        if self.method == PoolingParameter.AVE:
            return self._forward_average(x, size)
        return self._forward_stochastic(x, size)

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        if not propagate_down[0]:
            return [None]
        if self.method == PoolingParameter.MAX:
            return [self._backward_max(top_diffs[0])]
        if self.method == PoolingParameter.AVE:
            return [self._backward_average(top_diffs[0])]
        return [self._backward_stochastic(top_diffs[0])]

    # ---- MAX

    def _forward_max(self, x: Tensor, size: Any) -> list[Tensor]:
        padded, pad = self._padded(x, size, -torch.inf)
        top, where = torch.ops.aten.max_pool2d_with_indices(
            padded, size, self.stride, pad, [1, 1], self.ceil_mode
        )
        self.saved = padded, where, size, pad, x.shape
        if self.tops_named < 2:
            return [top]
        return [top, self._index_in_plane(where, padded, x).to(torch.float32)]

    def _backward_max(self, diff: Tensor) -> Tensor:
        x, where, size, pad, shape = self.saved
        grad = torch.ops.aten.max_pool2d_with_indices_backward(
            _as(diff, x), x, size, self.stride, pad, [1, 1], self.ceil_mode, where
        )
        return self._cut(grad, shape, size)

    def _index_in_plane(self, where: Tensor, padded: Tensor, x: Tensor) -> Tensor:
        if padded is x:
            return where
        row, column = where // padded.shape[3] - self.pad[0], where % padded.shape[3] - self.pad[1]
        return row * x.shape[3] + column

    # ---- AVE

    def _forward_average(self, x: Tensor, size: Any) -> list[Tensor]:
        padded, pad = self._padded(x, size, 0.0)
        self.saved = padded, size, pad, x.shape
        return [torch.ops.aten.avg_pool2d(padded, size, self.stride, pad, self.ceil_mode, True, None)]

    def _backward_average(self, diff: Tensor) -> Tensor:
        x, size, pad, shape = self.saved
        grad = torch.ops.aten.avg_pool2d_backward(
            _as(diff, x), x, size, self.stride, pad, self.ceil_mode, True, None
        )
        return self._cut(grad, shape, size)

    # ---- STOCHASTIC (Zeiler and Fergus, 2013)

    def _forward_stochastic(self, x: Tensor, size: Any) -> list[Tensor]:
        """TRAIN: an element drawn with probability proportional to its value. TEST: their expectation."""
        windows, columns = self._windows(x, size)
        if not self.is_training:
            tiny = torch.finfo(x.dtype).tiny
            self.saved = None
            return [(windows.square().sum(-1) / (windows.sum(-1) + tiny))]
        sums = windows.cumsum(-1)
        threshold = torch.rand_like(sums[..., :1]) * sums[..., -1:]
        drawn = (sums < threshold).sum(-1, keepdim=True).clamp_(max=windows.shape[-1] - 1)
        self.saved = drawn, windows.shape, columns, size, x.shape
        return [windows.gather(-1, drawn).squeeze(-1)]

    def _backward_stochastic(self, diff: Tensor) -> Tensor:
        if self.saved is None:
            raise self.error("STOCHASTIC pooling has a gradient in phase TRAIN only, as in Caffe")
        drawn, windows, columns, size, shape = self.saved
        grad = torch.zeros(windows, device=diff.device).scatter_(-1, drawn, diff.unsqueeze(-1))
        n, channels, *_ = shape
        folded = (
            grad.view(n, channels, -1, size[0] * size[1])
            .transpose(2, 3)
            .reshape(n, -1, grad.shape[2] * grad.shape[3])
        )
        return F.fold(folded, columns, size, stride=self.stride)[:, :, : shape[2], : shape[3]]

    def _windows(self, x: Tensor, size: Any) -> tuple[Tensor, Pair]:
        """(N, C, out_h, out_w, window), zeros where a window reaches out; and the padded plane's size."""
        n, channels, height, width = x.shape
        out = [self._outputs(length, axis, size[axis]) for axis, length in enumerate((height, width))]
        full = [
            max((o - 1) * s + k, length)
            for o, s, k, length in zip(out, self.stride, size, (height, width), strict=True)
        ]
        padded = F.pad(x, (0, full[1] - width, 0, full[0] - height))
        columns = F.unfold(padded, size, stride=self.stride)
        shape = [(f - k) // s + 1 for f, k, s in zip(full, size, self.stride, strict=True)]
        windows = columns.view(n, channels, -1, *shape).permute(0, 1, 3, 4, 2)
        return windows[:, :, : out[0], : out[1]], (full[0], full[1])

    # ---- geometry

    def _outputs(self, length: int, axis: int, size: int) -> int:
        span = length + 2 * self.pad[axis] - size
        stride = self.stride[axis]
        count = (-(-span // stride) if self.ceil_mode else span // stride) + 1
        # the last window must begin inside the picture or its leading padding
        return count - 1 if (count - 1) * stride >= length + self.pad[axis] else count

    def _padded(self, x: Tensor, size: Any, value: float) -> tuple[Tensor, Pair]:
        """torch's kernels pad by half a window at most, Caffe by a whole one less 1: beyond, pad here."""
        if self.pad[0] * 2 <= size[0] and self.pad[1] * 2 <= size[1]:
            return x, self.pad
        return F.pad(x, self._margins(x.shape, size), value=value), (0, 0)

    def _margins(self, shape: torch.Size, size: Any) -> list[int]:
        """Padding left, right, top, bottom; negative where the last window ends before the picture does."""
        margins = []
        for axis, length in ((1, shape[3]), (0, shape[2])):
            pad = self.pad[axis]
            end = (self._outputs(length, axis, size[axis]) - 1) * self.stride[axis] + size[axis]
            margins += [pad, min(pad, end - length - pad)]
        return margins

    def _cut(self, grad: Tensor, shape: torch.Size, size: Any) -> Tensor:
        """The gradient of the picture, from that of what ``_padded`` made of it."""
        if grad.shape == shape:
            return grad
        return F.pad(grad, [-margin for margin in self._margins(shape, size)])

    def _check_bottom(self, shape: Shape) -> None:
        if len(shape) != 4:
            raise self.error(f"needs a bottom of 4 axes (N, C, H, W), not {tuple(shape)}")

    def _check(self, p: PoolingParameter) -> None:
        if p.global_pooling:
            if any(p.HasField(f) for f in ("kernel_size", "kernel_h", "kernel_w")):
                raise self.error("global_pooling takes the size of the bottom: give no kernel_size")
            if self.pad != (0, 0) or self.stride != (1, 1):
                raise self.error("global_pooling needs pad 0 and stride 1")
        if self.size and (self.pad[0] >= self.size[0] or self.pad[1] >= self.size[1]):
            raise self.error(f"pad {self.pad} must be smaller than the window {self.size}")
        if p.pool == PoolingParameter.STOCHASTIC and self.pad != (0, 0):
            raise self.error("STOCHASTIC pooling has no padding")
        if self.tops_named > 1 and p.pool != PoolingParameter.MAX:
            raise self.error("a second top (the mask) is for pool: MAX")


def _pair(layer: Layer, p: PoolingParameter, field: str) -> Pair:
    stem = field.removesuffix("_size")
    height, width = f"{stem}_h", f"{stem}_w"
    given = [p.HasField(height), p.HasField(width)]
    if any(given):
        if p.HasField(field):
            raise layer.error(f"{field} and {height}/{width} are both given: keep one")
        if not all(given):
            raise layer.error(f"{height} and {width} are given together or not at all")
        pair: Pair = (getattr(p, height), getattr(p, width))
    else:
        if field == "kernel_size" and not p.HasField("kernel_size"):
            raise layer.error("needs kernel_size, kernel_h and kernel_w, or global_pooling: true")
        pair = (getattr(p, field), getattr(p, field))
    if stem != "pad" and min(pair) < 1:
        raise layer.error(f"{field} must be positive, not {pair}")
    return pair


def _as(diff: Tensor, x: Tensor) -> Tensor:
    """``diff`` in the memory layout of ``x``, as the backward kernels want it."""
    if x.is_contiguous():
        return diff.contiguous()
    return diff.contiguous(memory_format=torch.channels_last)
