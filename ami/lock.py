"""Writes requirements.lock beside this file: what pip installs on a node, with the SHA-256 of each file.

    python ami/lock.py        asks PyPI, and downloads about 3 GB on the way

The packages are those of versions.toml, and what they need at the versions of the requirements.lock above.
pip resolves them for the machine it runs on, which has to be such as nodes are: x86_64, Linux, their Python.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

AMI = Path(__file__).resolve().parent
LOCK = AMI / "requirements.lock"
INDEX = "https://pypi.org/simple"
TOOLS = ("setuptools", "uv")  # builds packages; makes the environment where there is no such Python
OPENING = "# What a node installs with pip --require-hashes. Made by: ./run lock\n"


def main() -> None:
    pins = tomllib.loads((AMI / "versions.toml").read_text(encoding="utf-8"))["python"]
    here = f"{platform.system()} {platform.machine()} {sys.version_info[0]}.{sys.version_info[1]}"
    if here != f"Linux x86_64 {pins['version']}":
        sys.exit(f"nodes are Linux x86_64 {pins['version']}, this is {here}: pip would choose other files")
    LOCK.write_text(OPENING + entries(resolved([*pins["packages"], *TOOLS])), encoding="utf-8")


def resolved(packages: Iterable[str]) -> dict[str, Any]:
    """pip's report of what it would install."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
        command += ["--index-url", INDEX, "--report", str(report)]
        command += ["--constraint", str(AMI.parent / "requirements.lock"), *packages]
        # of the index alone: this machine's own files and indexes are not the nodes'
        own = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
        subprocess.run(command, check=True, env={**own, "PIP_CONFIG_FILE": os.devnull})
        found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
        return found


def entries(report: dict[str, Any]) -> str:
    """One entry a package, in the form of a requirements file."""
    lines = sorted(
        f"{one['metadata']['name'].lower().replace('_', '-')}=={one['metadata']['version']} \\\n"
        f"    --hash=sha256:{one['download_info']['archive_info']['hashes']['sha256']}\n"
        for one in report["install"]
    )
    return "".join(lines)


if __name__ == "__main__":
    main()
