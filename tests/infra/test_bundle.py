"""The trainer of this machine on a node: the same files, whatever was there, told apart by a digest."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from infra.node import bootstrap, bundle


def install(root: Path, packed: bundle.Bundle) -> None:
    zipped = root / f"{bundle.ON_NODE}.zip"
    zipped.write_bytes(packed.zipped)
    command = ["bash", str(root / bootstrap.ON_NODE / "50-trainer.sh"), str(zipped), packed.digest]
    subprocess.run(command, env={**os.environ, "SPARKNET_ROOT": str(root)}, check=True, timeout=120)


def told(root: Path) -> str:
    """What the node's own program says of it."""
    program = root / bootstrap.ON_NODE / "checks.py"
    code = f"import runpy; print(__import__('json').dumps(runpy.run_path({str(program)!r})['trainer']()))"
    ran = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60)
    return str(json.loads(ran.stdout))


def test_the_same_sources_make_the_same_zip() -> None:
    packed = bundle.build()
    assert packed == bundle.build()
    names = set(zipfile.ZipFile(io.BytesIO(packed.zipped)).namelist())
    assert {"apps/CifarApp.py", "sparknet/weights.py"} <= names
    assert not any("__pycache__" in name for name in names)


def test_a_node_has_exactly_the_files_that_were_packed(tmp_path: Path) -> None:
    (tmp_path / "opt/sparknet").mkdir(parents=True)
    shutil.copytree(bootstrap.AMI, tmp_path / bootstrap.ON_NODE)
    (tmp_path / "opt/sparknet/venv").symlink_to(sys.prefix)
    assert told(tmp_path) == ""
    packed = bundle.build()
    stale = tmp_path / bundle.ON_NODE / "sparknet/gone.py"
    for _ in range(2):
        install(tmp_path, packed)
        assert told(tmp_path) == packed.digest
        assert not stale.exists()
        stale.write_text("# of a version before")
        assert told(tmp_path) != packed.digest
    assert (tmp_path / bundle.ON_NODE / ".digest").read_text() == f"{packed.digest}\n"
    assert list((tmp_path / "opt/sparknet").glob("trainer*")) == [tmp_path / bundle.ON_NODE]
