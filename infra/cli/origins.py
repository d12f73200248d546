"""Where a value came from that is refused: the variable, or the file of options and its line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from infra.errors import UsageError

OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")


@dataclass(frozen=True, kw_only=True)
class OptionsFile:
    """What a file of options says: ``values`` by the parameter that they set, and the line of each."""

    path: Path
    values: Mapping[str, Any] = field(default_factory=dict)
    lines: Mapping[str, int] = field(default_factory=dict)

    def default_map(self, verbs: Iterable[str]) -> dict[str, Any]:
        """What click looks up between the environment and an option's own default."""
        return {verb: dict(self.values) for verb in verbs}


def of(ctx: click.Context, parameter: click.Parameter) -> str:
    """A half-sentence; empty for what was typed."""
    match ctx.get_parameter_source(str(parameter.name)):
        case ParameterSource.ENVIRONMENT:
            return f"from {parameter.envvar} in the environment"
        case ParameterSource.DEFAULT_MAP:
            file = ctx.find_object(OptionsFile)
            line = file.lines.get(str(parameter.name)) if file else None
            return f"from line {line} of {file.path}" if file and line else ""
    return ""


def told(error: click.UsageError) -> str:
    """The message of an error of click's, and where the value came from."""
    message = error.format_message()
    if not (isinstance(error, click.BadParameter) and error.ctx and error.param):
        return message
    origin = of(error.ctx, error.param)
    return f"{message} It comes {origin}." if origin else message


@contextmanager
def named() -> Iterator[None]:
    """Add to a UsageError where the options came from that its message names, if they were not typed."""
    try:
        yield
    except UsageError as error:
        ctx = click.get_current_context(silent=True)
        origins = list(_of_message(ctx, str(error))) if ctx else []
        if not origins:
            raise
        raise type(error)(f"{error} ({'; '.join(origins)})") from None


def _of_message(ctx: click.Context, message: str) -> Iterator[str]:
    words = set(OPTION.findall(message))
    for parameter in ctx.command.params:
        origin = of(ctx, parameter)
        if origin and words.intersection(parameter.opts):
            yield f"{next(word for word in reversed(parameter.opts))} comes {origin}"
