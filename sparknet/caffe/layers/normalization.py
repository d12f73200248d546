"""BatchNorm and MVN: subtract a mean, divide by a standard deviation.

Source: ``batch_norm_layer.cpp`` and ``mvn_layer.cpp`` of BVLC Caffe; Ioffe and Szegedy, 2015 (arXiv
1502.03167).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sparknet.caffe.layer import Gradients, Layer, Shapes, Tensors
from sparknet.weights import Shape


class BatchNorm(Layer):
    """Per channel; without an affine part, which is a Scale layer after it.

    Three blobs that no solver touches: the moving sums of mean and variance, and the sum of their weights. A
    sum of f * old + new with f = ``moving_average_fraction`` is taken at every forward that uses batch
    statistics.
    """

    type = "BatchNorm"
    messages = ("batch_norm_param",)
    fresh_tops = True

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.batch_norm_param
        self.global_stats = p.use_global_stats if p.HasField("use_global_stats") else not self.is_training
        self.channels = bottoms[0][1] if len(bottoms[0]) > 1 else 1
        for shape in ((self.channels,), (self.channels,), (1,)):
            self.declare(shape)
        for spec in self.param.param:
            if spec.HasField("lr_mult") and spec.lr_mult != 0:
                raise self.error("its blobs are statistics, not learned: lr_mult must be 0")

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        if len(bottoms[0]) > 1 and bottoms[0][1] != self.channels:
            raise self.error(f"is for {self.channels} channels, and the bottom has shape {tuple(bottoms[0])}")
        return [tuple(bottoms[0])]

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        x = bottoms[0] if bottoms[0].dim() > 1 else bottoms[0].unsqueeze(1)
        top = self._by_global_stats(x) if self.global_stats else self._by_batch(x)
        return [top.view_as(bottoms[0])]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        if not propagate_down[0]:
            return [None]
        x, mean, inverse = self.saved
        diff = top_diffs[0].view_as(x)
        if mean is None:
            return [(diff * inverse).view_as(top_diffs[0])]
        eps = self.param.batch_norm_param.eps
        grad, *_ = torch.ops.aten.native_batch_norm_backward(
            diff, x, None, None, None, mean, inverse, True, eps, [True, False, False]
        )
        return [grad.view_as(top_diffs[0])]

    def _by_global_stats(self, x: Tensor) -> Tensor:
        sums = self.blobs[2].data
        factor = torch.where(sums == 0, sums, 1 / sums)
        mean, variance = self.blobs[0].data * factor, self.blobs[1].data * factor
        shape = (-1, *[1] * (x.dim() - 2))
        inverse = (variance + self.param.batch_norm_param.eps).rsqrt_().view(shape)
        self.saved = x, None, inverse
        return (x - mean.view(shape)) * inverse

    def _by_batch(self, x: Tensor) -> Tensor:
        batch_mean, batch_variance = x.new_zeros(self.channels), x.new_zeros(self.channels)
        # with momentum 1 the running statistics become this batch's: its mean and unbiased variance
        top, mean, inverse = torch.native_batch_norm(
            x, None, None, batch_mean, batch_variance, True, 1.0, self.param.batch_norm_param.eps
        )
        self.saved = x, mean, inverse
        self._accumulate(batch_mean, batch_variance if x.numel() > self.channels else torch.zeros_like(mean))
        return top

    def _accumulate(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        fraction = self.param.batch_norm_param.moving_average_fraction
        news: tuple[Tensor | float, ...] = (mean, unbiased_variance, 1.0)
        for blob, new in zip(self.blobs, news, strict=True):
            blob.data.mul_(fraction).add_(new)


class MVN(Layer):
    """Mean and variance normalisation of each picture: per channel, or over all with ``across_channels``.

    y = (x - mean) / (std + eps). Caffe's gradient is that of (x - mean) / std, divided by std + eps; it is
    kept.
    """

    type = "MVN"
    rereads = True
    messages = ("mvn_param",)

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        if len(bottoms[0]) < 2:
            raise self.error(f"needs a bottom (N, C, ...), not {tuple(bottoms[0])}")
        return [(*bottoms[0], *[1] * (4 - len(bottoms[0])))]  # at least 4 axes, as Caffe has it

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        self.shape, rows = bottoms[0].shape, self._rows(bottoms[0])
        centred = rows - rows.mean(1, keepdim=True)
        if not self.param.mvn_param.normalize_variance:
            return [centred.view(self.top_shapes([tuple(bottoms[0].shape)])[0])]
        std = centred.square().mean(1, keepdim=True).sqrt_().add_(self.param.mvn_param.eps)
        top = centred / std
        self.saved = top, std
        return [top.view(self.top_shapes([tuple(bottoms[0].shape)])[0])]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        if not propagate_down[0]:
            return [None]
        diff = self._rows(top_diffs[0])
        grad = diff - diff.mean(1, keepdim=True)
        if self.param.mvn_param.normalize_variance:
            top, std = self.saved
            grad = (grad - top * (top * diff).mean(1, keepdim=True)) / std
        return [grad.view(self.shape)]

    def reread(self, bottom: Tensor, top: Tensor) -> None:
        if self.param.mvn_param.normalize_variance:
            self.saved = self._rows(top), self.saved[1]

    def _rows(self, x: Tensor) -> Tensor:
        """One row for each set of elements normalised together."""
        leading = 1 if self.param.mvn_param.across_channels else 2
        return x.reshape(math.prod(x.shape[:leading]), -1)
