"""From the summed gradient of an iteration to new weights: Caffe's ``ApplyUpdate`` on flat vectors.

In Caffe's order: clip the sum by its global norm, divide it by ``iter_size``, add the decay, apply the
rule, subtract. Neighbouring blobs with the same multipliers are one span. On a CPU every span is cut into
blocks that stay in the cache while all of this passes over them, so that each vector crosses the memory bus
once; on a GPU the spans with the same multipliers are one list, and each line is one kernel.

After an update the gradient vector holds what was subtracted, as the ``diff`` of Caffe's blobs does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch

from sparknet.caffe.blob import Blob
from sparknet.caffe.solver.rules import Moment, Rule, Tensors
from sparknet.errors import ModelError

BLOCK = 1 << 17  # elements: four such vectors are 2 MiB, which an L2 holds; smaller ones drown in calls


class Settings(Protocol):
    """What is read of a ``SolverParameter``."""

    @property
    def momentum(self) -> float: ...
    @property
    def momentum2(self) -> float: ...
    @property
    def rms_decay(self) -> float: ...
    @property
    def delta(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def regularization_type(self) -> str: ...
    @property
    def clip_gradients(self) -> float: ...
    @property
    def iter_size(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Span:
    """The elements ``start`` to ``stop`` of the vectors, and the multipliers of their blob."""

    start: int
    stop: int
    lr_mult: float = 1.0
    decay_mult: float = 1.0


@dataclass(frozen=True)
class _Part:
    """What one call of a rule works on: equally long lists of views."""

    lr_mult: float
    decay_mult: float
    weights: Tensors
    diffs: Tensors
    history: list[Tensors]


class Updater:
    """Applies ``rule`` to ``weights`` and ``diffs``, float32 vectors ``(P,)`` on one device.

    ``history`` holds ``rule.histories`` vectors ``(P,)`` of the same device; write into them to resume.
    """

    def __init__(
        self,
        rule: Rule,
        settings: Settings,
        *,
        weights: torch.Tensor,
        diffs: torch.Tensor,
        spans: Iterable[Span],
    ) -> None:
        if settings.regularization_type not in ("L1", "L2"):
            raise ModelError(f'unknown regularization_type "{settings.regularization_type}": L1 or L2')
        self.rule, self.settings = rule, settings
        self.weights, self.diffs = weights, diffs
        self.spans = merged(spans)
        self.history = [torch.zeros_like(weights) for _ in range(rule.histories)]
        self._parts = self._cut()

    def apply(self, lr: float, iteration: int) -> None:
        """Move the weights by one update at the rate ``lr``; ``iteration`` counts from 0."""
        factor = self._clip_factor() / self.settings.iter_size
        for part in self._parts:
            self._apply(part, lr, iteration, factor)

    def rebind(self, weights: torch.Tensor, diffs: torch.Tensor) -> None:
        """Go on with other vectors of the same length, moving the history to their device."""
        self.weights, self.diffs = weights, diffs
        self.history = [h.to(weights.device) for h in self.history]
        self._parts = self._cut()

    def _apply(self, part: _Part, lr: float, iteration: int, factor: float) -> None:
        settings = self.settings
        if factor != 1:
            torch._foreach_mul_(part.diffs, factor)
        if decay := settings.weight_decay * part.decay_mult:
            pull = part.weights if settings.regularization_type == "L2" else torch._foreach_sign(part.weights)
            torch._foreach_add_(part.diffs, pull, alpha=decay)
        now = Moment(
            lr=lr * part.lr_mult,
            momentum=settings.momentum,
            momentum2=settings.momentum2,
            rms_decay=settings.rms_decay,
            delta=settings.delta,
            iteration=iteration,
        )
        self.rule.update(now, part.diffs, part.history)
        torch._foreach_sub_(part.weights, part.diffs)

    def _clip_factor(self) -> float:
        """By what the summed gradient is shortened.

        A norm that is not a number shortens nothing, as in Caffe.
        """
        limit = self.settings.clip_gradients
        if limit < 0:
            return 1.0
        norm = float(torch.linalg.vector_norm(self.diffs))
        return limit / norm if norm > limit else 1.0

    def _cut(self) -> list[_Part]:
        return self._in_blocks() if self.weights.device.type == "cpu" else self._in_lists()

    def _in_blocks(self) -> list[_Part]:
        return [self._part([block]) for span in self.spans for block in blocks(span, BLOCK)]

    def _in_lists(self) -> list[_Part]:
        by_multipliers = sorted(self.spans, key=_multipliers)
        return [self._part(list(group)) for _, group in groupby(by_multipliers, key=_multipliers)]

    def _part(self, spans: Sequence[Span]) -> _Part:
        def views(vector: torch.Tensor) -> Tensors:
            return [vector[span.start : span.stop] for span in spans]

        first = spans[0]
        history = [views(h) for h in self.history]
        return _Part(first.lr_mult, first.decay_mult, views(self.weights), views(self.diffs), history)


def spans_of(blobs: Iterable[Blob]) -> Iterator[Span]:
    """The places of ``blobs``, one after the other, in their vector."""
    offset = 0
    for blob in blobs:
        yield Span(start=offset, stop=offset + blob.count, lr_mult=blob.lr_mult, decay_mult=blob.decay_mult)
        offset += blob.count


def merged(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, empty ones left out, neighbours with equal multipliers joined."""
    joined: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start):
        if span.start == span.stop:
            continue
        last = joined[-1] if joined else None
        if last and last.stop == span.start and _multipliers(last) == _multipliers(span):
            joined[-1] = _resized(last, last.start, span.stop)
        else:
            joined.append(span)
    return joined


def blocks(span: Span, size: int) -> list[Span]:
    """``span`` in pieces of at most ``size`` elements."""
    starts = range(span.start, span.stop, size)
    return [_resized(span, start, min(start + size, span.stop)) for start in starts]


def _multipliers(span: Span) -> tuple[float, float]:
    return span.lr_mult, span.decay_mult


def _resized(span: Span, start: int, stop: int) -> Span:
    return Span(start=start, stop=stop, lr_mult=span.lr_mult, decay_mult=span.decay_mult)
