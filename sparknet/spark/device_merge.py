"""What ``sparknet.merge`` and ``sparknet.weights.mean_of`` reckon, of tensors and where they lie.

The numbers are those of the host, bit for bit: the same operations in the same order. ``distance`` alone is
summed differently, as a sum over a GPU's threads is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from sparknet.merge import Statistics

# Elements whose differences are made at a time.
_BLOCK = 1 << 22


def mean_of(vectors: Sequence[torch.Tensor], shares: Sequence[int], out: torch.Tensor) -> None:
    """The mean of the vectors, float32 (n,), the k-th counted ``shares[k]`` times, as ``weights.mean_of``.

    Takes memory of two float64 (n,) while it is made.
    """
    divisor = math.gcd(*shares)
    factors = [share // divisor for share in shares]
    if factors == [1, 1]:
        torch.add(vectors[0], vectors[1], out=out).mul_(0.5)
        return
    total = vectors[0].double().mul_(factors[0])
    for vector, factor in zip(vectors[1:], factors[1:], strict=True):
        total.add_(vector.double().mul_(factor))
    out.copy_(total.div_(sum(factors)))


def distance(start: torch.Tensor, vector: torch.Tensor) -> float:
    """The L2 norm of ``vector - start``; infinite if anything in it is not finite, or beyond 1e19."""
    norms = [
        torch.linalg.vector_norm(now - then)
        for now, then in zip(torch.split(vector, _BLOCK), torch.split(start, _BLOCK), strict=True)
    ]
    total = float(torch.linalg.vector_norm(torch.stack(norms), dtype=torch.float64)) if norms else 0.0
    return total if math.isfinite(total) else math.inf


class Spread:
    """Where the running means and variances of all layers lie, and how the former spread from worker to
    worker: what ``Statistics`` does for one layer, N numbers at once."""

    def __init__(self, statistics: Sequence[Statistics], device: torch.device) -> None:
        self._means = _places([entry.mean for entry in statistics], device)
        self._variances = _places([entry.variance for entry in statistics], device)
        scales = [-1 if entry.scale is None else entry.scale for entry in statistics]
        lengths = [entry.mean.stop - entry.mean.start for entry in statistics]
        self._scales = torch.tensor(scales, dtype=torch.int64, device=device).repeat_interleave(
            torch.tensor(lengths, dtype=torch.int64, device=device)
        )

    def __bool__(self) -> bool:
        return self._means.numel() > 0

    def of(self, merged: torch.Tensor, vector: torch.Tensor, share: int) -> torch.Tensor:
        """float64 (2, N): the weighted squares of one worker's distances from the ``merged`` means, and the
        weights."""
        scale = self._scale(vector)
        means, middle = vector[self._means].double(), merged[self._means].double()
        squares = (means / scale - middle / self._scale(merged)).square()
        weights = share * scale
        nothing = torch.zeros_like(weights)  # of one that has seen no batch
        return torch.stack([torch.where(scale == 0, nothing, weights * squares), weights])

    def widen(self, merged: torch.Tensor, spreads: Sequence[torch.Tensor]) -> None:
        """Add what ``of`` gave for each worker to the variances in ``merged``."""
        squares, weights = sum(spreads, torch.zeros((), dtype=torch.float64, device=merged.device))
        added = (squares / weights * self._scale(merged)).float()
        variances = merged[self._variances]
        merged[self._variances] = torch.where(weights == 0, variances, variances + added)

    def _scale(self, vector: torch.Tensor) -> torch.Tensor:
        """What each of the N means has been multiplied by."""
        scales = vector[self._scales].double()
        return torch.where(self._scales < 0, torch.ones_like(scales), scales)


def _places(slices: Sequence[slice], device: torch.device) -> torch.Tensor:
    ranges = [torch.arange(part.start, part.stop, device=device) for part in slices]
    return torch.cat(ranges) if ranges else torch.empty(0, dtype=torch.int64, device=device)
