"""Drawn command lines: refused or run as they have to be, and a judge that sees when one is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from pyspark.sql import SparkSession

from sparknet.errors import TrainingError
from tests.apps.crossing import materials
from tests.apps.crossing.draw import M, drawn
from tests.apps.crossing.front import disagreement
from tests.apps.crossing.judge import Outcome, refusals, refused
from tests.apps.crossing.line import APPS, Line, options_of
from tests.apps.crossing.play import Stage
from tests.apps.crossing.run import run
from tests.running_spark import running_spark

SLOTS = 3
BEGINS = "this is where Spark would start"

LINE = Line(
    app="CifarApp",
    given={
        "data": f"{M}/cifar10",
        "solver": f"{M}/sgd.prototxt",
        "output": "out",
        "workers": "2",
        "rounds": "4",
        "tau": "3",
        "batch_size": "5",
        "test_every": "2",
        "exchange": "star",
    },
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materials.write(tmp_path_factory.mktemp("crossing") / "materials")


@pytest.fixture(scope="module")
def spark() -> Iterator[SparkSession]:
    with running_spark(f"local[{SLOTS}]", {}) as running:
        yield running


def never(_name: str) -> NoReturn:
    raise TrainingError(BEGINS)


def test_what_must_be_refused_is_and_what_must_not_comes_to_spark(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the apps and in ``Trainer``: 120 lines, by rules that are written down apart from the code."""
    monkeypatch.setattr("apps.training.open_session", never)
    ends, wrong = Counter[str](), list[str]()
    for seed in range(120):
        line, folder = drawn(seed).lines[0], tmp_path / str(seed)
        folder.mkdir()
        found = disagreement(line, place, folder)
        ran, due = run(line, folder, place), refusals(line, None, None)
        if "weights" in due or "solver" in due:  # known once there is a net, after Spark has started
            continue
        if due:
            found += refused(line, ran, due)
        elif BEGINS not in ran.err:
            found.append(ran.err)
        ends["refused" if due else "begun"] += 1
        wrong += [f"seed {seed}: {line}: {each}" for each in found]
    assert not wrong, "\n".join(wrong)
    assert ends["refused"] > 20
    assert ends["begun"] > 20


@pytest.mark.parametrize("app", APPS)
def test_every_option_is_drawn_sooner_or_later(app: str) -> None:
    seen = {
        name for seed in range(3000) for line in drawn(seed).lines if line.app == app for name in line.given
    }
    assert set(options_of(app)) - seen - {"help"} <= {"mean"}  # there is no mean image among the materials


@pytest.mark.spark
@pytest.mark.slow
def test_drawn_lines_run_as_they_were_asked_to(place: Path, tmp_path: Path, spark: SparkSession) -> None:
    stage = Stage(spark, SLOTS, place)
    played = [stage.play(drawn(seed), tmp_path / str(seed)) for seed in range(12)]
    assert not [(each.lines, each.wrong) for each in played if each.wrong]
    assert sum(ended == "ran" for each in played for ended in each.ended) >= 6


@pytest.mark.spark
@pytest.mark.slow
def test_what_ran_is_told_from_what_was_asked(place: Path, tmp_path: Path, spark: SparkSession) -> None:
    """A run that is right is judged so; and wrong, were it asked for anything else."""
    ran = run(LINE, tmp_path, place)
    assert ran.status == 0, ran.err
    assert Outcome(LINE, ran, tmp_path, place, SLOTS).wrong(None) == []
    others = {
        **{"algorithm": "diloco", "tau": "2", "overlap": "yes", "wire": "int8", "exchange": "ring"},
        **{
            "momentum": "reset",
            "workers": "1",
            "rounds": "5",
            "batch_size": "2",
            "test_every": "1",
            "seed": "1",
        },
        **{"sampling": "epoch", "precision": "bf16", "quorum": "0.5", "time_cap": "9", "fragments": "3"},
        **{
            "profile": "1",
            "checkpoint": "saved",
            "tensorboard": "curves",
            "weights": f"{M}/start.caffemodel",
        },
    }
    for name, value in others.items():
        other = replace(LINE, given={**LINE.given, name: value})
        assert Outcome(other, ran, tmp_path, place, SLOTS).wrong(None), name
    for name, value in {"momentum": "reset", "algorithm": "diloco", "overlap": "yes"}.items():
        outcome = Outcome(replace(LINE, given={**LINE.given, name: value}), ran, tmp_path, place, SLOTS)
        assert any("weights differ" in each for each in outcome.wrong(None)), name
