"""InnerProduct (a fully connected layer) and Embed (rows of a table).

Source: ``inner_product_layer.cpp`` and ``embed_layer.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sparknet.caffe.layer import Gradients, Layer, Shapes, Tensors
from sparknet.caffe.precision import Arithmetic
from sparknet.weights import Shape


class InnerProduct(Layer):
    """y = x W' + b over all axes from ``axis`` on; W is (out, in), or (in, out) with ``transpose``."""

    type = "InnerProduct"
    arithmetic = Arithmetic.LOW
    messages = ("inner_product_param",)
    fresh_tops = True

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.inner_product_param
        self.first = self.axis(p.axis, bottoms[0])
        self.inputs, self.outputs = math.prod(bottoms[0][self.first :]), p.num_output
        if self.outputs < 1:
            raise self.error("num_output must be positive")
        shape = (self.outputs, self.inputs)
        self.declare(shape[::-1] if p.transpose else shape, p.weight_filler)
        if p.bias_term:
            self.declare((self.outputs,), p.bias_filler)

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        shape = bottoms[0]
        if math.prod(shape[self.first :]) != self.inputs:
            raise self.error(
                f"the weights are for {self.inputs} inputs, and a bottom of shape {tuple(shape)} has "
                f"{math.prod(shape[self.first :])} from axis {self.first} on"
            )
        return [(*shape[: self.first], self.outputs)]

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        x = bottoms[0].reshape(-1, self.inputs)
        self.saved = x, bottoms[0].shape
        weight = self._weight(x.dtype)
        if len(self.blobs) > 1:
            top = torch.addmm(self.blobs[1].data.to(x.dtype), x, weight.t())
        else:
            top = x @ weight.t()
        return [top.view(*bottoms[0].shape[: self.first], self.outputs)]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        x, shape = self.saved
        diff = top_diffs[0].reshape(-1, self.outputs)
        if self.wants_gradient[0]:
            left, right = (x, diff) if self.param.inner_product_param.transpose else (diff, x)
            if x.dtype == torch.float32:
                self.blobs[0].diff.addmm_(left.t(), right)
            else:
                self.gradient(0, left.t() @ right)
        if len(self.blobs) > 1 and self.wants_gradient[1]:
            self.gradient(1, diff.sum(0))
        return [(diff @ self._weight(x.dtype)).view(shape) if propagate_down[0] else None]

    def _weight(self, dtype: torch.dtype) -> Tensor:
        """The weights as (out, in)."""
        weight = self.blobs[0].data.to(dtype)
        return weight.t() if self.param.inner_product_param.transpose else weight


class Embed(Layer):
    """Row x of a learned table, for indices x of any shape: (...) -> (..., num_output)."""

    type = "Embed"
    messages = ("embed_param",)
    index_bottoms = frozenset({0})

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.embed_param
        if p.num_output < 1 or p.input_dim < 1:
            raise self.error("num_output and input_dim must be positive")
        self.declare((p.input_dim, p.num_output), p.weight_filler)
        if p.bias_term:
            self.declare((p.num_output,), p.bias_filler)

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        return [(*bottoms[0], self.param.embed_param.num_output)]

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        indices = bottoms[0].long()
        self._check(indices)
        self.saved = indices
        rows = self.blobs[0].data[indices]
        return [rows + self.blobs[1].data if len(self.blobs) > 1 else rows]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        diff = top_diffs[0].reshape(-1, self.param.embed_param.num_output)
        if self.wants_gradient[0]:
            self.blobs[0].diff.index_add_(0, self.saved.flatten(), diff)
        if len(self.blobs) > 1 and self.wants_gradient[1]:
            self.gradient(1, diff.sum(0))
        return [None]

    def _check(self, indices: Tensor) -> None:
        rows = self.param.embed_param.input_dim
        self.check_indices(indices, rows, f"the table has {rows} rows")
