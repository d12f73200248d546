"""The longest files are begun first, and those that share a Spark run in one process."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.schedule import LONGEST, ONE_SPARK, SPARK, LongestFirst

ROOT = Path(__file__).resolve().parent.parent


class Process:
    """One of pytest-xdist's: remembers which tests it was given."""

    shutting_down = False

    def __init__(self) -> None:
        self.given: list[int] = []

    def send_runtest_some(self, indices: list[int]) -> None:
        self.given += indices

    def shutdown(self) -> None:
        self.shutting_down = True


class Config:
    """Of a pytest with one process."""

    option = SimpleNamespace(loadscopereorder=True)

    def getvalue(self, _name: str) -> list[str]:
        return ["popen"]


def files_in_order(collected: list[str]) -> list[str]:
    """The files in the order in which a single process is given them."""
    scheduler: Any = LongestFirst(Config())
    process = Process()
    scheduler.add_node(process)
    scheduler.add_node_collection(process, collected)
    scheduler.schedule()
    done = 0
    while done < len(collected):
        scheduler.mark_test_complete(process, process.given[done])
        done += 1
    return list(dict.fromkeys(collected[index].split("::")[0] for index in process.given))


def test_the_longest_files_come_first_and_then_those_with_the_most_tests() -> None:
    few, many = "tests/test_few.py", "tests/test_many.py"
    alone = [unit for unit in LONGEST if unit != SPARK]
    collected = [
        f"{few}::test_a",
        *(f"{many}::test_{n}" for n in range(3)),
        *(f"{file}::test_it" for file in reversed(alone)),
    ]
    assert files_in_order(collected) == [*alone, many, few]


def test_the_files_that_share_a_spark_go_to_one_process_together() -> None:
    other = "tests/apps/test_runs.py"
    collected = [f"{file}::test_{n}" for n in range(2) for file in (*sorted(ONE_SPARK), other)]
    assert files_in_order(collected) == [*sorted(ONE_SPARK), other]


def test_every_file_of_the_schedule_is_there_and_every_user_of_the_shared_spark_is_known() -> None:
    named = {ROOT / unit for unit in LONGEST if unit != SPARK}
    assert [file for file in named if not file.exists()] == []
    folder = ROOT / "tests" / "sparknet" / "spark"
    users = {path for path in folder.glob("test_*.py") if "spark: SparkSession" in path.read_text()}
    assert users == {ROOT / file for file in ONE_SPARK}
