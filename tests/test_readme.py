"""Every command of the README, run: on the embedded cloud where it says EC2, and smaller where it is long."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from sparknet import caffe
from tests import pages
from tests.pages import ROOT, codes, home, typed

__all__ = ["home"]

README = ROOT / "README.md"

# What each command is run as here: the embedded cloud for EC2, one worker and few rounds for many, drawn data
# for CIFAR-10.
LAPTOP = {"./run demo": "./run demo --slaves 1 --rounds 2 --data synthetic"}
EC2 = {
    "sparknet-ec2 plan -s 5 --cloud aws": "sparknet-ec2 plan -s 1 --cloud local",
    "sparknet-ec2 launch -s 5 --cloud aws": "sparknet-ec2 launch -s 1 --cloud local",
    "sparknet-ec2 status --cloud aws": "sparknet-ec2 status --cloud local",
    "sparknet-ec2 submit CifarApp --cloud aws -- --tau 10 --rounds 250": (
        "sparknet-ec2 submit CifarApp --cloud local -- --tau 10 --rounds 2 --data synthetic"
    ),
    "sparknet-ec2 destroy --yes --cloud aws": "sparknet-ec2 destroy --yes --cloud local",
}
PLANNING = {
    "sparknet plan --megabytes 244 --step-time 180ms --batch-size 256 --dollars-per-hour 0.4": (
        "sparknet plan --megabytes 244 --step-time 180ms --dollars-per-hour 0.4 --workers 2,4"
    ),
    "sparknet experiment docs/experiments/k_and_tau.toml": "sparknet experiment --help",
}
DEVELOPER = {
    "./run test": "./run test --args '--collect-only -q tests/test_run.py'",
    "./run lint": "./run lint",
    "./run types": "./run types --args sparknet/errors.py",
    "./run bench round_overhead": "./run bench round_overhead --args --help",
    "./run bench faults": "./run bench faults --args --help",
    "./run docs": "./run docs",
}


def run(command: str, env: dict[str, str], folder: Path = ROOT) -> str:
    return pages.run(shlex.split(command), folder, env)


def test_every_command_of_the_readme_is_run_here() -> None:
    assert typed(README) == [*LAPTOP, *EC2, *PLANNING, *DEVELOPER]


@pytest.mark.slow
@pytest.mark.spark
def test_the_demo_trains_and_leaves_nothing(home: dict[str, str]) -> None:
    said = run(LAPTOP["./run demo"], home)
    assert "round 2/2  loss " in said
    assert "(synthetic data)" in said
    assert "0 resources left" in said
    left = {path.name for path in (ROOT / "output" / "demo").iterdir()}
    assert left == {
        "model.caffemodel",
        "metrics.jsonl",
        "report.html",
        "curve.png",
        "tensorboard",
        "spark-events",
        "job.log",
    }


@pytest.mark.slow
@pytest.mark.spark
def test_the_verbs_for_ec2_work_one_after_the_other(home: dict[str, str], tmp_path: Path) -> None:
    said = [run(command, home, tmp_path) for command in EC2.values()]
    assert "Spark: ALIVE, 1 worker" in said[2]
    assert "round 2/2  loss " in said[3]
    assert "0 resources left" in said[4]


@pytest.mark.parametrize("command", PLANNING.values(), ids=list(PLANNING))
def test_what_is_planned_is_said(command: str) -> None:
    run(command, {**os.environ, "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"})


@pytest.mark.slow
@pytest.mark.parametrize("command", DEVELOPER.values(), ids=list(DEVELOPER))
def test_the_tasks_for_developers_pass(command: str) -> None:
    run(command, dict(os.environ))


HOUSES = """
import numpy as np, pandas as pd
x = np.random.default_rng(0).random((400, 3))
made = pd.DataFrame(x, columns=["area", "rooms", "age"])
made["price"] = 3 * x[:, 0] + x[:, 1] - x[:, 2]
made.to_parquet("houses.parquet")
"""


@pytest.mark.slow
@pytest.mark.spark
def test_the_examples_of_dataframes_run(tmp_path: Path) -> None:
    training, stages, _ = codes(README, "python")
    (tmp_path / "program.py").write_text(f"{HOUSES}\n{training}\n{stages}")
    env = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": str(ROOT)}
    said = run(f"{ROOT / '.venv' / 'bin' / 'python'} -W ignore program.py", env, tmp_path)
    assert "prediction" in said
    assert (tmp_path / "model" / "metadata").is_dir()


def test_the_example_of_pycaffe_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = "apps/models/lenet_train_test.prototxt"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "apps").symlink_to(ROOT / "apps")
    caffe.Net(model, caffe.TEST).save("lenet.caffemodel")
    *_, example = codes(README, "python")
    names: dict[str, object] = {}
    exec(example, names)
    assert isinstance(names["net"], caffe.Net)
