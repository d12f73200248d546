"""The gradients of a torch module in one vector, where they are complete one after the other.

Autograd calls a hook of each parameter when all that adds to its gradient has been added
(``register_post_accumulate_grad_hook``), from the net's end to its beginning, by and large: the hook copies
the gradient to its place. Copied, not aliased: a gradient may have the strides of another memory format, and
the vector has those of the parameter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from sparknet.errors import ModelError
from sparknet.gradients import OnFinal
from sparknet.weights import Layout


class FlatGradients:
    """``vector`` float32 (P,) of the parameters of ``module`` that are trained, at their ``places`` in
    ``weights``; ``unused`` numbers those that the last loss did not depend on."""

    def __init__(self, module: nn.Module, layout: Layout, weights: torch.Tensor) -> None:
        self.vector = torch.zeros_like(weights)
        views = layout.views(self.vector)
        parameters = dict(module.named_parameters())
        self._slots = [
            slot
            for slot in layout
            if slot.size and slot.name in parameters and parameters[slot.name].requires_grad
        ]
        self._parameters = [parameters[slot.name] for slot in self._slots]
        self._views = [views[slot.name] for slot in self._slots]
        self.places = [slice(slot.offset, slot.end) for slot in self._slots]
        self.unused: tuple[int, ...] = ()
        self._left: set[int] = set()
        self._next = -1
        self._on_final: OnFinal | None = None
        for number, parameter in enumerate(self._parameters):
            parameter.register_post_accumulate_grad_hook(partial(self._complete, number))  # type: ignore[no-untyped-call]

    @contextmanager
    def collected(self, on_final: OnFinal) -> Iterator[None]:
        """Within it a backward pass brings its gradients to ``vector``; after it all are there."""
        self._left, self._next = set(range(len(self._parameters))), len(self._parameters) - 1
        self._on_final = on_final
        try:
            yield
        finally:
            self._on_final = None
        for number in self._left:
            self._views[number].zero_()
        self.unused = tuple(sorted(self._left))
        on_final(0)

    def give(self, unused: Sequence[int]) -> None:
        """Let the parameters have what is in ``vector``; those that are ``unused`` have no gradient."""
        for number, (parameter, view) in enumerate(zip(self._parameters, self._views, strict=True)):
            parameter.grad = None if number in unused else view

    def _complete(self, number: int, parameter: torch.Tensor) -> None:
        on_final, gradient = self._on_final, parameter.grad
        if on_final is None or gradient is None:
            return
        name = self._slots[number].name
        if gradient.is_sparse:
            raise ModelError(
                f"the gradient of {name} is sparse, and only dense ones are averaged: make its layer without "
                "sparse=True, or take --algorithm average --tau 1"
            )
        if number not in self._left:
            raise ModelError(
                f"the gradient of {name} is added to in parts, as by a checkpoint with use_reentrant=True, "
                "and may have been sent before it was complete: take use_reentrant=False, or --algorithm "
                "average --tau 1"
            )
        self._views[number].copy_(gradient)
        self._left.discard(number)
        if number == self._next:
            while self._next >= 0 and self._next not in self._left:
                self._next -= 1
            on_final(self._slots[self._next + 1].offset)
