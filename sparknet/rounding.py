"""What a wire format of fewer bits makes of vectors that do not travel: that of a star, in one process.

The driver sends deltas of what the workers know already, and a worker sends that of what it began from, with
what rounding has taken from its last ones added (``deltas.py``).
"""

from __future__ import annotations

import numpy as np

from sparknet.codecs import Codec
from sparknet.deltas import DeltaEncoder, DeltaTracker, apply_delta
from sparknet.weights import Vector


class RoundedMean:
    """The way of the mean of gradients from the driver to all workers, who are sent the same bytes; what
    rounding took away is added to the next one. ``data`` uint8 (bytes,) is the last as the codec writes
    it."""

    def __init__(self, codec: Codec, length: int) -> None:
        self._codec, self._encoder = codec, DeltaEncoder(codec, length)
        self.data = np.empty(codec.size(length), np.uint8)

    def sent(self, mean: Vector, base: Vector) -> Vector:
        """What the workers have of ``mean``, which travels as how it differs from ``base``."""
        self.data = np.empty_like(self.data)  # the last one may still be on its way
        self._encoder.encode(mean, base, self.data)
        decoded = np.empty_like(mean)
        apply_delta(self._codec, self.data, base, decoded)
        return decoded


class RoundedExchange:
    """For workers that are known by their numbers; vectors are float32 (P,). ``codec`` is a lossy one."""

    def __init__(self, codec: Codec) -> None:
        self._codec, self._tracker = codec, DeltaTracker(codec)
        self._encoders: dict[int, DeltaEncoder] = {}

    def forget(self) -> None:
        """All begin from whole weights, as where rounds begin to overlap."""
        self._tracker = DeltaTracker(self._codec)
        self._encoders.clear()

    def sent(self, weights: Vector) -> Vector:
        """What workers have of the driver's weights."""
        self._tracker.move(weights)
        return self._tracker.known

    def returned(self, worker: int, vector: Vector, base: Vector) -> Vector:
        """What the driver has of a worker's vector, which began a round from ``base``."""
        if worker not in self._encoders:
            self._encoders[worker] = DeltaEncoder(self._codec, vector.size)
        data = np.empty(self._codec.size(vector.size), np.uint8)
        self._encoders[worker].encode(vector, base, data)
        decoded = np.empty_like(base)
        apply_delta(self._codec, data, base, decoded)
        return decoded
