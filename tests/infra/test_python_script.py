"""ami/30-python.sh: what it installs, from where, and what it leaves alone, with a pip that only notes it."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tomllib
import venv
import zipfile
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from ami import lock
from infra.node import bootstrap
from infra.spec import ClusterSpec

ROOT = Path(__file__).resolve().parents[2]

(TORCH,) = (pin for pin in bootstrap.versions()["python"]["packages"] if pin.startswith("torch=="))

#: Each entry of a node's lock, and the hashes it has.
LOCKED = {
    entry.split()[0]: re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry)
    for entry in re.split(r"\n(?=\S)", lock.LOCK.read_text())[1:]
}

# `python -` tells whether all is there: not before pip has run; `python -m pip ...` notes its arguments, and
# each package of a file of requirements.
PYTHON = """\
#!/bin/sh
folder=$(dirname "$0")
if [ "$1" = - ]; then cat >/dev/null; shift; echo "$*" >"$folder/checked"; [ -e "$folder/pip" ]; exit; fi
shift 2
echo "$*" >>"$folder/pip"
while [ "$1" ]; do if [ "$1" = -r ]; then sed -n 's/ \\\\$//; /==/p' "$2" >>"$folder/pip"; fi; shift; done
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
    locked = set((ROOT / "requirements.lock").read_text().lower().split())  # names have no case
    assert set(bootstrap.versions()["python"]["packages"]) <= locked


OF_THE_HEALER = {"boto3", "click", "fabric"}  # which runs on the master


def test_a_node_is_given_all_that_the_trainer_and_the_healer_need() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = set()
    for wanted in map(Requirement, project["optional-dependencies"]["train"]):
        needed |= {wanted.name, *(one for extra in wanted.extras for one in of_extra(wanted.name, extra))}
    pinned = {pin.split("==")[0] for pin in bootstrap.versions()["python"]["packages"]}
    assert pinned == needed | OF_THE_HEALER


@pytest.mark.parametrize("driver", ["", "580.105.08", "595.91.07"])
def test_packages_come_pinned_from_pypi(folder: Path, tmp_path: Path, driver: str) -> None:
    assert run(tmp_path, driver=driver).returncode == 0
    told = (folder / "pip").read_text().splitlines()
    assert "index" not in " ".join(told)
    assert all("--require-hashes" in line for line in told if line.startswith("install"))
    names = [line for line in told if not line.startswith("install")]
    assert names[0].startswith("setuptools==")
    assert set(names) == LOCKED.keys() - {one for one in LOCKED if one.startswith("uv==")}


def test_an_older_driver_gets_a_torch_that_it_runs(folder: Path, tmp_path: Path) -> None:
    assert run(tmp_path, driver="570.133.07").returncode == 0
    told = (folder / "pip").read_text().splitlines()
    assert told[-1].startswith(f"install --extra-index-url=https://download.pytorch.org/whl/cu126 {TORCH}")
    assert not [line for line in told if line.startswith(("torch==", "nvidia-", "triton=="))]
    assert "numpy==2.4.6" in told


def test_a_spark_that_is_asked_for_is_installed_beside_what_is_locked(folder: Path, tmp_path: Path) -> None:
    assert run(tmp_path, replace(ClusterSpec(), spark_version="4.0.1")).returncode == 0
    told = (folder / "pip").read_text().splitlines()
    assert told[-1].startswith("install --no-build-isolation pyspark==4.0.1")
    assert not [line for line in told[:-1] if line.startswith(("pyspark==", "py4j=="))]


def test_the_lock_has_a_hash_for_each_of_the_pins_and_all_that_they_need() -> None:
    assert all(LOCKED.values())
    assert set(bootstrap.versions()["python"]["packages"]) <= LOCKED.keys()
    known = {canonicalize_name(one.partition("==")[0]) for one in LOCKED}
    for pin in LOCKED:
        try:
            needed = metadata.requires(pin.partition("==")[0]) or []
        except metadata.PackageNotFoundError:  # of CUDA, which this machine may do without
            continue
        for one in map(Requirement, needed):
            if one.marker is None or one.marker.evaluate({"extra": ""}):
                assert canonicalize_name(one.name) in known, f"{pin} needs {one}"


def test_both_locks_have_the_same_versions() -> None:
    ours = [line.partition(";")[0].strip() for line in (ROOT / "requirements.lock").read_text().splitlines()]
    parts = (line.partition("==") for line in ours)
    versions = {canonicalize_name(name): version for name, _, version in parts}
    for pin in LOCKED:
        name, _, version = pin.partition("==")
        assert versions.get(canonicalize_name(name), version) == version


def test_pips_report_becomes_entries_with_hashes() -> None:
    report = {
        "install": [
            {
                "metadata": {"name": name, "version": "1.0"},
                "download_info": {"archive_info": {"hashes": {"sha256": digit * 64}}},
            }
            for name, digit in (("typing_extensions", "b"), ("Jinja2", "a"))
        ]
    }
    assert lock.entries(report) == (
        f"jinja2==1.0 \\\n    --hash=sha256:{'a' * 64}\n"
        f"typing-extensions==1.0 \\\n    --hash=sha256:{'b' * 64}\n"
    )


def wheel(folder: Path, name: str, needs: str = "") -> str:
    """A package of nothing in a local index; the SHA-256 of its file."""
    page = folder / name
    page.mkdir(parents=True)
    file = page / f"{name}-1.0-py3-none-any.whl"
    facts = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n" + (
        f"Requires-Dist: {needs}\n" if needs else ""
    )
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{name}-1.0.dist-info/METADATA", facts)
        archive.writestr(
            f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
    (page / "index.html").write_text(f'<a href="{file.name}">{file.name}</a>')
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["", "another file", "a package that is not locked"])
def test_pip_takes_what_the_lock_has_and_nothing_else(fault: str, tmp_path: Path) -> None:
    scripts, index, root = tmp_path / "ami", tmp_path / "index", tmp_path / "root"
    scripts.mkdir()
    shutil.copy(bootstrap.AMI / "30-python.sh", scripts)
    hashes = {name: wheel(index, name) for name in ("setuptools", "needed", "sneaked")}
    hashes["wanted"] = wheel(index, "wanted", "sneaked" if fault.startswith("a package") else "needed")
    if fault == "another file":
        hashes["needed"] = "0" * 64
    locked = [name for name in hashes if name != "sneaked"]
    (scripts / "requirements.lock").write_text(
        "".join(f"{name}==1.0 \\\n    --hash=sha256:{hashes[name]}\n" for name in locked)
    )
    venv.create(root / "opt/sparknet/venv", with_pip=True)
    ran = subprocess.run(
        ["bash", str(scripts / "30-python.sh")],
        env={
            "PATH": os.environ["PATH"],
            "SPARKNET_ROOT": str(root),
            "PYTHON_VERSION": "3.11",
            "PACKAGES": "wanted==1.0",
            "ASKED": "",
            "TORCH_DRIVER": "580",
            "OLDER_TORCH_INDEX": "",
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": index.as_uri(),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode == 0) == (not fault), ran.stderr
    if fault == "another file":
        assert "DO NOT MATCH THE HASHES" in ran.stderr
    elif fault:
        assert "sneaked" in ran.stderr
        assert "--require-hashes mode" in ran.stderr or "require-hashes" in ran.stderr


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
