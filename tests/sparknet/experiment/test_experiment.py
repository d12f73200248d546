"""``sparknet experiment``, as a user runs it, with a net and pictures that train in no time."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sparknet import cli
from sparknet.data import Transform
from sparknet.data.locate import locate
from sparknet.data.records import Column
from sparknet.errors import DataError, UsageError
from sparknet.experiment.results import Results, speed_up
from sparknet.experiment.study import Study, Trial, read, value_of
from sparknet.experiment.trial import Outcome, run
from sparknet.local import LocalWorkers
from sparknet.trainer.nets import caffe_model
from sparknet.training import Settings, train
from sparknet.worker import Recipe
from tests.test_architecture import ROOT

EXAMPLES = sorted((ROOT / "docs" / "experiments").glob("*.toml"))

SOLVER = """
net_param { name: "tiny"
layer { name: "d" type: "Input" top: "data" top: "label"
        input_param { shape { dim: 10 dim: 3 dim: 32 dim: 32 } shape { dim: 10 } } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool"
        pooling_param { pool: AVE kernel_size: 8 stride: 8 } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip"
        inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
        include { phase: TEST } }
} base_lr: 0.0001 lr_policy: "fixed" momentum: 0.9 """

FILE = """
title = "Tiny"
solver = "solver.prototxt"
data = "synthetic"
batch_size = 10
steps = 12
test_every = 2
records = 200
test_records = 100
goal = 0.08

[grid]
workers = [1, 2]
tau = [1, 3]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    (tmp_path / "tiny.toml").write_text(FILE)
    return tmp_path / "tiny.toml"


def command(file: Path, *options: str, output: str = "out") -> Result:
    folder = str(file.parent / output)
    return CliRunner().invoke(cli.cli, ["experiment", str(file), "--output", folder, *options])


def rows_of(file: Path) -> list[dict[str, str]]:
    with (file.parent / "out" / "results.csv").open() as table:
        return list(csv.DictReader(table))


def test_a_grid_leaves_runs_a_table_curves_and_a_page(file: Path) -> None:
    told = command(file)
    assert told.exit_code == 0, told.output
    assert "4/4  average, K 2, tau 3, seed 0" in told.output
    rows = rows_of(file)
    assert [(row["workers"], row["tau"]) for row in rows] == [("1", "1"), ("1", "3"), ("2", "1"), ("2", "3")]
    page = (file.parent / "out" / "report.html").read_text()
    assert "Speed-up to 8 %" in page
    assert "<th>tau 1</th><th>tau 3</th>" in page
    assert (file.parent / "out" / "curves.png").stat().st_size > 1000


def test_what_has_been_run_is_not_run_again(file: Path) -> None:
    command(file, "--set", "grid.tau=[1]")
    runs = file.parent / "out" / "runs.jsonl"
    before = runs.read_text()
    told = command(file)
    assert "2 of 4 runs were there from before" in told.output
    assert runs.read_text().startswith(before)
    assert len(runs.read_text().splitlines()) == 5
    assert command(file).output.splitlines()[0] == "4 of 4 runs were there from before"


def test_a_line_that_was_cut_short_is_run_again(file: Path) -> None:
    command(file)
    rows, runs = rows_of(file), file.parent / "out" / "runs.jsonl"
    runs.write_text(runs.read_text()[:-40])
    told = command(file)
    assert "3 of 4 runs were there from before" in told.output
    for row, again in zip(rows, rows_of(file), strict=True):
        assert {**row, "seconds": ""} == {**again, "seconds": ""}


def test_runs_of_other_settings_are_not_mixed_with_these(file: Path) -> None:
    command(file, "--set", "grid.tau=[1]")
    told = command(file, "--set", "batch_size=5")
    assert isinstance(told.exception, UsageError)
    assert "batch_size 10, not 5: give another --output" in str(told.exception)


def test_a_run_in_a_process_of_its_own_is_the_same_run(file: Path) -> None:
    command(file)
    rows = rows_of(file)
    told = command(file, "--jobs", "2", output="two")
    assert told.exit_code == 0, told.output
    with (file.parent / "two" / "results.csv").open() as table:
        others = list(csv.DictReader(table))
    assert [{**row, "seconds": ""} for row in rows] == [{**row, "seconds": ""} for row in others]


def test_what_does_not_go_together_stands_on_the_page_with_its_reason(file: Path) -> None:
    told = command(file, "--set", 'grid.algorithm=["easgd"]', "--set", "grid.overlap=[false, true]")
    assert told.exit_code == 0, told.output
    page = (file.parent / "out" / "report.html").read_text()
    assert "Runs that were not made, or failed" in page
    assert re.search(r"elastic averaging nobody waits.*4 runs", page)


def test_a_run_that_diverges_is_an_outcome(file: Path) -> None:
    study = read(file, {"grid.base_lr": [1e30]})
    assert "training diverged" in run(study, study.trials[-1]).failure


def test_the_accuracy_is_that_of_the_engine(file: Path) -> None:
    """One worker at tau 3, against the loop itself."""
    study = read(file, {"stop_at_goal": False})
    outcome = run(study, Trial(workers=1, tau=3))
    drawn = locate("cifar10", "synthetic").dataset
    dataset = replace(drawn, train=drawn.train[:200], test=drawn.test[:100])
    schema = {name: Column.of(array) for name, array in dataset.train.columns.items()}
    model = caffe_model(file.parent / "solver.prototxt", schema, batch_size=10, test_batch_size=10)
    recipe = Recipe(
        replica=model, batch_size=10, transform=Transform(mean=dataset.train.mean_image()), sampling="epoch"
    )
    with LocalWorkers(recipe, [dataset.train], dataset.test) as workers:
        done = list(train(workers, Settings(rounds=4, tau=3, test_every=1)))
    assert outcome.curve == tuple((3 * each.number, each.accuracy) for each in done)
    assert outcome.steps == 12
    assert outcome.images == 120


def test_a_speed_up_is_by_the_steps_of_a_lone_worker_with_the_same_seed() -> None:
    def reached(steps: float | None, **trial: int) -> Outcome:
        return Outcome(trial=Trial(**trial), goal_steps=steps)  # type: ignore[arg-type]

    among = [reached(300.0), reached(100.0, tau=5), reached(50.0, seed=1), reached(None, tau=7)]
    assert speed_up(reached(100.0, workers=4), among) == 2
    assert speed_up(reached(100.0, workers=4, seed=1), among) == 0.5
    assert speed_up(reached(None, workers=4), among) is None
    assert speed_up(reached(100.0, workers=4, seed=9), among) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": None}, "steps .* or epochs"),
        ({"epochs": 1.0}, "steps .* or epochs"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"goal": 60}, "goal is 60"),
        ({"dataset": "imagenet"}, "dataset is 'imagenet'"),
        ({"colour": 1}, "colour is not one of"),
        ({"grid.color": [1]}, "name of \\[grid\\] is 'color'"),
        ({"grid.tau": 10}, "a list of values"),
        ({"grid.tau": ["auto"]}, "no network here to measure"),
        ({"grid.workers": [0]}, "workers is 0"),
        ({"grid.wire": ["int4"]}, "wire is 'int4'"),
        ({"grid.algorithm": ["best"]}, "algorithm is 'best'"),
        ({"grid.overlap": [1]}, "true or false"),
        ({"grid.momentum": ["all"]}, "momentum is 'all'"),
    ],
)
def test_what_the_file_must_not_say_is_refused(file: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read(file, changes)


def test_a_file_that_is_no_toml_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("title = ")
    with pytest.raises(DataError, match=r"bad\.toml cannot be read as an experiment"):
        read(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_text("steps = 4")
    with pytest.raises(UsageError, match="title is missing"):
        read(tmp_path / "bad.toml")


def test_values_on_the_command_line_are_toml_or_text() -> None:
    assert value_of("[1, 2]") == [1, 2]
    assert value_of("synthetic") == "synthetic"
    assert value_of("0.5") == 0.5


def test_a_folder_that_cannot_be_written_is_a_usage_error(file: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(UsageError, match="give another --output"):
        Results(read(file), tmp_path / "taken")


def test_seeds_come_last() -> None:
    study = Study(title="t", solver="s", steps=1, grid={"seed": [0, 1], "tau": [1, 2]})
    assert [(trial.seed, trial.tau) for trial in study.trials] == [(0, 1), (0, 2), (1, 1), (1, 2)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: str(path.stem))
def test_the_examples_run(example: Path, tmp_path: Path) -> None:
    """With a smaller net, drawn pictures, few of them, and a part of the grid."""
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    smaller = {
        "solver": str(tmp_path / "solver.prototxt"),
        "data": "synthetic",
        "batch_size": 5,
        "steps": 4,
        "epochs": None,
        "test_every": 2,
        "records": 100,
        "test_records": 20,
        "grid.seed": [0],
    }
    whole = read(example)
    assert len(whole.trials) > 20
    names = {name for grid in whole.grids for name in grid if len(whole.grids) == 1}
    grid = {f"grid.{name}": whole.grids[0][name][:2] for name in names if len(whole.grids[0][name]) > 2}
    study = read(example, {**smaller, **grid, "grid.seed": [0]})
    results = Results(study, tmp_path / "out")
    results.complete(lambda outcome: None)
    assert len(results.outcomes) == len(study.trials)
    assert any(outcome.accuracy is not None for outcome in results.outcomes)
    assert json.loads(results.file.read_text().splitlines()[0])["settings"]["steps"] == 4


def test_several_grids_are_the_runs_of_each(tmp_path: Path) -> None:
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    head, _ = FILE.split("[grid]")
    tables = """
[[grid]]
algorithm = ["serial"]
seed = [0, 1]

[[grid]]
workers = [2]
tau = [1, 3]
seed = [0, 1]
"""
    (tmp_path / "two.toml").write_text(head + tables)
    due = [("serial", 1, 10), ("average", 2, 1), ("average", 2, 3)]
    trials = read(tmp_path / "two.toml").trials
    found = [(trial.algorithm, trial.workers, trial.tau, trial.seed) for trial in trials]
    assert found == [(*each, seed) for seed in (0, 1) for each in due]
    changed = read(tmp_path / "two.toml", {"grid.tau": [5], "grid.seed": [7]}).trials
    assert [(trial.tau, trial.seed) for trial in changed] == [(10, 7), (5, 7)]


def test_tests_by_epochs_come_as_often_with_many_workers(tmp_path: Path) -> None:
    (tmp_path / "solver.prototxt").write_text(SOLVER)
    (tmp_path / "tests.toml").write_text(FILE)
    by_epochs = {"steps": None, "epochs": 2, "test_epochs": 0.5, "goal": None, "grid.tau": [1]}
    study = read(tmp_path / "tests.toml", by_epochs)
    outcomes = [run(study, trial) for trial in study.trials]
    # 200 records, batches of 10: an epoch is 20 steps of one worker, 10 of each of two
    assert [[steps for steps, _ in outcome.curve] for outcome in outcomes] == [
        [10, 20, 30, 40],
        [5, 10, 15, 20],
    ]
