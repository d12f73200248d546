"""Bootstrap: turns the scripts of ami/ into what a node runs. Pure; printable without AWS.

A placeholder is ``@NAME@``: neither shell, nor YAML, nor systemd gives that a meaning of its own.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from infra.spec import ClusterSpec

AMI = Path(__file__).resolve().parents[2] / "ami"
ON_NODE = PurePosixPath("opt/sparknet/ami")  # below a host's root
MARK = PurePosixPath("opt/sparknet/recipe")  # holds the content hash of what has been installed to its end
PLACEHOLDER = re.compile(r"@([A-Z][A-Z_]*)@")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One script of ``ami/``, with its environment and how long it may take."""

    name: str
    script: str
    env: Mapping[str, str]
    timeout_seconds: float
    is_kept: bool = False  # what it makes is part of an image and survives reboots: not run twice


def render(template: str, values: Mapping[str, object]) -> str:
    """``template`` with each ``@NAME@`` replaced. Raises KeyError for a name without a value."""
    return PLACEHOLDER.sub(lambda match: str(values[match[1]]), template)


def steps(spec: ClusterSpec, *, gpus: int) -> tuple[Step, ...]:
    """What makes a worker out of a bare machine, in order; ``gpus`` is how many its type has."""
    pins = versions()
    java, python, torch = pins["java"], pins["python"], pins["torch"]
    asked = f"pyspark=={spec.spark_version}" if spec.spark_version else ""
    packages = [asked if asked and pin.startswith("pyspark==") else pin for pin in python["packages"]]
    return (
        Step(name="system", script="10-system.sh", env={}, timeout_seconds=400),
        Step(
            name="gpu",
            script="20-gpu.sh",
            env={"EXPECTED_GPUS": str(gpus), "OLDEST_DRIVER": str(pins["gpu"]["oldest_driver"])},
            timeout_seconds=120,
        ),
        Step(
            name="python",
            script="30-python.sh",
            env={
                "PYTHON_VERSION": python["version"],
                "PACKAGES": " ".join(packages),
                "ASKED": asked,
                "TORCH_DRIVER": str(torch["driver"]),
                "OLDER_TORCH_INDEX": torch["older_index"],
            },
            timeout_seconds=1200,
            is_kept=True,
        ),
        Step(
            name="spark",
            script="40-spark.sh",
            env={
                "OLDEST_JAVA": str(java["oldest"]),
                "JAVA_URL": java["url"],
                "JAVA_SHA256": java["sha256"],
            },
            timeout_seconds=600,
            is_kept=True,
        ),
    )


def content_hash(spec: ClusterSpec) -> str:
    """Sixteen digits that identify all that ``ami/`` puts on a node; others when any of it changes."""
    digest = hashlib.sha256(spec.spark_version.encode())
    for file in sorted(one for one in AMI.rglob("*") if one.is_file() and "__pycache__" not in one.parts):
        digest.update(f"\0{file.relative_to(AMI)}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def versions() -> dict[str, Any]:
    """The pins of ``ami/versions.toml``."""
    return tomllib.loads((AMI / "versions.toml").read_text(encoding="utf-8"))
