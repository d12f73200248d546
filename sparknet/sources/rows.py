"""Neighbouring rows of several files that lie one after the other: which of them a part reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Rows:
    """Rows ``start`` to ``stop`` of a file."""

    url: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


def cut(whole: Sequence[Rows], which: slice) -> tuple[Rows, ...]:
    """The rows ``which``, counted over all of ``whole``.

    >>> cut([Rows("a", 0, 10), Rows("b", 0, 10)], slice(8, 12))
    (Rows(url='a', start=8, stop=10), Rows(url='b', start=0, stop=2))
    """
    found, begin = [], 0
    for rows in whole:
        first, last = max(which.start - begin, 0), min(which.stop - begin, len(rows))
        if first < last:
            found.append(Rows(rows.url, rows.start + first, rows.start + last))
        begin += len(rows)
    return tuple(found)
