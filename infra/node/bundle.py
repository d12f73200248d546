"""Bundle: the Python packages of the trainer, as this machine has them, in one zip for the nodes.

Every node has them from its set-up on, so that a program that is typed there finds them; a job brings those
of the machine that submits it, which go first on its path.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from infra.errors import SetupError
from infra.node import bootstrap, user_data

ON_NODE = PurePosixPath("opt/sparknet/trainer")  # below a host's root
PACKAGES = ("sparknet", "apps")
OF_HEALER = ("infra", *PACKAGES)
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
    digest = hashlib.sha256()
    files = [(name, file.read_bytes()) for name, file in sorted(_files(PACKAGES))]
    for name, content in files:
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return Bundle(zipped=_zipped(files), digest=digest.hexdigest()[:12])


def build_healer() -> bytes:
    """A zip of what the healer needs to set up nodes as this machine does: infra, ami and the trainer.

    Raises SetupError if a package is not installed here.
    """
    scripts = ((str(PurePosixPath("ami", *inside)), file) for inside, file in _below(bootstrap.AMI))
    own = ((user_data.CLOUD_CONFIG.name, user_data.CLOUD_CONFIG),)
    return _zipped((name, file.read_bytes()) for name, file in sorted([*_files(OF_HEALER), *scripts, *own]))


def package(name: str) -> Path:
    """The folder of a package that is installed here, without importing it. Raises SetupError."""
    found = find_spec(name)
    places = list(found.submodule_search_locations or []) if found else []
    if not places:
        raise SetupError(
            f"The package {name} is not installed next to infra; install the project as a whole."
        )
    return Path(places[0])


def _zipped(files: Iterable[tuple[str, bytes]]) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            info = zipfile.ZipInfo(name)  # dated 1980 whatever the file's date: equal sources, equal bytes
            info.external_attr = 0o644 << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return target.getvalue()


def _files(packages: Iterable[str]) -> Iterator[tuple[str, Path]]:
    """Name in the archive, and file."""
    for name in packages:
        yield from ((str(PurePosixPath(name, *inside)), file) for inside, file in _below(package(name)))


def _below(folder: Path) -> Iterator[tuple[tuple[str, ...], Path]]:
    """The files below ``folder`` that count, with their paths from there."""
    for file in folder.rglob("*"):
        inside = file.relative_to(folder).parts
        if file.is_file() and LEFT_OUT.isdisjoint(inside):
            yield inside, file
