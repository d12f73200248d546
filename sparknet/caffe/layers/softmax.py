"""Softmax, its loss, and the two other losses over class probabilities.

Source: ``softmax_loss_layer.cpp``, ``infogain_loss_layer.cpp``, ``multinomial_logistic_loss_layer.cpp`` and
``loss_layer.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sparknet.caffe.files.blobs import read_blob
from sparknet.caffe.layer import ONE_ENGINE, Arity, Gradients, Layer, Shapes, Tensors
from sparknet.caffe.schema.caffe_pb2 import LossParameter
from sparknet.weights import Shape

_LOG_FLT_MIN = math.log(torch.finfo(torch.float32).tiny)
_LOG_THRESHOLD = 1e-20


class Softmax(Layer):
    """exp(x) / sum of exp(x) along ``axis``."""

    rereads = True

    type = "Softmax"
    messages = ("softmax_param",)
    hints = ONE_ENGINE

    def configure(self, bottoms: Shapes) -> None:
        self.along = self.axis(self.param.softmax_param.axis, bottoms[0])

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        self.saved = bottoms[0].softmax(self.along)
        return [self.saved]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        if not propagate_down[0]:
            return [None]
        y = self.saved
        return [torch.ops.aten._softmax_backward_data(top_diffs[0], y, self.along, y.dtype)]

    def reread(self, bottom: Tensor, top: Tensor) -> None:
        self.saved = top


class ClassLoss(Layer):
    """Scores and labels: what the losses over classes have in common.

    The scores have the classes along ``self.along``; the labels, float32, hold one number for each of the
    other positions, whatever their shape.
    """

    bottom_arity = Arity(least=2, most=2)
    top_arity = Arity(least=1, most=2)
    default_loss_weight = 1.0
    index_bottoms = frozenset({1})

    along = 1

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        scores, labels = tuple(bottoms[0]), tuple(bottoms[1])
        expected = math.prod(scores) // max(1, scores[self.along])
        if math.prod(labels) != expected:
            raise self.error(
                f"scores of shape {scores} with classes on axis {self.along} need {expected} labels, "
                f"and the labels have shape {labels}"
            )
        return [(), scores][: max(1, self.tops_named)]

    @property
    def ignored(self) -> int | None:
        loss = self.param.loss_param
        return loss.ignore_label if loss.HasField("ignore_label") else None

    def _normalization(self, default: int) -> int:
        loss = self.param.loss_param
        if loss.HasField("normalization"):
            return loss.normalization
        if loss.HasField("normalize"):
            return LossParameter.VALID if loss.normalize else LossParameter.BATCH_SIZE
        return default

    def _normalizer(self, mode: int, scores: Tensor, valid: Tensor | None) -> Tensor | float:
        """What the loss is divided by: at least 1, so that a batch without a valid label is a loss of 0."""
        outer = math.prod(scores.shape[: self.along])
        inner = math.prod(scores.shape[self.along + 1 :])
        if mode == LossParameter.VALID and valid is not None:
            return valid.sum().clamp_(min=1).to(scores.dtype)
        sizes: dict[int, int] = {LossParameter.BATCH_SIZE: outer, LossParameter.NONE: 1}
        return float(max(1, sizes.get(mode, outer * inner)))

    def _labels(self, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Labels as indices, shaped as the scores but 1 on the class axis; which are valid (None: all)."""
        shape = list(scores.shape)
        shape[self.along] = 1
        indices = labels.reshape(shape).long()
        if self.ignored is None:
            self._check(indices, scores.shape[self.along])
            return indices, None
        valid = indices != self.ignored
        indices = indices.masked_fill(~valid, 0)
        self._check(indices, scores.shape[self.along])
        return indices, valid

    def _check(self, indices: Tensor, classes: int) -> None:
        self.check_indices(indices, classes, f"the scores have {classes} classes")


class SoftmaxWithLoss(ClassLoss):
    """-log softmax(scores)[label], averaged as ``normalization`` says; a second top is the softmax."""

    type = "SoftmaxWithLoss"
    messages = ("softmax_param", "loss_param")
    hints = ONE_ENGINE

    def configure(self, bottoms: Shapes) -> None:
        self.along = self.axis(self.param.softmax_param.axis, bottoms[0])
        self.mode = self._normalization(LossParameter.VALID)

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        scores = bottoms[0]
        log_p = scores.log_softmax(self.along)
        labels, valid = self._labels(scores, bottoms[1])
        picked = log_p.gather(self.along, labels).clamp_(min=_LOG_FLT_MIN)
        if valid is not None:
            picked.mul_(valid)
        normalizer = self._normalizer(self.mode, scores, valid)
        self.saved = log_p, labels, valid, normalizer
        return [-picked.sum() / normalizer, log_p.exp()][: max(1, self.tops_named)]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        if not propagate_down[0]:
            return [None, None]
        log_p, labels, valid, normalizer = self.saved
        grad = log_p.exp()
        grad.scatter_add_(self.along, labels, torch.full_like(labels, -1, dtype=grad.dtype))
        if valid is not None:
            grad.mul_(valid)
        return [grad.mul_(top_diffs[0] / normalizer), None]


class InfogainLoss(ClassLoss):
    """-sum over classes k of H[label, k] * log softmax(scores)[k]; H is the third bottom or a file.

    With H the identity it is SoftmaxWithLoss.
    """

    type = "InfogainLoss"
    messages = ("infogain_loss_param", "softmax_param", "loss_param")
    hints = ONE_ENGINE
    bottom_arity = Arity(least=2, most=3)
    index_bottoms = frozenset({1, 2})

    def configure(self, bottoms: Shapes) -> None:
        self.along = self.axis(self.param.infogain_loss_param.axis, bottoms[0])
        if self.param.loss_param.HasField("normalize"):
            raise self.error("normalize is not for this layer: say normalization, which replaced it")
        self.mode = self._normalization(LossParameter.VALID)
        self.gain: Tensor | None = None
        if len(bottoms) < 3:
            self.gain = self._read_gain(bottoms[0][self.along])

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        classes = bottoms[0][self.along]
        if len(bottoms) > 2 and math.prod(bottoms[2]) != classes**2:
            raise self.error(
                f"H is {classes} x {classes} here, and the third bottom has shape {tuple(bottoms[2])}"
            )
        return super().top_shapes(bottoms)

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        scores, classes = bottoms[0], bottoms[0].shape[self.along]
        gain = self.gain if self.gain is not None else bottoms[2].reshape(classes, classes)
        p = scores.softmax(self.along)
        labels, valid = self._labels(scores, bottoms[1])
        rows = gain[labels.movedim(self.along, -1).squeeze(-1)].movedim(
            -1, self.along
        )  # H[label] per position
        if valid is not None:
            rows = rows * valid
        normalizer = self._normalizer(self.mode, scores, valid)
        self.saved = p, rows, normalizer
        loss = -(rows * p.clamp(min=_LOG_THRESHOLD).log()).sum() / normalizer
        return [loss, p][: max(1, self.tops_named)]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        others: Gradients = [None] * (len(propagate_down) - 1)
        if not propagate_down[0]:
            return [None, *others]
        p, rows, normalizer = self.saved
        grad = p * rows.sum(self.along, keepdim=True) - rows
        return [grad.mul_(top_diffs[0] / normalizer), *others]

    def _read_gain(self, classes: int) -> Tensor:
        source = self.param.infogain_loss_param.source
        if not source:
            raise self.error("needs H: a third bottom, or a .binaryproto as infogain_loss_param.source")
        gain = read_blob(source)
        if gain.numel() != classes**2:
            raise self.error(f"H is {classes} x {classes} here, and {source} has shape {tuple(gain.shape)}")
        return gain.reshape(classes, classes).to(self.device)


class MultinomialLogisticLoss(ClassLoss):
    """-log p[label] / N, for a bottom that is already probabilities."""

    type = "MultinomialLogisticLoss"
    top_arity = Arity()

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        p = bottoms[0].reshape(bottoms[0].shape[0], -1)
        labels = bottoms[1].reshape(-1, 1).long()
        self._check(labels, p.shape[1])
        picked = p.gather(1, labels).clamp_(min=_LOG_THRESHOLD)
        self.saved = labels, picked, bottoms[0].shape
        return [-picked.log().sum() / p.shape[0]]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        if not propagate_down[0]:
            return [None, None]
        labels, picked, shape = self.saved
        grad = picked.new_zeros(shape[0], math.prod(shape[1:]))
        grad.scatter_(1, labels, -top_diffs[0] / (shape[0] * picked))
        return [grad.view(shape), None]

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        if math.prod(bottoms[1]) != bottoms[0][0]:
            raise self.error(
                f"{bottoms[0][0]} rows of probabilities need as many labels, not shape {tuple(bottoms[1])}"
            )
        return [()]
