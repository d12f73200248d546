"""Every command and program of docs/sources.md, run: the training in fewer rounds and with a smaller net."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest
from PIL import Image

from sparknet.db import Making, create
from sparknet.sources import open_source
from tests.pages import DOCS, ROOT, codes, typed
from tests.sparknet.sources.s3 import s3
from tests.sparknet.sources.test_imagenet_archives import put_train, put_val
from tests.sparknet.sources.test_sources import records

__all__ = ["s3"]

PAGE = DOCS / "sources.md"

SOLVER = """net_param { name: "small"
layer { name: "d" type: "Input" top: "data" top: "label"
        input_param { shape { dim: 2 dim: 3 dim: 227 dim: 227 } shape { dim: 2 } } }
layer { name: "pool" type: "Pooling" bottom: "data" top: "pool"
        pooling_param { pool: AVE global_pooling: true } }
layer { name: "ip" type: "InnerProduct" bottom: "pool" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
} base_lr: 0.001 lr_policy: "fixed" """

PREPARE = "sparknet imagenet prepare s3://my-bucket/ilsvrc2012 --output s3://my-bucket/imagenet"

# What is added to a training here.
SMALLER = {
    "CifarApp": " --rounds 1 --tau 1 --batch-size 4 --workers 1",
    "ImageNetApp": " --rounds 1 --tau 1 --batch-size 2 --workers 1 --solver small.prototxt",
}


@pytest.fixture
def scene(s3: Callable[[Path], str], tmp_path: Path) -> Iterator[Path]:
    """A folder with photos, and ImageNet's archives, small ones, in S3."""
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.integers(0, 256, (48, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.jpg")
    put_train(tmp_path / "ilsvrc2012")
    put_val(tmp_path / "ilsvrc2012")
    client = boto3.client("s3")
    client.create_bucket(Bucket="my-bucket")
    for file in (tmp_path / "ilsvrc2012").iterdir():
        client.upload_file(str(file), "my-bucket", f"ilsvrc2012/{file.name}")
    (tmp_path / "small.prototxt").write_text(SOLVER)
    return tmp_path


def run(words: list[str], folder: Path) -> str:
    environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, f"{words}\n{ran.stdout}\n{ran.stderr}"
    assert "Traceback" not in ran.stderr
    return ran.stdout


def run_command(command: str, folder: Path) -> str:
    """As it is in the page; a later option takes the place of an earlier one."""
    smaller = next((more for app, more in SMALLER.items() if app in command), "")
    program, *arguments = shlex.split(command + smaller)
    if program == "sparknet":
        return run([sys.executable, "-m", "sparknet.cli", *arguments], folder)
    return run([sys.executable, str(ROOT / arguments[0]), *arguments[1:]], folder)


def test_the_tests_that_the_page_names_are_there() -> None:
    tests = (ROOT / "tests" / "sparknet" / "db" / "test_create.py").read_text(encoding="utf-8")
    named = re.findall(r"`(test_\w+)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) == 3
    assert all(f"def {name}(" in tests for name in named)


@pytest.mark.slow
def test_the_commands_that_write_do_what_the_page_says(scene: Path) -> None:
    said = run([sys.executable, "-c", codes(PAGE, "python")[0]], scene)
    assert "40 pictures in 2 classes from the folder photos" in said
    assert "('cat', 'dog')" in said
    told = {command: run_command(command, scene) for command in typed(PAGE) if command.startswith("sparknet")}
    assert "image: uint8 (3, 32, 32)" in told["sparknet db info photos_lmdb"]
    assert "30 to train on and 9 to test on" in told[PREPARE]
    assert len(list((scene / "photos_again").rglob("*.jpg"))) == 40


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.parametrize("command", [command for command in typed(PAGE) if "apps/" in command])
def test_the_apps_train_as_the_page_says(command: str, scene: Path) -> None:
    if "ImageNetApp" in command:
        run_command(PREPARE, scene)
    create(open_source(str(scene / "photos"), size=32), str(scene / "photos_lmdb"), "lmdb", Making())
    assert "round 1/1" in run_command(command, scene)


@pytest.mark.slow
@pytest.mark.spark
def test_the_program_with_spark_writes_what_it_says(scene: Path) -> None:
    run([sys.executable, "-W", "ignore", "-c", codes(PAGE, "python")[1]], scene)
    assert len(records(open_source(str(scene / "dogs_lmdb")))) == 20
