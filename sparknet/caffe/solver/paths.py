"""Where a solver finds its files and puts its snapshots, by Caffe's rules and one more.

Paths are relative to the working folder, as in Caffe. What is not there is looked for beside the file that
names it: a net beside its solver, weights beside their state.
"""

from __future__ import annotations

import os
from pathlib import Path

from sparknet.errors import ModelError


def found(path: str, folder: Path, *, by_name: bool = False) -> Path:
    """``path`` itself if it exists, else the same path (or only its name) in ``folder``, if that exists."""
    beside = folder / (Path(path).name if by_name else path)
    return beside if not Path(path).exists() and beside.exists() else Path(path)


def snapshot_path(prefix: str, solver_file: Path, iteration: int, ending: str) -> Path:
    """``<prefix>_iter_<iteration><ending>``.

    Without a prefix it is the solver file's path less its ending; to a folder the file's name is added.
    """
    if not prefix:
        prefix = str(solver_file.with_suffix("")) if solver_file.name else "snapshot"
    if Path(prefix).is_dir():
        prefix = str(Path(prefix) / (solver_file.stem or "snapshot"))
    return Path(f"{prefix}_iter_{iteration}{ending}")


def check_writable(path: Path) -> None:
    """Raises ModelError if nothing can be written at ``path``, whose folders may be missing yet."""
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise ModelError(f"snapshots cannot be written to {path.parent}: see snapshot_prefix")
