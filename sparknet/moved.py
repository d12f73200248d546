"""Modules under the names they had in version 0.1: they can be imported as before for one version, with a
DeprecationWarning that says where they are now.

    import sparknet.wire        # DeprecationWarning: sparknet.wire has moved to sparknet.codecs
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED: Mapping[str, str] = {
    "sparknet.changes": "sparknet.deltas",
    "sparknet.costs": "sparknet.reporting.costs",
    "sparknet.data.growing": "sparknet.data.growable",
    "sparknet.data.memory": "sparknet.data.growable",
    "sparknet.data.parking": "sparknet.data.handoff",
    "sparknet.feed": "sparknet.data.feed",
    "sparknet.lease": "sparknet.data.shard_reader",
    "sparknet.metrics": "sparknet.reporting.metrics",
    "sparknet.report": "sparknet.reporting.report",
    "sparknet.tensorboard": "sparknet.reporting.tensorboard",
    "sparknet.watch": "sparknet.reporting.watch",
    "sparknet.wire": "sparknet.codecs",
}

RENAMED: Mapping[str, str] = {
    "Changes": "DeltaEncoder",
    "Followed": "DeltaTracker",
    "Growing": "GrowableArray",
    "Lease": "ShardReader",
    "Parking": "Handoff",
    "Room": "MemoryLimit",
    "STRETCH": "CHUNK",
    "apply_change": "apply_delta",
    "codec": "get_codec",
    "gathered": "collect",
    "stretches": "chunks",
}
"""By the old name of something in a moved module, its new one."""


class MovedModules(MetaPathFinder):
    """Finds the modules of ``MOVED``; all others are left to the finders before it."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - Python's signature
        target: ModuleType | None = None,  # noqa: ARG002 - and this
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, _Alias(MOVED[fullname])) if fullname in MOVED else None


class _Alias(Loader):
    """Makes a module with the names of ``home``, old names among them."""

    def __init__(self, home: str) -> None:
        self._home = home

    def exec_module(self, module: ModuleType) -> None:
        _warn(module.__name__, self._home)
        names = {name: value for name, value in vars(import_module(self._home)).items() if name[:2] != "__"}
        vars(module).update(names)
        vars(module).update({old: names[new] for old, new in RENAMED.items() if new in names})


def install() -> None:
    """Have Python ask here for what nobody else finds; may be called again."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())


def moved_name(module: str, homes: Mapping[str, str], name: str) -> object:
    """What stands elsewhere now; ``partial`` makes a module's ``__getattr__`` of it.

    ``homes`` has the module and the name of today by the old name. Raises AttributeError for any other name.
    """
    if name not in homes:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    _warn(f"{module}.{name}", homes[name])
    home, _, new = homes[name].rpartition(".")
    return getattr(import_module(home), new)


def _warn(old: str, new: str) -> None:
    warnings.warn(
        f"{old} has moved to {new}; the old name goes with the next version", DeprecationWarning, stacklevel=3
    )
