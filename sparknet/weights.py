"""The flat weight vector: where each named blob of a net lies in one float32 array.

A net allocates one vector and makes every parameter a view of it, so that sending, averaging and restoring
weights are single operations on one contiguous array, whatever the net.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING

from sparknet.errors import ModelError

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]


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
