"""The one registry of what is changed in moto, so that a new moto can be checked against it.

    @patch(EC2Response, "run_instances", why="a client token makes a call idempotent")
    def run_instances(original, response): ...

``original`` is moto's own function. ``patch.add`` is for what moto lacks. ``install`` puts all of them in
place and fails loudly if moto no longer has what is replaced, or now has what was added.
tests/infra/local/calls/test_patches.py holds the list.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

from infra.errors import SetupError

if TYPE_CHECKING:
    from infra.local.simulation import Simulation

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
    """All patches, and the simulation they serve."""

    def __init__(self) -> None:
        self.patches: list[Patch] = []
        self._tables: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._cloud: Simulation | None = None

    @property
    def cloud(self) -> Simulation:
        assert self._cloud is not None, "patches are installed by Simulation"
        return self._cloud

    def extend(self, table: dict[str, Any], entries: dict[str, Any]) -> None:
        """Add to one of moto's tables."""
        self._tables.append((table, entries))

    def __call__(self, owner: type | ModuleType, name: str, *, why: str) -> Callable[[Original], Original]:
        return self._register(owner, name, why, is_new=False)

    def add(self, owner: type | ModuleType, name: str, *, why: str) -> Callable[[Original], Original]:
        return self._register(owner, name, why, is_new=True)

    def install(self, cloud: Simulation) -> None:
        """Raises SetupError if moto is not the one the patches were written for."""
        self._cloud = cloud
        for one in self.patches:
            original = getattr(one.owner, one.name, None)
            if (original is None) != one.is_new:
                raise SetupError(
                    f"this version of moto does not fit the embedded cloud, which {one}; "
                    "install the pinned version"
                )
            setattr(one.owner, one.name, _bound(one, original))
        for table, entries in self._tables:
            table.update(entries)

    def _register(
        self, owner: type | ModuleType, name: str, why: str, *, is_new: bool
    ) -> Callable[[Original], Original]:
        def remember(replacement: Original) -> Original:
            self.patches.append(
                Patch(owner=owner, name=name, replacement=replacement, is_new=is_new, why=why)
            )
            return replacement

        return remember


def _bound(one: Patch, original: Original | None) -> Original:
    """A plain function, which moto's dispatch looks for, that knows the one it replaces."""

    @functools.wraps(one.replacement)
    def function(*arguments: Any, **named: Any) -> Any:
        return one.replacement(original, *arguments, **named)

    return function


patch = Registry()
