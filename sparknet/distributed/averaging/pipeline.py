"""Stages of work that overlap: some pieces are on their way in each, while others are looked after."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

Piece = TypeVar("Piece")


def delayed(pieces: Iterable[Piece], depth: int) -> Iterator[Piece]:
    """The pieces in their order, each once there are ``depth`` of them that have not been given out.

    >>> list(delayed("abc", 2))
    ['a', 'b', 'c']
    """
    waiting: deque[Piece] = deque()
    for piece in pieces:
        waiting.append(piece)
        if len(waiting) == depth:
            yield waiting.popleft()
    yield from waiting
