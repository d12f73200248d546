"""A worker's end of the weights: what a round starts from, and how the driver is told where it ended."""

from __future__ import annotations

import numpy as np

from sparknet.changes import Changes, apply_change
from sparknet.spark.exchange import raw
from sparknet.weights import Vector
from sparknet.wire import Bytes, codec


class Uplink:
    """Around ``vector`` float32 (P,), where the driver's frames put the weights and the worker trains them.

    With ``wire`` float32 that is all there is to it. Else only changes travel: those of the driver are
    applied to what the last round started from, and the worker's own are reckoned from there.
    """

    def __init__(self, vector: Vector, wire: str) -> None:
        self._vector, self._codec = vector, codec(wire)
        self._changes = None if wire == "float32" else Changes(self._codec, vector.size)
        self._base: Vector = np.empty(0, np.float32)
        size = self._codec.size(vector.size) if self._changes else 0
        self.change: Bytes = np.empty(size, np.uint8)
        self._told: Bytes = np.empty(size, np.uint8)

    def apply_change(self) -> None:
        """The driver has moved by what has been received into ``change``."""
        apply_change(self._codec, self.change, self._base, self._base)

    def begin(self, arrived: bool) -> None:
        """A round starts: from ``vector`` if whole weights have ``arrived``, else from what is known."""
        if self._changes is None:
            return
        if arrived:
            self._base = self._vector.copy()
        else:
            np.copyto(self._vector, self._base)

    def result(self) -> memoryview:
        """What to send of ``vector`` now that the round has ended."""
        if self._changes is None:
            return raw(self._vector)
        self._changes.tell(self._vector, self._base, self._told)
        return raw(self._told)
