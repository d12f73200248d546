"""A command line of an app as it was drawn, and what it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import click

from apps import CifarApp, ImageNetApp, MnistApp
from sparknet.algorithms import ALGORITHMS

APPS: Mapping[str, click.Command] = {
    "CifarApp": CifarApp.main,
    "MnistApp": MnistApp.main,
    "ImageNetApp": ImageNetApp.main,
}


def options_of(app: str) -> dict[str, click.Option]:
    """Those the app's own command has, by name."""
    return {str(each.name): each for each in APPS[app].params if isinstance(each, click.Option)}


@dataclass(frozen=True, kw_only=True)
class Line:
    """``given`` are values as they are written, by the option's name; those of flags are "yes" and "no".

    ``nonsense`` names the options whose value cannot be.
    """

    app: str
    given: Mapping[str, str] = field(default_factory=dict)
    nonsense: frozenset[str] = frozenset()

    @cached_property
    def words(self) -> list[str]:
        """As on a command line."""
        options, words = options_of(self.app), list[str]()
        for name, value in self.given.items():
            option = options[name]
            if option.is_flag:
                words.append((option.opts if value == "yes" else option.secondary_opts)[0])
            else:
                words += [option.opts[0], value]
        return words

    def __str__(self) -> str:
        return " ".join(
            [self.app, *(f"'{word}'" if " " in word or not word else word for word in self.words)]
        )

    def has(self, name: str) -> bool:
        return name in self.given

    def value(self, name: str) -> Any:
        """What is asked for, the default where nothing is: of the type that the option says."""
        option = options_of(self.app)[name]
        if option.is_flag:
            return self.given[name] == "yes" if self.has(name) else option.default is True
        written = self.given.get(name, option.default)
        if not isinstance(written, str) or name in self.nonsense:
            return None if type(written).__name__ == "Sentinel" else written
        if isinstance(option.type, click.types.FloatParamType):
            return float(written)
        if isinstance(option.type, click.types.IntParamType):
            return int(written)
        return written

    @property
    def algorithm(self) -> str:
        return str(self.value("algorithm") or self.value("outer") or "average")

    @property
    def tau(self) -> int | str:
        """Steps of a round, or auto; the algorithm's or the app's where nothing is said."""
        said = self.value("tau")
        if said:
            return "auto" if said == "auto" else int(said)
        own = {"CifarApp": 10, "MnistApp": 10, "ImageNetApp": 50}[self.app]
        return ALGORITHMS[self.algorithm].tau or own

    @property
    def is_elastic(self) -> bool:
        return self.algorithm in ("easgd", "easgd-lockfree", "eamsgd")
