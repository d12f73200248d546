"""RootDisk: what of a host that is a folder belongs to an image of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

FOLDERS = ("etc", "home", "opt", "root", "var")
ELSEWHERE = ("instance-store",)  # disks of their own, kept below var


def save(root: Path, target: Path) -> None:
    """Copy what is on the root disk of a host that is the folder ``root``; its own links stay inside it."""
    for name in FOLDERS:
        shutil.copytree(root / name, target / name, symlinks=True, ignore=shutil.ignore_patterns(*ELSEWHERE))
    for link in [path for path in target.rglob("*") if path.is_symlink()]:
        leads_to = link.readlink()
        if leads_to.is_relative_to(root):
            inside = target / leads_to.relative_to(root)
            link.unlink()
            link.symlink_to(os.path.relpath(inside, link.parent))
