"""In which floating-point numbers layers compute: float32, or where it pays bf16 or fp16 (mixed precision).

    precision   convolutions, inner products, recurrences   losses, norms, exp ..   ReLU, pooling, sums ..
    float32     float32                                     float32                 float32
    bf16, fp16  bf16, fp16                                  float32                 as their bottoms are

Weights, gradients of weights, histories and updates are float32 always. fp16 ends at 65504 and loses what is
below 6e-8, so its losses are multiplied by a ``LossScale`` before they go backward; bf16 has float32's range.
The division of the work is that of ``torch.autocast``; Micikevicius et al., 2017 (arXiv 1710.03740).
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import torch
from torch import Tensor

from sparknet.errors import ModelError

PRECISIONS: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


class Arithmetic(enum.Enum):
    """What a layer computes in when its net has a low precision."""

    FULL = "float32"
    LOW = "the net's precision"
    ANY = "the widest of what its bottoms have"


def dtype_named(precision: str) -> torch.dtype:
    """The dtype of a precision's name. Raises ModelError for a name there is not."""
    if precision not in PRECISIONS:
        raise ModelError(f'unknown precision "{precision}"; it can be {", ".join(PRECISIONS)}')
    return PRECISIONS[precision]


def cast(
    bottoms: Sequence[Tensor], arithmetic: Arithmetic, low: torch.dtype, indices: AbstractSet[int]
) -> list[Tensor]:
    """``bottoms`` as a layer wants them; those of ``indices`` (labels) never become low."""
    if arithmetic is Arithmetic.FULL:
        return [bottom.to(torch.float32) for bottom in bottoms]
    numbers = {bottom.dtype for i, bottom in enumerate(bottoms) if i not in indices}
    if arithmetic is Arithmetic.LOW:
        wanted = low
    else:
        wanted = low if numbers == {low} else torch.float32
    return [bottom if i in indices else bottom.to(wanted) for i, bottom in enumerate(bottoms)]


class LossScale:
    """What losses are multiplied by so that small gradients survive in fp16: ``torch.amp.GradScaler``'s rule.

    It doubles after ``interval`` updates in a row with finite gradients, and is halved after one without,
    which is left out.
    """

    def __init__(self, device: torch.device | str, *, start: float = 2.0**16, interval: int = 2000) -> None:
        self.value, self.interval, self.finite_updates = start, interval, 0
        self._found = torch.zeros((), device=device)

    def unscale(self, diffs: Tensor) -> bool:
        """Divide ``diffs`` by the scale in one pass and move it on; False if one was inf or not a number."""
        return self._multiplied(diffs, 1 / self.value)

    def check(self, diffs: Tensor) -> bool:
        """As ``unscale``, of what has been divided already."""
        return self._multiplied(diffs, 1.0)

    def _multiplied(self, diffs: Tensor, factor: float) -> bool:
        self._found.zero_()
        inverse = torch.tensor(factor, device=diffs.device)
        torch._amp_foreach_non_finite_check_and_unscale_([diffs], self._found, inverse)
        is_finite = not float(self._found)
        self._move(is_finite)
        return is_finite

    def _move(self, is_finite: bool) -> None:
        self.finite_updates = self.finite_updates + 1 if is_finite else 0
        if not is_finite:
            self.value /= 2
        elif self.finite_updates == self.interval:
            self.value, self.finite_updates = self.value * 2, 0
