"""ami/30-python.sh: what it installs, from where, and what it leaves alone, with a pip that only notes it."""

from __future__ import annotations

import os
import subprocess
import tomllib
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from infra.node import bootstrap
from infra.spec import ClusterSpec

ROOT = Path(__file__).resolve().parents[2]

(TORCH,) = (pin for pin in bootstrap.versions()["python"]["packages"] if pin.startswith("torch=="))

# `python -` tells whether all is there: not before pip has run; `python -m pip ...` notes its arguments.
PYTHON = """\
#!/bin/sh
folder=$(dirname "$0")
if [ "$1" = - ]; then cat >/dev/null; shift; echo "$*" >"$folder/checked"; [ -e "$folder/pip" ]; exit; fi
shift 2
echo "$*" >"$folder/pip"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The bin folder of a node's environment that lacks everything."""
    made = tmp_path / "opt/sparknet/venv/bin"
    made.mkdir(parents=True)
    (made / "python").write_text(PYTHON)
    (made / "python").chmod(0o755)
    return made


def run(root: Path, spec: ClusterSpec | None = None, driver: str = "") -> subprocess.CompletedProcess[str]:
    """The step on a node with its files below ``root``, and a driver of this version."""
    (step,) = (step for step in bootstrap.steps(spec or ClusterSpec(), gpus=1) if step.name == "python")
    tools = root / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text(f"#!/bin/sh\n{f'echo {driver}' if driver else 'exit 9'}\n")
    (tools / "nvidia-smi").chmod(0o755)
    return subprocess.run(
        ["bash", str(bootstrap.AMI / step.script)],
        env={"PATH": f"{tools}:{os.environ['PATH']}", "SPARKNET_ROOT": str(root), **step.env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def of_extra(package: str, extra: str) -> set[str]:
    """What the ``extra`` of an installed package brings."""
    brought = map(Requirement, metadata.requires(package) or [])
    return {one.name for one in brought if one.marker and one.marker.evaluate({"extra": extra})}


def test_the_pins_of_a_node_are_those_of_the_lock_file() -> None:
    locked = set((ROOT / "requirements.lock").read_text().split())
    assert set(bootstrap.versions()["python"]["packages"]) <= locked


def test_a_node_is_given_all_that_the_trainer_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = set()
    for wanted in map(Requirement, project["optional-dependencies"]["train"]):
        needed |= {wanted.name, *(one for extra in wanted.extras for one in of_extra(wanted.name, extra))}
    assert {pin.split("==")[0] for pin in bootstrap.versions()["python"]["packages"]} == needed


@pytest.mark.parametrize("driver", ["", "580.105.08", "595.91.07"])
def test_packages_come_pinned_from_pypi(folder: Path, tmp_path: Path, driver: str) -> None:
    assert run(tmp_path, driver=driver).returncode == 0
    told = (folder / "pip").read_text().split()
    assert TORCH in told
    assert not any("index" in word for word in told)


def test_an_older_driver_gets_a_torch_that_it_runs(folder: Path, tmp_path: Path) -> None:
    assert run(tmp_path, driver="570.133.07").returncode == 0
    assert "--extra-index-url=https://download.pytorch.org/whl/cu126" in (folder / "pip").read_text().split()


def test_an_environment_that_is_complete_is_left_as_it_is(folder: Path, tmp_path: Path) -> None:
    (folder / "pip").write_text("the first time\n")
    assert run(tmp_path).returncode == 0
    assert (folder / "pip").read_text() == "the first time\n"
    assert TORCH in (folder / "checked").read_text()


def test_somebodys_own_environment_is_looked_at_and_never_changed(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    folder.parent.rename(own)
    folder.parent.symlink_to(own)
    ran = run(tmp_path, replace(ClusterSpec(), spark_version="4.0.1"))
    assert ran.returncode == 1
    assert f"{own} is not this node's to change" in ran.stderr
    assert not (own / "bin/pip").exists()
    checked = (own / "bin/checked").read_text().split()
    assert checked[-1] == "pyspark==4.0.1"
    assert "torch" in checked
