"""Vectors told by their changes: what has been rounded away in one is added to the next.

Fewer bits carry changes, not weights, and what rounding took away is not lost for good (error feedback). Sums
are always float32 or wider: only what travels is short.
"""

from __future__ import annotations

import math

import numpy as np

from sparknet.codecs import STRETCH, Bytes, Codec, stretches
from sparknet.weights import Vector, squares


class Changes:
    """Writes changes of ``length`` numbers, one change after the other.

    Without ``feedback`` what rounding takes from one is forgotten.
    """

    def __init__(self, codec: Codec, length: int, *, feedback: bool = True) -> None:
        self.codec = codec
        self._residue = np.zeros(length, np.float32) if feedback else None

    def tell(self, vector: Vector, base: Vector, data: Bytes) -> float:
        """Write to ``data`` how ``vector`` differs from ``base``, both float32 (length,).

        Returns the sum of the squares of the difference.
        """
        total, room = 0.0, np.empty(min(STRETCH, vector.size), np.float32)
        for where, at in stretches(self.codec, vector.size):
            change = room[: where.stop - where.start]
            total += squares(np.subtract(vector[where], base[where], out=change))
            self.write(where, change, data[at])
        return total

    def write(self, where: slice, change: Vector, data: Bytes) -> None:
        """Write the stretch ``where`` of a change, float32 (n,), to its part of the data; it is used up."""
        if self._residue is None:
            self.codec.write(change, data)
            return
        residue, told = self._residue[where], np.empty_like(change)
        change += residue
        self.codec.write(change, data)
        self.codec.read(data, told)
        np.subtract(change, told, out=residue)
        if not math.isfinite(residue.sum()):  # a change that is not a number is told as it is, and only once
            residue[:] = 0.0


class Followed:
    """The weights as those know them who only hear of changes; ``version`` counts the changes.

    What rounding keeps from them is part of the next change: it is reckoned from what they know.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.version = 0
        self.change: Bytes = np.empty(0, np.uint8)
        self.known: Vector = np.empty(0, np.float32)

    def move(self, weights: Vector) -> None:
        """Go to ``weights``; afterwards ``known`` is ``change`` away from the ``known`` before."""
        self.version += 1
        if not self.known.size:
            self.known = weights.copy()
            return
        # new memory for both: the ones before may still be on their way, or somebody's start
        self.change = np.empty(self._codec.size(weights.size), np.uint8)
        Changes(self._codec, weights.size, feedback=False).tell(weights, self.known, self.change)
        moved = np.empty_like(weights)
        apply_change(self._codec, self.change, self.known, moved)
        self.known = moved


def apply_change(codec: Codec, data: Bytes, base: Vector, out: Vector) -> None:
    """Write to ``out`` what ``base`` has become by the change in ``data``; both float32 (n,), or the same."""
    room = np.empty(min(STRETCH, base.size), np.float32)
    for where, at in stretches(codec, base.size):
        change = room[: where.stop - where.start]
        codec.read(data[at], change)
        np.add(base[where], change, out=out[where])
