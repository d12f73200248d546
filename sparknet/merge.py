"""From the workers' vectors to one: who may count, how much, and the mean, running statistics included.

A vector is left out if it is not finite, or if it has moved from the round's start more than ten times as far
as the median worker: one diverging replica must not spoil the others.

The mean of variances is not the variance of the whole: for each pair of a running mean and a running variance
that the layout names, the spread of the workers' means is added,

    mean = sum p_k mean_k,    variance = sum p_k (variance_k + (mean_k - mean)^2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from sparknet.errors import TrainingError
from sparknet.weights import Layout, Vector, Weights, mean_of, squares

# A worker that moved this many times as far as the median one is an outlier.
OUTLIER = 10.0

_BLOCK = 1 << 15


@dataclass(frozen=True, eq=False)
class Merged:
    """``mean`` float32 (P,); ``kept`` numbers the vectors in it; ``rejected`` says why the others are not.

    ``sent`` are the bytes that the workers sent to each other for it.
    """

    mean: Weights
    kept: tuple[int, ...]
    rejected: Mapping[int, str]
    sent: int = 0


def merge(
    start: Vector, vectors: Sequence[Vector], shares: Sequence[int], statistics: Sequence[Statistics] = ()
) -> Merged:
    """As ``merge_moved``, where it is not known yet how far the vectors are from ``start``."""
    return merge_moved(vectors, [distance(start, vector) for vector in vectors], shares, statistics)


def merge_moved(
    vectors: Sequence[Vector],
    distances: Sequence[float],
    shares: Sequence[int],
    statistics: Sequence[Statistics] = (),
    outlier: float = OUTLIER,
) -> Merged:
    """The mean of ``vectors``, float32 (P,), counted by ``shares``, without outliers.

    ``distances`` says how far each has moved from what all of them began from, ``outlier`` how many times as
    far as the median one an outlier has. Raises TrainingError if none is left.
    """
    rejected = rejections(distances, outlier)
    kept = tuple(k for k in range(len(vectors)) if k not in rejected)
    chosen, counts = [vectors[k] for k in kept], [shares[k] for k in kept]
    mean = mean_of(chosen, counts)
    for statistic in statistics:
        statistic.join(mean, chosen, counts)
    return Merged(mean, kept, rejected)


def distance(start: Vector, vector: Vector) -> float:
    """The L2 norm of ``vector - start``; infinite if anything in it is not finite, or beyond 1e19."""
    return norm(squared_distance(start, vector))


def squared_distance(start: Vector, vector: Vector) -> float:
    """The sum of the squares of ``vector - start``."""
    total, buffer = 0.0, np.empty(min(_BLOCK, start.size), np.float32)
    for begin in range(0, start.size, _BLOCK):
        block = slice(begin, begin + _BLOCK)
        total += squares(np.subtract(vector[block], start[block], out=buffer[: start[block].size]))
    return total


def norm(squared: float) -> float:
    """The root of a sum of squares; infinite if a term of it is not a number."""
    return math.sqrt(squared) if math.isfinite(squared) else math.inf


def rejections(distances: Sequence[float], outlier: float = OUTLIER) -> dict[int, str]:
    """Which of the workers that moved by these L2 norms are outliers, and why; only those that did not move
    by a number if ``outlier`` is infinite.

    Raises TrainingError if all are.
    """
    finite = [moved for moved in distances if math.isfinite(moved)]
    limit = outlier * median(finite) if finite and math.isfinite(outlier) else math.inf
    reasons = {}
    for k, moved in enumerate(distances):
        if not math.isfinite(moved):
            reasons[k] = "its weights have overflowed or are not numbers"
        elif moved > limit:
            reasons[k] = f"it moved {moved:.3g}, more than {outlier:g} times the median"
    if len(reasons) == len(distances):
        raise TrainingError(
            f"training diverged: the weights of all {len(reasons)} workers have overflowed or are not "
            "numbers. Lower base_lr, or clip gradients"
        )
    return reasons


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Where a layer's running mean and variance lie in the vector, equally long.

    ``scale`` is the place of the number they have both been multiplied by, in Caffe's BatchNorm; None for
    none.
    """

    mean: slice
    variance: slice
    scale: int | None = None

    def join(self, merged: Vector, vectors: Sequence[Vector], shares: Sequence[int]) -> None:
        """Add the spread of the means of ``vectors`` to the variance in ``merged``."""
        parts = [self.spread(merged, vector, share) for vector, share in zip(vectors, shares, strict=True)]
        spread = sum((weight * part for weight, part in parts), np.zeros(()))
        self.widen(merged, spread, sum(weight for weight, _ in parts))

    def spread(self, merged: Vector, vector: Vector, share: float) -> tuple[float, NDArray[np.float64]]:
        """How much one worker's statistics count, and its means' squared distances from the merged ones."""
        scale = self._scale(vector)
        if not scale:
            return 0.0, np.zeros(self.mean.stop - self.mean.start)  # it has seen no batch
        means, middle = vector[self.mean].astype(np.float64), merged[self.mean].astype(np.float64)
        return share * scale, (means / scale - middle / self._scale(merged)) ** 2

    def widen(self, merged: Vector, spread: NDArray[np.float64], total: float) -> None:
        """Add the sum ``spread`` of all workers' squares, ``total`` in all, to the merged variance."""
        if total:
            merged[self.variance] += (spread / total * self._scale(merged)).astype(np.float32)

    def _scale(self, vector: Vector) -> float:
        return 1.0 if self.scale is None else float(vector[self.scale])


def torch_statistics(layout: Layout) -> tuple[Statistics, ...]:
    """The running statistics of torch's BatchNorm layers, found by the names of their buffers."""
    slots = {slot.name: slot for slot in layout}
    pairs = [
        (slots[name], slots[name.removesuffix("running_mean") + "running_var"])
        for name in slots
        if name.endswith("running_mean") and name.removesuffix("running_mean") + "running_var" in slots
    ]
    return tuple(
        Statistics(mean=slice(mean.offset, mean.end), variance=slice(variance.offset, variance.end))
        for mean, variance in pairs
    )
