"""LRN: local response normalisation, across channels or within one.

    ACROSS_CHANNELS  y = x * (k + alpha / n * sum of x^2 over n channels) ^ -beta
    WITHIN_CHANNEL   y = x * (1 + alpha * mean of x^2 over n x n pixels, zeros outside) ^ -beta

``k`` plays no part within a channel, as in Caffe. Source: ``lrn_layer.cpp`` of BVLC Caffe; Krizhevsky et
al., 2012.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sparknet.caffe.layer import ONE_ENGINE, Gradients, Layer, Shapes, Tensors
from sparknet.caffe.schema.caffe_pb2 import LRNParameter
from sparknet.weights import Shape


class LRN(Layer):
    """(N, C, H, W) -> the same."""

    type = "LRN"
    messages = ("lrn_param",)
    hints = ONE_ENGINE
    fresh_tops = True
    rereads = True

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.lrn_param
        if p.local_size % 2 == 0:
            raise self.error(f"local_size is {p.local_size}; it must be odd")
        self.within = p.norm_region == LRNParameter.WITHIN_CHANNEL
        self.alpha, self.beta, self.size = p.alpha, p.beta, p.local_size
        self.k = 1.0 if self.within else p.k
        self.weight = self.alpha / (self.size**2 if self.within else self.size)

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        if len(bottoms[0]) != 4:
            raise self.error(f"needs a bottom of 4 axes (N, C, H, W), not {tuple(bottoms[0])}")
        return [tuple(bottoms[0])]

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        x = bottoms[0]
        scale = self._window_sum(x * x).mul_(self.weight).add_(self.k)
        factor = self._to_minus_beta(scale)
        top = x * factor
        self.saved = x, scale, factor, top
        return [top]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        if not propagate_down[0]:
            return [None]
        x, scale, factor, top = self.saved
        grad = top_diffs[0] * factor
        ratio = (grad * x if self.within else top_diffs[0] * top).div_(scale)
        return [torch.addcmul(grad, x, self._window_sum(ratio), value=-2 * self.beta * self.weight)]

    def reread(self, bottom: Tensor, top: Tensor) -> None:
        self.saved = (*self.saved[:3], top)

    def _to_minus_beta(self, scale: Tensor) -> Tensor:
        if self.beta != 0.75:
            return scale.pow(-self.beta)
        root = scale.rsqrt()  # the usual beta: roots are several times faster than a power
        return root.sqrt().mul_(root)

    def _window_sum(self, x: Tensor) -> Tensor:
        """Sum over the window around each element. Symmetric, so backward uses it too."""
        if self.within:
            pad = (self.size - 1) // 2
            return F.avg_pool2d(x, self.size, 1, pad, count_include_pad=True, divisor_override=1)
        band = self._band(x.shape[1])
        if x.is_contiguous():
            return torch.matmul(band, x.view(*x.shape[:2], -1)).view(x.shape)
        return torch.matmul(x.permute(0, 2, 3, 1), band).permute(0, 3, 1, 2)

    def _band(self, channels: int) -> Tensor:
        """(C, C), 1 where two channels are in one window: the sum as a matrix product."""
        ones = torch.ones(channels, channels, device=self.device)
        reach = (self.size - 1) // 2
        return ones.tril_(reach).triu_(-reach)
