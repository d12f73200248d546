"""Eltwise and Reduction: arithmetic over several blobs, or over the axes of one.

Source: ``eltwise_layer.cpp`` and ``reduction_layer.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparknet.caffe.layer import Arity, Gradients, Layer, Shapes, TapeLayer, Tensors
from sparknet.caffe.precision import Arithmetic
from sparknet.caffe.schema.caffe_pb2 import EltwiseParameter, ReductionParameter
from sparknet.weights import Shape


class Eltwise(Layer):
    """Element by element: the sum (each bottom times its ``coeff``), product or maximum of the bottoms."""

    type = "Eltwise"
    arithmetic = Arithmetic.ANY
    messages = ("eltwise_param",)
    bottom_arity = Arity(least=2, most=None)
    rereads = True

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.eltwise_param
        self.coefficients = list(p.coeff) or [1.0] * len(bottoms)
        if len(self.coefficients) != len(bottoms):
            raise self.error(f"coeff is given {len(p.coeff)} times for {len(bottoms)} bottoms")
        if p.coeff and p.operation != EltwiseParameter.SUM:
            raise self.error("coeff is for operation: SUM")
        self.fresh_tops = p.operation == EltwiseParameter.SUM  # type: ignore[misc]  # the others read their top

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        if any(tuple(shape) != tuple(bottoms[0]) for shape in bottoms):
            raise self.error(f"bottoms of different shapes: {[tuple(shape) for shape in bottoms]}")
        return [tuple(bottoms[0])]

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        operation = self.param.eltwise_param.operation
        if operation == EltwiseParameter.SUM:
            return [self._sum(bottoms)]
        if operation == EltwiseParameter.PROD:
            return [self._product(bottoms)]
        return [self._maximum(bottoms)]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        operation = self.param.eltwise_param.operation
        return [
            self._gradient_of(operation, i, top_diffs[0]) if want else None
            for i, want in enumerate(propagate_down)
        ]

    def reread(self, bottom: Tensor, top: Tensor) -> None:
        if self.param.eltwise_param.operation == EltwiseParameter.PROD:
            self.saved = self.saved[0], top

    def _gradient_of(self, operation: int, i: int, diff: Tensor) -> Tensor:
        if operation == EltwiseParameter.SUM:
            return diff if self.coefficients[i] == 1 else diff * self.coefficients[i]
        if operation == EltwiseParameter.MAX:
            return torch.where(self.saved == i, diff, 0.0)
        bottoms, top = self.saved
        if not self.param.eltwise_param.stable_prod_grad:
            return torch.mul(diff, top / bottoms[i])
        for j, bottom in enumerate(bottoms):
            diff = diff if j == i else diff * bottom
        return diff

    def _sum(self, bottoms: Tensors) -> Tensor:
        first, second, *rest = self.coefficients
        start = bottoms[0] if first == 1 else bottoms[0] * first
        total = torch.add(start, bottoms[1], alpha=second)
        for bottom, coefficient in zip(bottoms[2:], rest, strict=True):
            total.add_(bottom, alpha=coefficient)
        return total

    def _product(self, bottoms: Tensors) -> Tensor:
        top = bottoms[0] * bottoms[1]
        for bottom in bottoms[2:]:
            top = top * bottom
        self.saved = bottoms, top
        return top

    def _maximum(self, bottoms: Tensors) -> Tensor:
        """Of equal bottoms 0 and 1 the second wins; a later one only if it is strictly larger."""
        first = bottoms[0] > bottoms[1]
        top = torch.where(first, bottoms[0], bottoms[1])
        winner = (~first).to(torch.int32)
        for i, bottom in enumerate(bottoms[2:], 2):
            larger = bottom > top
            top = torch.where(larger, bottom, top)
            winner.masked_fill_(larger, i)
        self.saved = winner
        return top


class Reduction(TapeLayer):
    """The axes from ``axis`` on to one number: SUM, ASUM, SUMSQ or MEAN, times ``coeff``."""

    type = "Reduction"
    messages = ("reduction_param",)

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        return [tuple(bottoms[0][: self.axis(self.param.reduction_param.axis, bottoms[0])])]

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        p, x = self.param.reduction_param, bottoms[0]
        kept = x.shape[: self.axis(p.axis, x.shape)]
        rows = x.reshape(*kept, -1)
        if p.operation == ReductionParameter.ASUM:
            rows = rows.abs()
        elif p.operation == ReductionParameter.SUMSQ:
            rows = rows.square()
        reduced = rows.mean(-1) if p.operation == ReductionParameter.MEAN else rows.sum(-1)
        return [reduced * p.coeff]
