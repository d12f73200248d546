"""Which tests run and in what order, by their markers; and that Java starts for marked ones only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.schedule import longest_first, unit_of

ROOT = Path(__file__).resolve().parent.parent

TESTS = """
import os, subprocess, pytest

@pytest.fixture
def spark(): ...

@pytest.fixture
def rig(): ...

def test_plain(): ...
def test_shared_spark(spark): ...
def test_namespaces(rig): ...
@pytest.mark.spark
def test_own_spark():
    subprocess.run([os.environ["JAVA_HOME"] + "/bin/java", "--version"], check=True)
@pytest.mark.rig
def test_disks(): ...
@pytest.mark.gpu
def test_gpu(): ...
@pytest.mark.slow
def test_slow(): ...
@pytest.mark.slow
@pytest.mark.long
def test_long(): ...
"""
UNMARKED = """
import os, subprocess

def test_starts_java():
    java = os.environ["JAVA_HOME"] + "/bin/java"
    subprocess.run([java, "-version"], check=True)  # to ask whether there is one is no start
    done = subprocess.run([java, "--version"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
"""


def ran(folder: Path, *words: str) -> str:
    """What a pytest with this project's hooks says of the tests in ``folder``."""
    (folder / "pytest.ini").write_text(
        "[pytest]\ntestpaths = .\naddopts = -p tests.conftest -p no:cacheprovider -v\n"
        "markers =\n    spark:\n    rig:\n    gpu:\n    slow:\n    long:\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", *words]
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    return done.stdout + done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "test_one.py").write_text(TESTS)
    return tmp_path


def test_a_plain_pytest_runs_what_is_not_marked_by_itself_or_by_its_fixture(folder: Path) -> None:
    said = ran(folder)
    assert "test_plain PASSED" in said
    assert "1 passed, 7 deselected" in said


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["--all"], 7),
        (["test_one.py"], 8),
        (["-k", "spark"], 2),
        (["-m", "spark or gpu"], 3),
        (["-m", "long"], 1),
    ],
    ids=["all of it", "a file", "a word", "markers", "what is long"],
)
def test_whoever_names_something_gets_all_of_it(folder: Path, words: list[str], count: int) -> None:
    said = ran(folder, "--collect-only", *words)
    assert said.count("<Function test_") == count, said


@pytest.mark.spark
def test_java_starts_for_a_marked_test_and_an_unmarked_one_is_told_to_be_marked(folder: Path) -> None:
    (folder / "test_two.py").write_text(UNMARKED)
    said = ran(folder, "--all")
    assert "test_own_spark PASSED" in said
    assert "test_starts_java FAILED" in said
    assert "test_two.py::test_starts_java starts Java: mark it with pytest.mark.spark" in said


class Item:
    """A collected test."""

    def __init__(self, nodeid: str, *marks: pytest.MarkDecorator) -> None:
        self.nodeid, self._marks = nodeid, [one.mark for one in marks]

    def iter_markers(self) -> Iterable[pytest.Mark]:
        return self._marks


def test_units_come_longest_first_each_in_one_piece() -> None:
    slow, spark = pytest.mark.slow, pytest.mark.spark
    items: list[Any] = [
        Item("a.py::quick"),
        Item("b.py::slow", slow),
        Item("b.py::quick"),
        Item("c.py::spark", spark, slow),
        Item("d.py::slow", slow),
        Item("d.py::slow too", slow),
        Item("a.py::quick too"),
    ]
    assert [item.nodeid for item in longest_first(items)] == [
        "c.py::spark",
        *("d.py::slow", "d.py::slow too"),
        *("b.py::slow", "b.py::quick"),
        *("a.py::quick", "a.py::quick too"),
    ]


def test_files_whose_tests_share_a_spark_are_one_unit() -> None:
    folder = "tests/sparknet/spark"
    shared = {unit_of(f"{folder}/test_{name}.py") for name in ("workers", "features", "leaks", "rebalancing")}
    assert shared == {f"the Spark of {folder}"}
    assert unit_of(f"{folder}/test_chaos.py") == f"{folder}/test_chaos.py"
    assert unit_of("tests/sparknet/trainer/test_trainer.py") == "the Spark of tests/sparknet/trainer"
