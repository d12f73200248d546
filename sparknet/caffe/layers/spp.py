"""SPP: a pyramid of poolings, so that pictures of any size give vectors of one size.

Source: ``spp_layer.cpp`` of BVLC Caffe; He et al., 2014 (arXiv 1406.4729).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from sparknet.caffe.layer import ONE_ENGINE, Gradients, Layer, Shapes, Tensors
from sparknet.caffe.layers.pooling import Pooling
from sparknet.caffe.schema.caffe_pb2 import LayerParameter, PoolingParameter, SPPParameter
from sparknet.weights import Shape


class SPP(Layer):
    """(N, C, H, W) -> (N, C * (1 + 4 + 16 + ...)), level l pooling over 2^l x 2^l windows."""

    type = "SPP"
    messages = ("spp_param",)
    hints = ONE_ENGINE

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.spp_param
        if p.pyramid_height < 1:
            raise self.error("pyramid_height must be given and positive")
        if p.pool == SPPParameter.STOCHASTIC:
            raise self.error("pool: STOCHASTIC is not possible here, as in Caffe: use MAX or AVE")

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        if len(bottoms[0]) != 4:
            raise self.error(f"needs a bottom of 4 axes (N, C, H, W), not {tuple(bottoms[0])}")
        n, _, height, width = bottoms[0]
        self.levels = [
            self._pooling(level, height, width) for level in range(self.param.spp_param.pyramid_height)
        ]
        self.shapes = [level.top_shapes(bottoms)[0] for level in self.levels]
        if len(self.levels) == 1:
            return self.shapes
        return [(n, sum(math.prod(shape[1:]) for shape in self.shapes))]

    def forward(self, bottoms: Tensors) -> list[torch.Tensor]:
        tops = [level.forward(bottoms)[0] for level in self.levels]
        return tops if len(tops) == 1 else [torch.cat([top.flatten(1) for top in tops], 1)]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        if not propagate_down[0]:
            return [None]
        rows = len(top_diffs[0])
        parts = torch.split(
            top_diffs[0].reshape(rows, -1), [math.prod(shape[1:]) for shape in self.shapes], 1
        )
        total = torch.zeros(())
        for level, part, shape in zip(self.levels, parts, self.shapes, strict=True):
            (gradient,) = level.backward([part.reshape(rows, *shape[1:])], [True])
            total = total + gradient if gradient is not None else total
        return [total]

    def _pooling(self, level: int, height: int, width: int) -> Pooling:
        """``2^level`` windows each way; the window is also the stride."""
        (kernel_h, pad_h), (kernel_w, pad_w) = (_window(length, 2**level) for length in (height, width))
        param = LayerParameter(name=self.name, type="Pooling", top=["level"])
        param.pooling_param.CopyFrom(
            PoolingParameter(
                pool=self.param.spp_param.pool,  # type: ignore[arg-type]  # two enums, the same numbers
                kernel_h=kernel_h, kernel_w=kernel_w, stride_h=kernel_h, stride_w=kernel_w,
                pad_h=pad_h, pad_w=pad_w,
            )
        )  # fmt: skip
        pooling = Pooling(param, phase=self.phase, device=self.device)
        pooling.configure([(1, 1, height, width)])
        return pooling


def _window(length: int, bins: int) -> tuple[int, int]:
    """Size of a window and padding, for ``bins`` windows over ``length`` pixels."""
    size = -(-length // bins)
    return size, (size * bins - length + 1) // 2
