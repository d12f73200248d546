"""The flat weight vector: where each named blob of a net lies in one float32 array.

A net allocates one vector and makes every parameter a view of it, so that sending, averaging and restoring
weights are single operations on one contiguous array, whatever the net.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from sparknet.errors import ModelError

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]
Vector = NDArray[np.float32]


class RemoteVector(Protocol):
    """A vector that is not in this process."""

    def fetch(self) -> Vector:
        """The vector, float32 (P,). Raises WorkersLost if it is gone."""
        ...


Weights = Vector | RemoteVector


def fetch(weights: Weights) -> Vector:
    """The vector itself, float32 (P,); fetched if it is remote."""
    return weights if isinstance(weights, np.ndarray) else weights.fetch()


# Elements averaged at a time: the float64 sums of a block stay in a core's cache.
_BLOCK = 1 << 15


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One named blob inside the vector: elements ``offset`` to ``offset + size``."""

    name: str
    shape: Shape
    offset: int

    @property
    def size(self) -> int:
        """Number of float32 elements; 1 for a scalar blob."""
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        return self.offset + self.size


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the blobs, in the order in which they lie in the vector."""

    slots: tuple[Slot, ...]

    @classmethod
    def of(cls, blobs: Mapping[str, Iterable[int]]) -> Layout:
        """Lay the blobs out one after the other, in the order of the mapping.

        >>> Layout.of({"ip/0": (10, 4), "ip/1": (10,)}).size
        50
        """
        shapes = {name: tuple(shape) for name, shape in blobs.items()}
        offsets = accumulate((math.prod(shape) for shape in shapes.values()), initial=0)
        return cls(
            tuple(
                Slot(name=name, shape=shape, offset=offset)
                for (name, shape), offset in zip(shapes.items(), offsets, strict=False)
            )
        )

    @property
    def size(self) -> int:
        """Length of the vector in float32 elements."""
        return self.slots[-1].end if self.slots else 0

    def __iter__(self) -> Iterator[Slot]:
        return iter(self.slots)

    def views(self, vector: torch.Tensor) -> dict[str, torch.Tensor]:
        """The blobs as views of ``vector`` (float32, ``(size,)``); writing to one writes to the vector.

        Raises ModelError if the vector has another length.
        """
        self.check(vector.numel())
        return {slot.name: vector[slot.offset : slot.end].view(slot.shape) for slot in self.slots}

    def check(self, length: int) -> None:
        """Raise ModelError unless a vector of ``length`` elements fits this layout."""
        if length != self.size:
            raise ModelError(
                f"a weight vector of {length:,} numbers does not fit a net of {self.size:,}: "
                "the weights belong to another net"
            )


def squares(vector: Vector) -> float:
    """The sum of the squares of float32 (n,)."""
    # not vector @ vector: BLAS would wake a thread for each core, to spin beside the workers
    return float(np.einsum("i,i", vector, vector))


def mean_of(vectors: Sequence[Vector], shares: Sequence[int], out: Vector | None = None) -> Vector:
    """The mean of the vectors, float32 (P,), the k-th counted ``shares[k]`` times; written to ``out``.

    Sums are float64 and run in the order given: the mean of equal vectors is that vector, bit for bit, and
    a mean does not depend on who came first.

    >>> mean_of([np.float32([1, 4]), np.float32([3, 0])], [1, 3])
    array([2.5, 1. ], dtype=float32)
    """
    divisor = math.gcd(*shares)
    factors = [share // divisor for share in shares]
    mean = np.empty_like(vectors[0]) if out is None else out
    for start in range(0, mean.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        if factors == [1, 1]:  # the same number in float32, five times as fast: halving is exact
            np.add(vectors[0][block], vectors[1][block], out=mean[block])
            mean[block] *= np.float32(0.5)
            continue
        total = np.multiply(vectors[0][block], factors[0], dtype=np.float64)
        for vector, factor in zip(vectors[1:], factors[1:], strict=True):
            total += vector[block] if factor == 1 else np.multiply(vector[block], factor, dtype=np.float64)
        np.divide(total, sum(factors), out=mean[block], casting="same_kind")
    return mean
