"""Values of options that several commands have."""

from __future__ import annotations

import re

import click


class PictureSize(click.ParamType[tuple[int, int]]):
    """256, or 240x320 (height x width)."""

    name = "size"

    def convert(
        self, value: str | tuple[int, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if not isinstance(value, str):
            return value
        found = re.fullmatch(r"(\d+)(?:x(\d+))?", value)
        if found is None or "0" in (found[1], found[2]):
            self.fail(f"{value!r} is not a size such as 256 or 240x320 (height x width)", param, ctx)
        return int(found[1]), int(found[2] or found[1])


SIZE = PictureSize()
