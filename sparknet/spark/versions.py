"""Which weights are the current ones, and the last that the driver has itself.

Every vector that a round or a test may start from has a number. A member ``holds`` the one that its net has
now, and ``keeps`` the one that its round began from.
"""

from __future__ import annotations

import numpy as np

from sparknet.weights import Vector


class Versions:
    """``number`` is that of the current weights; ``vector``, float32 (P,), are those of number ``here``."""

    def __init__(self) -> None:
        self.number = self.here = 0
        self.vector: Vector = np.empty(0, np.float32)

    def publish(self, weights: Vector) -> None:
        """These are the current weights, and the driver has them."""
        if weights is not self.vector or self.here != self.number:
            self.vector = weights
            self.number += 1
            self.here = self.number

    def made_elsewhere(self) -> int:
        """The workers have made new ones among themselves; their number."""
        self.number += 1
        return self.number

    def brought(self, weights: Vector) -> None:
        """The current weights have come to the driver."""
        self.vector, self.here = weights, self.number
