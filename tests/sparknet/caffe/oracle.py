"""The numbers that real Caffe computed lie in the folder named by ``SPARKNET_ORACLE``."""

from __future__ import annotations

import os
from pathlib import Path


def oracle_file(name: str) -> Path | None:
    """A file or folder of the oracle, or None where it is absent."""
    folder = os.environ.get("SPARKNET_ORACLE", "")
    path = Path(folder) / name
    return path if folder and path.exists() else None


def weights_file(name: str) -> Path | None:
    """A file of published weights in the folder named by ``SPARKNET_WEIGHTS``, or None."""
    folder = os.environ.get("SPARKNET_WEIGHTS", "")
    path = Path(folder) / name
    return path if folder and path.exists() else None
