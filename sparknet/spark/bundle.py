"""This package as a zip, for machines that do not have it: how the trainer travels.

session("training", master="spark://host:7077", ship=True)        a session that hands it to its executors
spark.sparkContext.addPyFile(bundle())                            to those of a session that runs already
"""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from pathlib import Path

import sparknet

# The time of every file in the zip: its bytes depend on what is in it alone.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def bundle() -> str:
    """The path of a zip with this package, named for its contents: a second file of one name, with other
    contents, would end every later task of a session.
    """
    package = Path(sparknet.__file__).parent
    if not package.is_dir():  # it is imported from a zip already
        return str(package.parent)
    files = [
        file for file in sorted(package.rglob("*")) if file.is_file() and "__pycache__" not in file.parts
    ]
    contents = {str(file.relative_to(package.parent)): file.read_bytes() for file in files}
    digest = hashlib.sha256(b"".join(name.encode() + data for name, data in contents.items())).hexdigest()
    target = Path(tempfile.gettempdir()) / f"sparknet-{digest[:16]}.zip"
    if not target.exists():
        _write(target, contents)
    return str(target)


def _write(target: Path, contents: dict[str, bytes]) -> None:
    with (
        tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as making,
        zipfile.ZipFile(making, "w") as archive,
    ):
        for name, data in contents.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    Path(making.name).replace(target)
