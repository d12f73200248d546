"""The apps train on pictures that lie anywhere, in files of any kind."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.apps.run_app import run_app
from tests.apps.test_runs import COLOUR_NET
from tests.sparknet.data.photographs import COLOURS
from tests.sparknet.sources.s3 import s3
from tests.sparknet.sources.writing import add, drawn, put_folder, put_lmdb

__all__ = ["s3"]

pytestmark = [pytest.mark.slow, pytest.mark.spark]

ROUNDS = ("--tau", "3", "--batch-size", "6", "--workers", "2", "--rounds", "3", "--test-every", "3")


def put_colours(folder: Path, each: int = 20) -> Path:
    """A folder of each colour, with pictures of nothing else."""
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(each):
            Image.new("RGB", (40, 50), colour).save(folder / name / f"{number}.png")
    return folder


def put_solver(folder: Path) -> tuple[str, str]:
    (folder / "solver.prototxt").write_text(f'net_param {{ {COLOUR_NET} }} base_lr: 0.001 lr_policy: "fixed"')
    return "--solver", "solver.prototxt"


def test_pictures_by_class_are_trained_on(tmp_path: Path) -> None:
    put_colours(tmp_path / "photos")
    done = run_app("ImageNetApp", "--images", "photos", *put_solver(tmp_path), *ROUNDS, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    origin = "data: 60 pictures in 3 classes from the folder photos, 54 to train on and 6 to test on"
    assert origin in done.stdout
    # each worker has pictures of every class, though they lie class by class
    assert "accuracy 100.0 % after 3 rounds" in done.stdout


def test_a_database_is_trained_on_by_cifar10_quick(tmp_path: Path) -> None:
    put_lmdb(tmp_path / "db", drawn(300, side=40), encoded=False)
    done = run_app("CifarApp", "--dataset", "db", *ROUNDS, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "data: 300 pictures from the LMDB db, 270 to train on and 30 to test on" in done.stdout
    assert "after 3 rounds" in done.stdout


def test_more_classes_than_the_net_has_outputs_are_refused_before_a_job_starts(tmp_path: Path) -> None:
    put_folder(tmp_path / "photos", drawn(40))
    done = run_app("ImageNetApp", "--images", "photos", *put_solver(tmp_path), *ROUNDS, folder=tmp_path)
    assert done.returncode == 3
    assert "Error: the data have 10 classes, and the net has 3 outputs: class0, class1" in done.stderr
    assert "Traceback" not in done.stderr


def test_imagenet_is_prepared_in_s3_and_streamed_from_there(
    s3: Callable[[Path], str], tmp_path: Path
) -> None:
    synsets = ("n01440764", "n01443537", "n02066245")
    (tmp_path / "ilsvrc").mkdir()
    with tarfile.open(tmp_path / "ilsvrc" / "ILSVRC2012_img_train.tar", "w") as archive:
        for synset, colour in zip(synsets, COLOURS.values(), strict=True):
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as of_class:
                for number in range(20):
                    picture = io.BytesIO()
                    Image.new("RGB", (90, 70), colour).save(picture, "JPEG")
                    add(of_class, f"{synset}_{number}.JPEG", picture.getvalue())
            add(archive, f"{synset}.tar", inner.getvalue())
    with tarfile.open(tmp_path / "ilsvrc" / "ILSVRC2012_img_val.tar", "w") as archive:
        for number, colour in enumerate((*COLOURS.values(),) * 2, start=1):
            picture = io.BytesIO()
            Image.new("RGB", (70, 90), colour).save(picture, "JPEG")
            add(archive, f"ILSVRC2012_val_{number:08d}.JPEG", picture.getvalue())
    lines = [f"ILSVRC2012_val_{number:08d}.JPEG {(number - 1) % 3}\n" for number in range(1, 7)]
    (tmp_path / "ilsvrc" / "val.txt").write_text("".join(lines))
    url = s3(tmp_path / "ilsvrc")

    command = ["-m", "sparknet.cli", "imagenet", "prepare", url, "--output", "s3://pictures/imagenet"]
    ran = subprocess.run(
        [sys.executable, *command, "--shard-records", "9"], capture_output=True, text=True, timeout=200
    )
    assert ran.returncode == 0, ran.stderr
    assert "60 to train on and 6 to test on, 3 classes, in s3://pictures/imagenet" in ran.stdout

    variables = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    data = ("--data", "s3://pictures/imagenet")
    done = run_app("ImageNetApp", *data, *put_solver(tmp_path), *ROUNDS, folder=tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    origin = (
        "60 pictures in 3 classes from 7 tar shards of s3://pictures/imagenet/train, 60 to train on and 6"
    )
    assert origin in done.stdout
    assert "accuracy 100.0 % after 3 rounds" in done.stdout
