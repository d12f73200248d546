"""Accuracy and ArgMax: what is read off the scores, without gradient.

Source: ``accuracy_layer.cpp`` and ``argmax_layer.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sparknet.caffe.layer import Arity, Gradients, Layer, Shapes, Tensors
from sparknet.weights import Shape


class Accuracy(Layer):
    """Share of labels among the ``top_k`` scores; a second top gives it per class.

    A label counts only if fewer than ``top_k`` other classes score as much or more: ties count against it.
    """

    type = "Accuracy"
    messages = ("accuracy_param",)
    bottom_arity = Arity(least=2, most=2)
    top_arity = Arity(most=2)
    index_bottoms = frozenset({0, 1})

    def configure(self, bottoms: Shapes) -> None:
        self.along = self.axis(self.param.accuracy_param.axis, bottoms[0])
        self.top_k = self.param.accuracy_param.top_k

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        classes = bottoms[0][self.along]
        if self.top_k > classes:
            raise self.error(f"top_k is {self.top_k}, and the scores have {classes} classes")
        expected = math.prod(bottoms[0]) // max(1, classes)
        if math.prod(bottoms[1]) != expected:
            raise self.error(
                f"scores of shape {tuple(bottoms[0])}, classes on axis {self.along}, need {expected} labels, "
                f"and the labels have shape {tuple(bottoms[1])}"
            )
        return [(), (classes,)][: max(1, self.tops_named)]

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        scores = bottoms[0].movedim(self.along, -1).reshape(-1, bottoms[0].shape[self.along])
        labels = bottoms[1].reshape(-1, 1).long()
        valid = self._valid(labels, scores.shape[1])
        labels = labels.masked_fill(~valid, 0)
        rivals = (scores >= scores.gather(1, labels)).sum(
            1, keepdim=True
        ) - 1  # the label's own score is no rival
        hits = ((rivals < self.top_k) & valid).to(scores.dtype)
        counted = valid.to(scores.dtype)
        tops = [hits.sum() / counted.sum().clamp(min=1)]
        if self.tops_named > 1:
            tops.append(self._per_class(labels.flatten(), hits.flatten(), counted.flatten(), scores.shape[1]))
        return tops

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        if any(propagate_down):
            raise self.error("has no gradient; give it no loss_weight")
        return [None, None]

    def _valid(self, labels: Tensor, classes: int) -> Tensor:
        p = self.param.accuracy_param
        valid = (
            labels != p.ignore_label
            if p.HasField("ignore_label")
            else torch.ones_like(labels, dtype=torch.bool)
        )
        self.check_indices(labels.masked_fill(~valid, 0), classes, f"there are {classes} classes")
        return valid

    @staticmethod
    def _per_class(labels: Tensor, hits: Tensor, counted: Tensor, classes: int) -> Tensor:
        totals = hits.new_zeros(classes).index_add_(0, labels, counted)
        return hits.new_zeros(classes).index_add_(0, labels, hits) / totals.clamp(min=1)


class ArgMax(Layer):
    """Indices of the ``top_k`` largest elements, or with ``out_max_val`` their values.

    Along ``axis`` the top keeps the bottom's shape with ``top_k`` there. Without ``axis``, each row of the
    batch is one list: the top is (N, 1, top_k), or (N, 2, top_k) of indices and values with ``out_max_val``.
    """

    type = "ArgMax"
    messages = ("argmax_param",)
    index_bottoms = frozenset({0})

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.argmax_param
        self.along = self.axis(p.axis, bottoms[0]) if p.HasField("axis") else None
        self.top_k = p.top_k
        if self.top_k < 1:
            raise self.error("top_k must be positive")

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        shape = tuple(bottoms[0])
        length = math.prod(shape[1:]) if self.along is None else shape[self.along]
        if self.top_k > length:
            raise self.error(f"top_k is {self.top_k}, and there are {length} elements to choose from")
        if self.along is not None:
            return [(*shape[: self.along], self.top_k, *shape[self.along + 1 :])]
        kinds = 2 if self.param.argmax_param.out_max_val else 1
        trailing = (1,) * max(0, len(shape) - 3)
        return [(shape[0], kinds, self.top_k, *trailing)]

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        shape = self.top_shapes([tuple(bottoms[0].shape)])[0]
        along, x = self.along, bottoms[0]
        if along is None:
            x, along = x.reshape(x.shape[0], -1), 1
        values, indices = self._largest(x, along)
        if not self.param.argmax_param.out_max_val:
            return [indices.to(x.dtype).reshape(shape)]
        if self.along is not None:
            return [values.contiguous()]
        return [torch.stack([indices.to(x.dtype), values], 1).reshape(shape)]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        if propagate_down[0]:
            raise self.error("has no gradient; give it no loss_weight")
        return [None]

    def _largest(self, x: Tensor, along: int) -> tuple[Tensor, Tensor]:
        """The ``top_k`` largest, of equals the higher index first: Caffe sorts pairs (value, index)."""
        values, order = x.flip(along).sort(dim=along, descending=True, stable=True)
        indices = x.shape[along] - 1 - order
        return values.narrow(along, 0, self.top_k), indices.narrow(along, 0, self.top_k)
