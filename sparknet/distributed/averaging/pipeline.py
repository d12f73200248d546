"""Stages of work that overlap: some pieces are under way in each while others are finished."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TypeVar

Piece = TypeVar("Piece")


def delayed(pieces: Iterable[Piece], depth: int) -> Iterator[Piece]:
    """The pieces in their order, each delayed until ``depth`` of them have been taken and not yet given out.

    >>> list(delayed("abc", 2))
    ['a', 'b', 'c']
    """
    waiting: deque[Piece] = deque()
    for piece in pieces:
        waiting.append(piece)
        if len(waiting) == depth:
            yield waiting.popleft()
    yield from waiting
