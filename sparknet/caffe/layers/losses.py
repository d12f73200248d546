"""Losses between two bottoms: EuclideanLoss, HingeLoss, SigmoidCrossEntropyLoss, ContrastiveLoss.

Source: the ``*_loss_layer.cpp`` of the same names in BVLC Caffe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sparknet.caffe.layer import Arity, Gradients, Layer, Shapes, TapeLayer, Tensors
from sparknet.caffe.layers.softmax import ClassLoss
from sparknet.caffe.schema.caffe_pb2 import HingeLossParameter, LossParameter
from sparknet.weights import Shape


class EuclideanLoss(TapeLayer):
    """sum of (a - b)^2 / 2N."""

    type = "EuclideanLoss"
    bottom_arity = Arity(least=2, most=2)
    default_loss_weight = 1.0

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        _check_same_rows(self, bottoms)
        if math.prod(bottoms[0]) != math.prod(bottoms[1]):
            raise self.error(f"bottoms of shapes {tuple(bottoms[0])} and {tuple(bottoms[1])} differ in size")
        return [()]

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        difference = bottoms[0] - bottoms[1].view_as(bottoms[0])
        return [difference.square().sum() / (2 * bottoms[0].shape[0])]


class HingeLoss(TapeLayer):
    """One against all with margin 1: sum of max(0, 1 - t x) / N, or of its square with ``norm: L2``."""

    type = "HingeLoss"
    messages = ("hinge_loss_param",)
    bottom_arity = Arity(least=2, most=2)
    default_loss_weight = 1.0
    index_bottoms = frozenset({1})

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        _check_same_rows(self, bottoms)
        if math.prod(bottoms[1]) != bottoms[0][0]:
            raise self.error(f"{bottoms[0][0]} rows need as many labels, not shape {tuple(bottoms[1])}")
        return [()]

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        x, labels = bottoms[0].reshape(bottoms[0].shape[0], -1), bottoms[1].reshape(-1, 1).long()
        self.check_indices(labels, x.shape[1], f"the scores have {x.shape[1]} classes")
        sign = torch.ones_like(x).scatter_(1, labels, -1)  # -1 for the true class
        margins = (1 + sign * x).relu()  # no gradient at 0
        squared = self.param.hinge_loss_param.norm == HingeLossParameter.L2
        return [(margins.square() if squared else margins).sum() / x.shape[0]]


class SigmoidCrossEntropyLoss(ClassLoss):
    """Cross entropy of sigmoid(x) and targets in 0..1, summed; divided by N unless told otherwise."""

    type = "SigmoidCrossEntropyLoss"
    messages = ("loss_param",)
    index_bottoms = frozenset({1})
    top_arity = Arity(most=2)

    def configure(self, bottoms: Shapes) -> None:
        self.mode = self._normalization(LossParameter.BATCH_SIZE)

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        if math.prod(bottoms[0]) != math.prod(bottoms[1]):
            raise self.error(
                f"inputs of shape {tuple(bottoms[0])} and targets of {tuple(bottoms[1])} differ in size"
            )
        return [(), tuple(bottoms[0])][: max(1, self.tops_named)]

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        x, targets = bottoms[0], bottoms[1].view_as(bottoms[0])
        valid = None if self.ignored is None else targets.long() != self.ignored
        losses = F.binary_cross_entropy_with_logits(x, targets, reduction="none")
        if valid is not None:
            losses = losses * valid
        normalizer = self._divisor(x, valid)
        self.saved = x, targets, valid, normalizer
        return [losses.sum() / normalizer, x.sigmoid()][: max(1, self.tops_named)]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        if not propagate_down[0]:
            return [None, None]
        x, targets, valid, normalizer = self.saved
        grad = x.sigmoid() - targets
        if valid is not None:
            grad.mul_(valid)
        return [grad.mul_(top_diffs[0] / normalizer), None]

    def _divisor(self, x: Tensor, valid: Tensor | None) -> Tensor | float:
        if self.mode == LossParameter.VALID and valid is not None:
            return valid.sum().clamp_(min=1).to(x.dtype)
        sizes: dict[int, int] = {LossParameter.BATCH_SIZE: x.shape[0], LossParameter.NONE: 1}
        return float(max(1, sizes.get(self.mode, x.numel())))


class ContrastiveLoss(Layer):
    """Pairs a, b: d^2 for similar ones, max(0, margin - d)^2 for others, summed, / 2N (Hadsell et al., 2006).

    The gradient divides by d + 1e-4, as Caffe's does.
    """

    type = "ContrastiveLoss"
    messages = ("contrastive_loss_param",)
    bottom_arity = Arity(least=3, most=3)
    default_loss_weight = 1.0
    index_bottoms = frozenset({2})

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        a, b, similar = (tuple(shape) for shape in bottoms)
        if math.prod(a) != math.prod(a[:2]) or a[:2] != b[:2] or math.prod(b) != math.prod(a):
            raise self.error(f"needs two bottoms of one shape (N, C), not {a} and {b}")
        if max(len(a), len(b), len(similar)) > 4:
            raise self.error(f"its bottoms have 4 axes at most, not {a}, {b} and {similar}")
        if math.prod(similar) != a[0]:
            raise self.error(f"{a[0]} pairs need as many marks of similarity, not shape {similar}")
        return [()]

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        p = self.param.contrastive_loss_param
        rows = bottoms[0].shape[0]
        difference = (bottoms[0] - bottoms[1]).reshape(rows, -1)
        squared = difference.square().sum(1)
        similar = bottoms[2].reshape(-1).long() != 0
        if p.legacy_version:
            apart = (p.margin - squared).clamp(min=0)
        else:
            apart = (p.margin - squared.sqrt()).clamp(min=0).square()
        self.saved = difference, squared, similar, bottoms[0].shape
        return [torch.where(similar, squared, apart).sum() / (2 * rows)]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        p = self.param.contrastive_loss_param
        difference, squared, similar, shape = self.saved
        if p.legacy_version:
            apart = -(squared < p.margin).to(squared.dtype)
        else:
            distance = squared.sqrt()
            apart = -(p.margin - distance).clamp(min=0) / (distance + 1e-4)
        factor = torch.where(similar, torch.ones_like(apart), apart)
        grad = (difference * factor.unsqueeze(1) * (top_diffs[0] / shape[0])).view(shape)
        return [grad if propagate_down[0] else None, -grad if propagate_down[1] else None, None]


def _check_same_rows(layer: Layer, bottoms: Shapes) -> None:
    if bottoms[0][:1] != bottoms[1][:1]:
        raise layer.error(f"bottoms of shapes {tuple(bottoms[0])} and {tuple(bottoms[1])} differ in rows")
