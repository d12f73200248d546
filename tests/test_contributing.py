"""CONTRIBUTING.md: its files exist, its picture is the import table, its commands run, and its diff works."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from sparknet import codecs
from tests.pages import ROOT, codes, typed
from tests.sparknet import test_codecs
from tests.test_architecture import LAYERS, row_of
from tests.test_readme import DEVELOPER

BIN = Path(sys.executable).parent
FILE = ROOT / "CONTRIBUTING.md"
PAGE = FILE.read_text(encoding="utf-8")
PROSE = re.sub(r"^```.*?^```", "", PAGE, flags=re.MULTILINE | re.DOTALL)

# What each command is run as here; those that stand in the README as well are run by its test.
ONE_FILE = "./run test --args '-n 0 -x tests/sparknet/test_codecs.py'"
COMMANDS = {
    ".venv/bin/pytest": f"{BIN}/pytest --collect-only -q -n 0 tests/test_run.py",
    ONE_FILE: ONE_FILE,
}
NO_FILES = {"infra/*.py", "sparknet/*.py"}


def added(diff: str, file: str) -> str:
    """The lines that ``diff`` adds to ``file``."""
    part = diff.partition(f"+++ {file}\n")[2].partition("\n--- ")[0]
    return "\n".join(line.removeprefix("+") for line in part.splitlines())


def test_every_file_and_folder_that_is_named_is_there() -> None:
    named = set(re.findall(r"`((?:\w[\w.-]*/)+(?:[\w*.-]+\.\w+)?|(?:\w+/)+\w+|\w+\.(?:md|toml|txt))`", PROSE))
    paths = {name for name in named if name not in NO_FILES}
    assert len(paths) > 30
    below = (ROOT, ROOT / "infra/local", ROOT / "sparknet/caffe", ROOT / "sparknet/distributed")
    assert [name for name in sorted(paths) if not any((folder / name).exists() for folder in below)] == []


def test_the_picture_of_imports_is_the_table() -> None:
    (picture,) = codes(FILE, "text")
    for product in ("infra", "sparknet"):
        rows = [re.findall(rf"\b({product}\.[\w.]+|apps)(?=\s|$)", line) for line in picture.splitlines()]
        shown = [
            {row_of(name, LAYERS[product]) for name in row if name != "apps" or product == "sparknet"}
            for row in rows
        ]
        order = [row.pop() for row in shown if len(row) == 1]
        assert all(len(row) == 0 for row in shown), "two rows of the table stand in one line"
        assert None not in order
        assert order == sorted(order, key=lambda number: number or 0)
        assert len(order) > 8


def test_every_command_is_run_here_or_by_the_test_of_the_readme() -> None:
    assert set(COMMANDS) <= set(typed(FILE)) <= {*COMMANDS, *DEVELOPER}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))
def test_the_commands_pass(command: str) -> None:
    ran = subprocess.run(shlex.split(command), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_wire_format_of_the_diff_is_all_that_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    (diff,) = codes(FILE, "diff")
    monkeypatch.setattr(codecs, "CODECS", dict(codecs.CODECS))
    exec(added(diff, "sparknet/codecs.py"), vars(codecs).copy() | {"__name__": "sparknet.codecs"})
    codecs.CODECS["float16"] = codecs.CODECS.get("float16") or pytest.fail("it is not registered")
    names = dict(vars(test_codecs))
    exec(added(diff, "tests/sparknet/test_codecs.py"), names)
    names["test_float16_is_eight_times_as_exact_as_bfloat16"]()
    test_codecs.test_what_is_written_fills_the_size_that_was_said_and_comes_back("float16", 1000)


@pytest.mark.parametrize("command", ["sparknet-ec2", "sparknet"])
def test_both_commands_tell_the_one_version(command: str) -> None:
    said = subprocess.run(
        [BIN / command, "--version"], capture_output=True, text=True, timeout=60, check=True
    )
    written = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert written == version("sparknet-ec2")
    assert said.stdout.split() == [f"{command},", "version", written]
