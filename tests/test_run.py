"""The `run` script on machines that lack something: what it says, and that it can be run again."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("sh", "dirname", "id", "sed", "head", "cat", "cmp", "mv", "rm", "mkdir", "env")

# Stands for every python: makes an environment of itself and records what it is asked.
FAKE_PYTHON = """#!/bin/sh
here=$(dirname "$0")
echo "$*" >>"$CALLS"
case "$*" in
*"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
*"pip install"*) [ ! -e "$FAIL_PIP" ] ;;
*) exit 0 ;;
esac
"""
FAKE_JAVA = """#!/bin/sh
echo 'openjdk version "%s.0.1" 2025-01-01' >&2
"""


class Machine:
    """A folder with a copy of `run` and a PATH of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin, self.calls = folder / "checkout", folder / "bin", folder / "calls"
        self.fail_pip = folder / "fail-pip"
        self.folder.mkdir()
        self.bin.mkdir()
        self.calls.touch()
        for name in ("run", "requirements.lock", "pyproject.toml"):
            shutil.copy(ROOT / name, self.folder / name)
        for tool in (*TOOLS, "cp"):
            (self.bin / tool).symlink_to(shutil.which(tool) or tool)

    def add(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def run(self, *args: str) -> subprocess.CompletedProcess[str]:
        env = {"PATH": str(self.bin), "CALLS": str(self.calls), "FAIL_PIP": str(self.fail_pip)}
        return subprocess.run(
            ["./run", *args], cwd=self.folder, env=env, capture_output=True, text=True, timeout=30
        )

    @property
    def installs(self) -> int:
        return self.calls.read_text().count("-r requirements.lock")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.add("python3", FAKE_PYTHON)
    machine.add("java", FAKE_JAVA % 17)
    return machine


def test_the_first_start_installs_and_the_second_does_not(machine: Machine) -> None:
    assert machine.run("test").returncode == 0
    assert machine.run("test").returncode == 0
    assert machine.installs == 1
    assert machine.calls.read_text().splitlines()[-1] == "-m invoke test"


def test_no_task_lists_the_tasks(machine: Machine) -> None:
    assert machine.run().returncode == 0
    assert machine.calls.read_text().splitlines()[-1] == "-m invoke --list"


def test_a_failed_installation_says_so_and_is_taken_up_again(machine: Machine) -> None:
    machine.fail_pip.touch()
    failed = machine.run("test")
    assert failed.returncode == 1
    assert "run the same command again" in failed.stderr
    machine.fail_pip.unlink()
    assert machine.run("test").returncode == 0
    assert machine.installs == 2


def test_a_new_lock_file_installs_again(machine: Machine) -> None:
    machine.run("test")
    with (machine.folder / "requirements.lock").open("a") as lock:
        lock.write("new==1\n")
    machine.run("test")
    assert machine.installs == 2


def test_a_moved_checkout_gets_a_new_environment(machine: Machine) -> None:
    machine.run("test")
    (machine.folder / ".venv" / "of-the-old-place").touch()
    machine.folder = machine.folder.rename(machine.folder.with_name("moved"))
    assert machine.run("test").returncode == 0
    assert not (machine.folder / ".venv" / "of-the-old-place").exists()


def test_without_python_it_says_what_to_install(machine: Machine) -> None:
    (machine.bin / "python3").unlink()
    ran = machine.run("test")
    assert ran.returncode == 1
    assert ran.stderr.startswith("run: needs Python 3.11 or newer; install it")


@pytest.mark.parametrize("version", [None, "11"])
def test_without_a_recent_java_it_says_what_to_install(machine: Machine, version: str | None) -> None:
    (machine.bin / "java").unlink()
    if version:
        machine.add("java", FAKE_JAVA % version)
    ran = machine.run("test")
    assert ran.returncode == 1
    assert f"Spark needs Java 17 or newer, found {version or 'none'}" in ran.stderr
    assert "openjdk-17-jre-headless" in ran.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="apt-get is only tried by root here")
def test_a_missing_java_is_installed_where_this_user_may(machine: Machine) -> None:
    (machine.bin / "java").unlink()
    machine.add("packaged-java", FAKE_JAVA % 17)
    machine.add("apt-get", f"#!/bin/sh\ncp {machine.bin}/packaged-java {machine.bin}/java\n")
    assert machine.run("test").returncode == 0
