"""How vectors are written on the wire: float32, or their deltas in fewer bits.

    float32   4 bytes a number      the vector itself, exact
    bfloat16  2                     its delta, rounded to 8 bits of mantissa
    int8      1 + 4 / 256           its delta, in 255 steps of the largest of each block of 256

A vector is written chunk by chunk, one after the other: all that is made of a chunk on the way stays in
a core's cache, and no call is long enough for torch to wake a thread for each core. Deltas are in
``deltas.py``.

A format is one class with ``@register``: everything else asks it what it needs to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from sparknet.errors import UsageError
from sparknet.weights import Vector

Bytes = NDArray[np.uint8]

CHUNK = 1 << 15
"""Numbers in a chunk, a multiple of the block of int8."""

_BLOCK = 256


class Codec(Protocol):
    """Writes numbers, float32 (n,) of a chunk at most, in ``size(n)`` bytes, and reads them back about as
    they were."""

    name: str
    is_lossless: bool
    """Whether numbers are read as they were written. Then vectors travel as float32, else their deltas do.
    """
    keeps_residual: bool
    """Whether workers that average among themselves keep what rounding took away, and add it to the next
    delta. It takes a further vector in each: not worth it where the error is small."""

    def size(self, length: int) -> int:
        """Bytes of a vector, of any length."""
        ...

    def write(self, numbers: Vector, data: Bytes) -> None: ...

    def read(self, data: Bytes, numbers: Vector) -> None: ...


def chunks(codec: Codec, length: int) -> Iterator[tuple[slice, slice]]:
    """Where the chunks of a vector of ``length`` numbers lie, and where their bytes do."""
    size = codec.size(CHUNK)
    for number, begin in enumerate(range(0, length, CHUNK)):
        end = min(begin + CHUNK, length)
        yield slice(begin, end), slice(number * size, number * size + codec.size(end - begin))


CODECS: dict[str, Codec] = {}
"""The formats by name, as the ``wire`` options know them."""

Kind = TypeVar("Kind", bound=Codec)


def register(kind: type[Kind]) -> type[Kind]:
    """Make a format known by its name."""
    CODECS[kind.name] = kind()
    return kind


def get_codec(name: str) -> Codec:
    """The codec called ``name``. Raises UsageError if there is none."""
    if name not in CODECS:
        raise UsageError(f"the wire format {name!r} is not one of {', '.join(CODECS)}")
    return CODECS[name]


@register
class Float32:
    """The bytes of the numbers."""

    name = "float32"
    is_lossless = True
    keeps_residual = False

    def size(self, length: int) -> int:
        return 4 * length

    def write(self, numbers: Vector, data: Bytes) -> None:
        data.view(np.float32)[:] = numbers

    def read(self, data: Bytes, numbers: Vector) -> None:
        numbers[:] = data.view(np.float32)


@register
class BFloat16:
    """The upper half of each float32, rounded to nearest even."""

    name = "bfloat16"
    is_lossless = False
    keeps_residual = False

    def size(self, length: int) -> int:
        return 2 * length

    def write(self, numbers: Vector, data: Bytes) -> None:
        self._halves(data).copy_(torch.from_numpy(numbers))

    def read(self, data: Bytes, numbers: Vector) -> None:
        torch.from_numpy(numbers).copy_(self._halves(data))

    def _halves(self, data: Bytes) -> torch.Tensor:
        return torch.from_numpy(data.view(np.int16)).view(torch.bfloat16)


@register
class Int8:
    """A float32 scale for each block of 256, its largest / 127; then all numbers in units of theirs."""

    name = "int8"
    is_lossless = False
    keeps_residual = True

    def size(self, length: int) -> int:
        return length + 4 * self._blocks(length)

    def write(self, numbers: Vector, data: Bytes) -> None:
        scales, steps = self._parts(data, len(numbers))
        values = _in_blocks(torch.from_numpy(numbers))
        torch.div(values.abs().amax(1), 127, out=scales)
        units = torch.where(scales > 0, scales, 1.0).reciprocal_()[:, None]
        steps.copy_((values * units).round_().flatten()[: len(steps)])

    def read(self, data: Bytes, numbers: Vector) -> None:
        scales, steps = self._parts(data, len(numbers))
        values, vector = _in_blocks(steps), torch.from_numpy(numbers)
        if len(vector) == values.numel():
            torch.mul(values, scales[:, None], out=vector.view_as(values))
        else:
            vector.copy_((values * scales[:, None]).flatten()[: len(vector)])

    def _parts(self, data: Bytes, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The scales and the numbers in ``data``."""
        scales = 4 * self._blocks(length)
        steps = data[scales : scales + length].view(np.int8)
        return torch.from_numpy(data[:scales].view(np.float32)), torch.from_numpy(steps)

    def _blocks(self, length: int) -> int:
        return -(-length // _BLOCK)


def _in_blocks(values: torch.Tensor) -> torch.Tensor:
    """The values as rows of a block each, zeros after the last."""
    missing = -len(values) % _BLOCK
    return (torch.nn.functional.pad(values, (0, missing)) if missing else values).view(-1, _BLOCK)
