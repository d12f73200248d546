"""How vectors are written on the wire: float32, or their changes in fewer bits.

    float32   4 bytes a number      the vector itself, exact
    bfloat16  2                     its change, rounded to 8 bits of mantissa
    int8      1 + 4 / 256           its change, in 255 steps of the largest of each block of 256

Fewer bits carry changes, not weights, and what rounding took away is added to the next change (error
feedback), so that nothing is lost for good. Sums are always float32 or wider: only what travels is short.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from sparknet.errors import UsageError
from sparknet.weights import Vector

Bytes = NDArray[np.uint8]

_BLOCK = 256
# Numbers that are encoded at a time: all that is made of them on the way stays in a core's cache.
_STRETCH = 1 << 15


class Codec(Protocol):
    """Writes a vector, float32 (n,), in ``size(n)`` bytes, and reads it back about as it was."""

    name: str

    def size(self, length: int) -> int: ...

    def encode(self, vector: Vector) -> Bytes: ...

    def decode(self, data: Bytes, length: int) -> Vector: ...


class Float32:
    """The bytes of the vector, not a copy of them."""

    name = "float32"

    def size(self, length: int) -> int:
        return 4 * length

    def encode(self, vector: Vector) -> Bytes:
        return vector.view(np.uint8)

    def decode(self, data: Bytes, length: int) -> Vector:
        return data[: 4 * length].view(np.float32)


class BFloat16:
    """The upper half of each float32, rounded to nearest even."""

    name = "bfloat16"

    def size(self, length: int) -> int:
        return 2 * length

    def encode(self, vector: Vector) -> Bytes:
        data = np.empty(2 * vector.size, np.uint8)
        _halves(data).copy_(torch.from_numpy(vector))
        return data

    def decode(self, data: Bytes, length: int) -> Vector:
        vector = np.empty(length, np.float32)
        torch.from_numpy(vector).copy_(_halves(data[: 2 * length]))
        return vector


class Int8:
    """A float32 scale for each block of 256, its largest / 127; then all numbers in units of theirs."""

    name = "int8"

    def size(self, length: int) -> int:
        return length + 4 * self._blocks(length)

    def encode(self, vector: Vector) -> Bytes:
        data = np.empty(self.size(vector.size), np.uint8)
        scales, steps = self._parts(data, vector.size)
        for begin in range(0, vector.size, _STRETCH):
            values = _whole_blocks(vector[begin : begin + _STRETCH])
            scale = values.abs().amax(1) / 127
            units = torch.where(scale > 0, scale, 1.0).reciprocal_()[:, None]
            torch.from_numpy(scales[begin // _BLOCK :][: len(scale)]).copy_(scale)
            stretch = torch.from_numpy(steps[begin : begin + _STRETCH])
            stretch.copy_((values * units).round_().flatten()[: len(stretch)])
        return data

    def decode(self, data: Bytes, length: int) -> Vector:
        vector = np.empty(length, np.float32)
        scales, steps = self._parts(data, length)
        for begin in range(0, length, _STRETCH):
            values = _whole_blocks(steps[begin : begin + _STRETCH])
            scale = torch.from_numpy(scales[begin // _BLOCK :][: len(values)])
            stretch = torch.from_numpy(vector[begin : begin + _STRETCH])
            if len(stretch) == values.numel():
                torch.mul(values, scale[:, None], out=stretch.view_as(values))
            else:
                stretch.copy_((values * scale[:, None]).flatten()[: len(stretch)])
        return vector

    def _parts(self, data: Bytes, length: int) -> tuple[Vector, NDArray[np.int8]]:
        """The scales and the numbers in ``data``."""
        scales = 4 * self._blocks(length)
        return data[:scales].view(np.float32), data[scales : scales + length].view(np.int8)

    def _blocks(self, length: int) -> int:
        return -(-length // _BLOCK)


def _halves(data: Bytes) -> torch.Tensor:
    return torch.from_numpy(data.view(np.int16)).view(torch.bfloat16)


def _whole_blocks(values: Vector | NDArray[np.int8]) -> torch.Tensor:
    """The values as rows of a block each, zeros after the last."""
    missing = -len(values) % _BLOCK
    return torch.from_numpy(np.pad(values, (0, missing)) if missing else values).view(-1, _BLOCK)


CODECS: dict[str, Codec] = {codec.name: codec for codec in (Float32(), BFloat16(), Int8())}


def codec(name: str) -> Codec:
    """The codec called ``name``. Raises UsageError if there is none."""
    if name not in CODECS:
        raise UsageError(f"the wire format {name!r} is not one of {', '.join(CODECS)}")
    return CODECS[name]


class Changes:
    """Encodes changes one after the other; what rounding takes from one is added to the next."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._residue: Vector | None = None

    def encode(self, change: Vector) -> Bytes:
        """``change`` float32 (n,), which is not changed."""
        whole = change if self._residue is None else np.add(change, self._residue, out=self._residue)
        data = self._codec.encode(whole)
        residue = np.subtract(whole, self._codec.decode(data, whole.size), out=self._residue)
        # a change that is not a number is told as it is, and not told again
        self._residue = residue if math.isfinite(residue.sum()) else None
        return data


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
        self.change = self._codec.encode(weights - self.known)
        moved = self._codec.decode(self.change, weights.size)
        self.known = np.add(self.known, moved, out=moved)  # the one before may still be somebody's start
