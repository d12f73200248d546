"""Every algorithm as the program a user starts: tau measured, averages overlapped and in parts, if it may."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyspark
import pytest

from sparknet.algorithms import ALGORITHMS, Algorithm, algorithm
from tests.apps.crossing import materials
from tests.apps.crossing.draw import M
from tests.apps.crossing.judge import Outcome
from tests.apps.crossing.line import Line
from tests.apps.crossing.run import run
from tests.apps.run_app import APPS, environment, pack
from tests.apps.test_runs import started
from tests.bench.standalone import executors_below

pytestmark = [pytest.mark.spark, pytest.mark.slow]

MEASURED, TOLD = (
    12,
    re.compile(r"tau \d+: a step takes .* ms and an exchange .* ms with \d workers?; rounds of"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materials.write(tmp_path_factory.mktemp("programs") / "materials")


def may(chosen: Algorithm, *what: str) -> bool:
    return not chosen.refuses.keys() & set(what)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_algorithm_runs_to_its_end_as_a_program(name: str, place: Path, tmp_path: Path) -> None:
    chosen = algorithm(name)
    measured, overlaps = may(chosen, "tau", "measured tau"), may(chosen, "overlap")
    line = Line(
        app="CifarApp",
        given={
            **{"data": f"{M}/cifar10", "output": "out", "rounds": str(MEASURED), "batch_size": "4"},
            **{"algorithm": name, "workers": "1" if name == "serial" else "2", "exchange": "star"},
            **({"tau": "auto"} if measured else {} if name == "sync" else {"tau": "3"}),
            **({"overlap": "yes", "fragments": "3"} if overlaps else {}),
        },
    )
    ran = run(line, tmp_path, place, as_program=True)
    assert ran.status == 0, ran.err
    assert Outcome(line, ran, tmp_path, place, slots=2).wrong(None) == []
    assert bool(TOLD.search(ran.out)) == measured


@pytest.mark.parametrize("exchange", ["star", "ring"])
@pytest.mark.parametrize("name", ["average", "slowmo"])
def test_a_worker_that_is_killed_while_its_average_travels_costs_its_own_part_only(
    name: str, exchange: str, place: Path, tmp_path: Path
) -> None:
    options = ("--tau", "auto", "--overlap", "--fragments", "3", "--algorithm", name, "--exchange", exchange)
    records = killed(place, tmp_path, *options)
    before = [record for record in records if record["round"] <= KILLED_AFTER]
    after = [record for record in records if record["round"] > KILLED_AFTER]
    assert {record["workers"] for record in before} == {2}
    assert sum(len(record["lost"]) for record in after) >= 1
    assert all(record["workers"] >= 1 and record["loss"] is not None for record in after)


def test_elastic_averaging_outlives_a_kill_and_tells_of_it(place: Path, tmp_path: Path) -> None:
    records = killed(place, tmp_path, "--tau", "10", "--algorithm", "eamsgd")
    assert sum(len(record["lost"]) for record in records) >= 1
    assert all(record["bytes_received"] > 0 for record in records)


KILLED_AFTER, ROUNDS = 12, 60


def killed(place: Path, folder: Path, *options: str) -> list[dict[str, Any]]:
    """The records of a run of two executors, one of which is killed when a round has just ended: the next is
    under way then, and the average of the last one with it."""
    pack(folder / "trainer.zip")
    shutil.copytree(APPS, folder / "apps", ignore=shutil.ignore_patterns("__pycache__"))
    home = Path(pyspark.__file__).parent
    command = [
        *(str(home / "bin" / "spark-submit"), "--master", "local-cluster[2,1,1024]"),
        *(
            "--py-files",
            "trainer.zip",
            "apps/CifarApp.py",
            "--data",
            str(place / "cifar10"),
            "--output",
            "out",
        ),
        *("--workers", "2", "--batch-size", "20", "--rounds", str(ROUNDS), "--test-every", "0", *options),
    ]
    variables = environment(SPARK_HOME=str(home), PYSPARK_PYTHON=sys.executable)
    with started(command, folder, variables, seconds=240) as app:
        reached(app, lambda line: line.startswith(f"round {KILLED_AFTER}/"))
        os.kill(executors_below(app.pid)[0], signal.SIGKILL)
        out, errors = app.communicate()
    assert app.returncode == 0, errors
    assert f"round {ROUNDS}/{ROUNDS}  loss" in out
    assert (folder / "out" / "model.caffemodel").exists()
    records = [json.loads(line) for line in (folder / "out" / "metrics.jsonl").read_text().splitlines()]
    assert [record["round"] for record in records] == list(range(1, ROUNDS + 1))
    return records


def reached(app: subprocess.Popen[str], wanted: Callable[[str], bool]) -> None:
    """Read lines up to one that is ``wanted``."""
    assert app.stdout
    assert any(wanted(line) for line in app.stdout), "the app ended before"
