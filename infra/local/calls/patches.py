"""The one registry of what is changed in moto, so that a new moto can be checked against it.

    @patch(EC2Response, "run_instances", why="a client token makes a call idempotent")
    def run_instances(cloud, original, response): ...

``cloud`` is the simulated cloud, ``original`` is moto's own function, and the rest are its arguments.
``patch.add`` is for what moto lacks. ``install`` puts all of them in place and refuses a moto that no longer
has what is replaced, or now has what was added. tests/infra/local/calls/test_patches.py holds the list.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from infra.errors import SetupError
from infra.local.calls.cloud import Cloud

Original = Callable[..., Any]


@dataclass(frozen=True, kw_only=True)
class Patch:
    """One function of moto, and ours in its place."""

    owner: type | ModuleType
    name: str
    replacement: Callable[..., Any]
    is_new: bool
    why: str

    def __str__(self) -> str:
        return f"{'adds' if self.is_new else 'replaces'} {self.owner.__name__}.{self.name}: {self.why}"


class Registry:
    """All patches, in the order in which they were registered."""

    def __init__(self) -> None:
        self.patches: list[Patch] = []
        self._tables: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def extend(self, table: dict[str, Any], entries: dict[str, Any]) -> None:
        """Add to one of moto's tables."""
        self._tables.append((table, entries))

    def __call__(self, owner: type | ModuleType, name: str, *, why: str) -> Callable[[Original], Original]:
        return self._register(owner, name, why, is_new=False)

    def add(self, owner: type | ModuleType, name: str, *, why: str) -> Callable[[Original], Original]:
        return self._register(owner, name, why, is_new=True)

    def install(self, cloud: Cloud) -> None:
        """Put them all in place, for ``cloud``.

        Raises SetupError if moto is not the one the patches were written for.
        """
        for one in self.patches:
            original = getattr(one.owner, one.name, None)
            if (original is None) != one.is_new:
                raise SetupError(
                    f"this version of moto does not fit the embedded cloud, which {one}; "
                    "install the pinned version"
                )
            setattr(one.owner, one.name, _bound(one, cloud, original))
        for table, entries in self._tables:
            table.update(entries)

    def _register(
        self, owner: type | ModuleType, name: str, why: str, *, is_new: bool
    ) -> Callable[[Original], Original]:
        def register(replacement: Original) -> Original:
            self.patches.append(
                Patch(owner=owner, name=name, replacement=replacement, is_new=is_new, why=why)
            )
            return replacement

        return register


def _bound(one: Patch, cloud: Cloud, original: Original | None) -> Original:
    """A plain function, as moto's dispatch looks for, with the first two arguments of a patch filled in."""

    @functools.wraps(one.replacement)
    def function(*arguments: Any, **named: Any) -> Any:
        return one.replacement(cloud, original, *arguments, **named)

    return function


patch = Registry()
