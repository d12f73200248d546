"""Delta encoding with error feedback: what rounding took from one delta is added to the next.

Formats of fewer bits carry differences of weights, not weights. Sums are always float32 or wider: only what
travels is short.
"""

from __future__ import annotations

import math

import numpy as np

from sparknet.codecs import CHUNK, Bytes, Codec, chunks
from sparknet.weights import Vector, squares


class DeltaEncoder:
    """Encodes the deltas of a vector of ``length`` numbers, one after the other.

    With ``feedback`` it keeps a residual, float32 (length,): what rounding took away so far.
    """

    def __init__(self, codec: Codec, length: int, *, feedback: bool = True) -> None:
        self.codec = codec
        self._residual = np.zeros(length, np.float32) if feedback else None

    def encode(self, vector: Vector, base: Vector, data: Bytes) -> float:
        """Write to ``data`` how ``vector`` differs from ``base``, both float32 (length,).

        Returns the sum of the squares of the difference.
        """
        total, buffer = 0.0, np.empty(min(CHUNK, vector.size), np.float32)
        for where, at in chunks(self.codec, vector.size):
            delta = buffer[: where.stop - where.start]
            total += squares(np.subtract(vector[where], base[where], out=delta))
            self.write(where, delta, data[at])
        return total

    def write(self, where: slice, delta: Vector, data: Bytes) -> None:
        """Write the chunk ``where`` of a delta, float32 (n,), to its part of the data; it is overwritten."""
        if self._residual is None:
            self.codec.write(delta, data)
            return
        residual, decoded = self._residual[where], np.empty_like(delta)
        delta += residual
        self.codec.write(delta, data)
        self.codec.read(data, decoded)
        np.subtract(delta, decoded, out=residual)
        if not math.isfinite(residual.sum()):  # one that is not a number is sent as it is, and only once
            residual[:] = 0.0


class DeltaTracker:
    """The weights as those have them who are only sent deltas; ``version`` counts these.

    A delta is computed from ``known``, what they have: so what rounding took away is part of the next one.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.version = 0
        self.delta: Bytes = np.empty(0, np.uint8)
        self.known: Vector = np.empty(0, np.float32)

    def move(self, weights: Vector) -> None:
        """Go to ``weights``, float32 (P,); ``known`` is ``delta`` away from the ``known`` before."""
        self.version += 1
        if not self.known.size:
            self.known = weights.copy()
            return
        # new memory for both: the ones before may still be on their way, or somebody's start
        self.delta = np.empty(self._codec.size(weights.size), np.uint8)
        DeltaEncoder(self._codec, weights.size, feedback=False).encode(weights, self.known, self.delta)
        moved = np.empty_like(weights)
        apply_delta(self._codec, self.delta, self.known, moved)
        self.known = moved


def apply_delta(codec: Codec, data: Bytes, base: Vector, out: Vector) -> None:
    """Write to ``out`` ``base`` plus the delta in ``data``; both float32 (n,), or the same array."""
    buffer = np.empty(min(CHUNK, base.size), np.float32)
    for where, at in chunks(codec, base.size):
        delta = buffer[: where.stop - where.start]
        codec.read(data[at], delta)
        np.add(base[where], delta, out=out[where])
