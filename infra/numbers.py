"""Numbers: which numbers the workers of a cluster have, for life, as a tag's value keeps them.

    1-3,5/6    worker-1, -2, -3 and -5 were asked for, there or lost; 6 is the highest number ever given

A lost worker's number waits for its replacement; one that was taken away is not given again. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice

WORKER_NAME = re.compile(r"worker-(\d+)")
MOST_CHARACTERS = 256  # of a tag's value


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """``wanted``: of the workers that were asked for. ``highest``: the highest ever given."""

    wanted: frozenset[int] = frozenset()
    highest: int = 0

    @classmethod
    def parse(cls, text: str) -> Numbers:
        """What a tag says; nothing of a text that is no such value."""
        ranges, _, highest = text.partition("/")
        if not re.fullmatch(r"(\d+(-\d+)?(,\d+(-\d+)?)*)?", ranges) or not highest.isdigit():
            return cls()
        return cls(wanted=frozenset(_numbers(ranges)), highest=int(highest))

    def __str__(self) -> str:
        """As a tag keeps it. What is too long for one is cut: those workers' names live on their own tags."""
        ranges, end = _ranges(self.wanted), f"/{self.highest}"
        while ranges and len(",".join(ranges)) + len(end) > MOST_CHARACTERS:
            ranges.pop()
        return ",".join(ranges) + end

    @property
    def names(self) -> tuple[str, ...]:
        """Of the workers that were asked for, by number."""
        return tuple(map(name_of, sorted(self.wanted)))

    def including(self, numbers: Iterable[int]) -> Numbers:
        """With these as well: of workers that are there, whatever the tag says."""
        more = frozenset(numbers)
        return Numbers(wanted=self.wanted | more, highest=max((self.highest, *more)))

    def without(self, numbers: Iterable[int]) -> Numbers:
        """These are taken away, and not given again."""
        less = frozenset(numbers)
        return Numbers(wanted=self.wanted - less, highest=max((self.highest, *less)))

    def grown_to(self, workers: int) -> Numbers:
        """For so many workers, with new numbers where there are fewer."""
        more = islice(count(self.highest + 1), max(0, workers - len(self.wanted)))
        return self.including(more)


def name_of(number: int) -> str:
    return f"worker-{number}"


def number_of(name: str) -> int | None:
    """None for what is no worker's name."""
    found = WORKER_NAME.fullmatch(name)
    return int(found[1]) if found else None


def free(taken: Iterable[int]) -> Iterator[int]:
    """Numbers from 1 on that are not ``taken``."""
    known = frozenset(taken)
    return (number for number in count(1) if number not in known)


def _numbers(ranges: str) -> Iterator[int]:
    for part in filter(None, ranges.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _ranges(numbers: Iterable[int]) -> list[str]:
    found: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return [str(first) if first == last else f"{first}-{last}" for first, last in found]
