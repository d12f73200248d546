"""Apps started as a user starts them, with everything that could reach the outside switched off."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
APPS = ROOT / "apps"


def environment(**changes: str) -> dict[str, str]:
    """This process's, without data, Spark and cloud settings of the user's."""
    dropped = ("SPARKNET_", "SPARK_", "PYSPARK_", "AWS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, "SPARK_LOCAL_IP": "127.0.0.1", **changes}


def pack(archive: Path) -> None:
    """Write the trainer's packages as the zip that goes to a cluster."""
    with zipfile.ZipFile(archive, "w") as packed:
        for package in ("apps", "sparknet"):
            for file in (ROOT / package).rglob("*"):
                if file.is_file() and "__pycache__" not in file.parts:
                    packed.write(file, file.relative_to(ROOT))


def run_app(
    name: str, *arguments: str, folder: Path, seconds: float = 240, **variables: str
) -> subprocess.CompletedProcess[str]:
    """``python apps/NAME.py ARGUMENTS`` in ``folder``."""
    return subprocess.run(
        [sys.executable, str(APPS / f"{name}.py"), *arguments],
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
