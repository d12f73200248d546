"""Values of options with a unit, and lists of them: 1gbit, 50ms, 0.05/h, 4..1024."""

from __future__ import annotations

import re
from typing import Any

import click

_RATES = {"kbit": 125.0, "mbit": 125e3, "gbit": 125e6}
_TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


class _Quantity(click.ParamType[float]):
    """A number and one of ``units``, in which one of them counts as so much."""

    def __init__(self, name: str, units: dict[str, float], example: str) -> None:
        self.name, self._units, self._example = name, units, example

    def convert(self, value: str | float, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+) ?([a-z/]+)", value.strip().lower())
        if found is None or found[2] not in self._units:
            self.fail(
                f"{value!r} is not a number with one of {', '.join(self._units)}, such as {self._example}",
                param,
                ctx,
            )
        return float(found[1]) * self._units[found[2]]


class _Counts(click.ParamType[tuple[int, ...]]):
    """4..1024 (each twice the one before), or 2,5,9."""

    name = "counts"

    def convert(
        self, value: str | tuple[int, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        if not isinstance(value, str):
            return value
        if found := re.fullmatch(r"(\d+)\.\.(\d+)", value):
            first, last = int(found[1]), int(found[2])
            counts = [first << k for k in range(64) if first and first << k <= last]
            counts += [last] if counts and counts[-1] < last else []
        else:
            counts = [int(part) for part in value.split(",") if part.strip().isdigit()]
            counts = counts if len(counts) == len(value.split(",")) else []
        if not counts or min(counts) < 1:
            self.fail(f"{value!r} is not a range such as 4..1024, or a list such as 2,5,9", param, ctx)
        return tuple(dict.fromkeys(counts))


class _Choices(click.ParamType[tuple[Any, ...]]):
    """Several of some words, between commas."""

    name = "list"

    def __init__(self, words: list[str], numbers: bool = False) -> None:
        self._words, self._numbers = words, numbers

    def convert(
        self, value: str | tuple[Any, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        if not isinstance(value, str):
            return value
        return tuple(self._one(word.strip(), param, ctx) for word in value.split(","))

    def _one(self, word: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if self._numbers and word.isdigit() and int(word):
            return int(word)
        if word not in self._words:
            numbers = ["a number"] if self._numbers else []
            self.fail(f"{word!r} is not one of {', '.join([*numbers, *self._words])}", param, ctx)
        return word


RATE = _Quantity("rate", _RATES, "1gbit")
"""Bytes a second."""

DURATION = _Quantity("time", _TIMES, "50ms")
"""Seconds."""

PER_HOUR = _Quantity("rate", {"/h": 1.0, "/day": 1 / 24}, "0.05/h")
"""An hour."""

COUNTS = _Counts()


def some_of(words: list[str], *, numbers: bool = False) -> _Choices:
    """Several of ``words``, or whole numbers too, as a tuple."""
    return _Choices(words, numbers)
