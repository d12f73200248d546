"""The frame of large protobuf messages, so that weights go to a file without a copy of the whole.

A message is a row of fields; a field that holds bytes, floats or a message is its number, its length and its
content. Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

Piece = bytes | memoryview


def field(number: int, content: Sequence[Piece]) -> Iterator[Piece]:
    """The pieces of a field with this content."""
    yield varint(number << 3 | 2)  # 2: of a length given next
    yield varint(sum(memoryview(piece).nbytes for piece in content))
    yield from content


def floats(number: int, tensor: Tensor) -> Iterator[Piece]:
    """A packed field of float32; on the CPU its piece is the tensor's own memory."""
    array = tensor.detach().cpu().contiguous().numpy().astype("<f4", copy=False)
    return field(number, [array.reshape(-1).view(np.uint8).data])


def varint(value: int) -> bytes:
    """An integer from 0 on, seven bits to a byte, the lowest first.

    >>> varint(300).hex()
    'ac02'
    """
    low, rest = value & 0x7F, value >> 7
    return bytes([low | 0x80]) + varint(rest) if rest else bytes([low])
