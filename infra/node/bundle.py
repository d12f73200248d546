"""Bundle: the Python packages of the trainer, as this machine has them, in one zip for the nodes.

Every node has them from its set-up on, so that a program that is typed there finds them; a job brings those
of the machine that submits it, which go first on its path.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from infra.errors import SetupError

ON_NODE = PurePosixPath("opt/sparknet/trainer")  # below a host's root
PACKAGES = ("sparknet", "apps")
LEFT_OUT = {"__pycache__", ".mypy_cache", ".pytest_cache"}


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """The packages as one zip; ``digest`` identifies its files, as ami/checks.py computes it on a node."""

    zipped: bytes
    digest: str


def build() -> Bundle:
    """Zip the packages: the same sources give the same bytes.

    Raises SetupError if a package is not installed here.
    """
    target, digest = io.BytesIO(), hashlib.sha256()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in sorted(_files()):
            content = file.read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
            info = zipfile.ZipInfo(name)  # dated 1980 whatever the file's date: equal sources, equal bytes
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return Bundle(zipped=target.getvalue(), digest=digest.hexdigest()[:12])


def package(name: str) -> Path:
    """The folder of a package that is installed here, without importing it. Raises SetupError."""
    found = find_spec(name)
    places = list(found.submodule_search_locations or []) if found else []
    if not places:
        raise SetupError(
            f"The package {name} is not installed next to infra; install the project as a whole."
        )
    return Path(places[0])


def _files() -> Iterator[tuple[str, Path]]:
    """Name in the archive, and file."""
    for name in PACKAGES:
        folder = package(name)
        for file in folder.rglob("*"):
            inside = file.relative_to(folder)
            if file.is_file() and LEFT_OUT.isdisjoint(inside.parts):
                yield str(PurePosixPath(name, *inside.parts)), file
