"""Bytes that are not sent as fast as they can be, but in parts through the time there is.

A worker that computes the next round while its average travels needs that average only where the round ends.
Sent in n parts through the round it takes an n-th of the rate, for others on the link to use, as fragments do
in Streaming DiLoCo (arXiv 2501.18512). Unlike there all parts belong to one average: what is merged, and
where, is the same as without.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self, TypeVar

from sparknet.distributed.timeouts import Timeouts

SHARE = 0.7
"""Of a round, in which its average travels; the rest is for what takes longer than it should."""

Part = TypeVar("Part")


@dataclass(frozen=True, kw_only=True)
class Spread:
    """``parts`` that begin evenly through ``seconds``; a part that is late is not waited for further."""

    parts: int = 1
    seconds: float = 0.0

    @classmethod
    def over(cls, parts: int, seconds: float, timeouts: Timeouts) -> Self:
        """At most half of the time in which a link may be silent, whatever ``seconds`` there are."""
        return cls(parts=parts, seconds=min(seconds, timeouts.send / 2, 3 * timeouts.ping))

    def due(self, number: int, count: int) -> float:
        """When piece ``number`` of ``count`` is, in seconds from the first."""
        return number * self.seconds / max(1, count)

    def paced(self, pieces: Iterable[Part], count: int) -> Iterator[Part]:
        """``count`` pieces, each when it is due."""
        began = time.monotonic()
        for number, piece in enumerate(pieces):
            wait = began + self.due(number, count) - time.monotonic()
            if self.seconds and wait > 0:
                time.sleep(wait)
            yield piece

    def cut(self, size: int, most: int) -> list[int]:
        """Where pieces of ``size`` bytes or numbers begin, of ``most`` at most, and as many as there are
        parts at least."""
        each = max(1, min(most, -(-size // self.parts)))
        return list(range(0, max(1, size), each))


AT_ONCE = Spread()
"""As fast as it goes."""
