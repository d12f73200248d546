"""Sizes of memory on a command line, written as Spark's: 512m, 4g."""

from __future__ import annotations

import re

import click

_UNITS = "bkmgt"


class Size(click.ParamType[int]):
    """Bytes: a whole number and its unit, b, k, m, g or t, each 1024 times the one before."""

    name = "size"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        written = re.fullmatch(r"(\d+)(b|[kmgt]b?)", value.strip().lower())
        if not written:
            self.fail(f"{value!r} is no size: write a whole number and its unit, as 512m or 4g", param, ctx)
        return int(written[1]) << 10 * _UNITS.index(written[2][0])


SIZE = Size()
