"""ImageNet's archives become shards and a mean image, in processes or on a cluster, and go on after a
kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from sparknet.caffe.io import blobproto_to_array
from sparknet.caffe.schema.caffe_pb2 import BlobProto
from sparknet.cli import cli
from sparknet.data.decoding import Decoding, decode
from sparknet.db.imagenet import Outcome, Prepared, Unit, Wanted, in_processes, make, prepare
from sparknet.errors import DataError, SparkNetError
from sparknet.sources import open_source
from tests.sparknet.sources.test_imagenet_archives import SYNSETS, put_train, put_val
from tests.sparknet.sources.test_sources import records


def wanted_of(folder: Path, output: Path | str, **options: object) -> Wanted:
    return Wanted(
        archives={
            "train": (str(folder / "ILSVRC2012_img_train.tar"),),
            "val": (str(folder / "ILSVRC2012_img_val.tar"),),
        },
        labels=str(folder / "val.txt"),
        output=str(output),
        **{"size": (32, 32), "shard_records": 7, **options},  # type: ignore[arg-type]
    )


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    put_train(tmp_path / "tars")
    put_val(tmp_path / "tars")
    return tmp_path / "tars"


def alone(function: Callable[[Unit], Outcome], units: Sequence[Unit]) -> Iterator[Outcome]:
    return map(function, units)


def made(archives: Path, output: Path | str, **options: object) -> Prepared:
    return prepare(wanted_of(archives, output, **options), alone)


def test_shards_hold_all_pictures_with_their_classes_in_an_order_of_the_seed(
    archives: Path, tmp_path: Path
) -> None:
    files = put_train(tmp_path / "same")
    found = made(archives, tmp_path / "a")
    assert (found.records, found.classes, found.left_out) == ({"train": 30, "val": 9}, 3, 0)
    source = open_source(str(tmp_path / "a"))
    assert source.name == f"30 pictures in 3 classes from 5 tar shards of {tmp_path}/a/train"
    assert source.classes == SYNSETS
    one = records(source, 2)
    assert sorted(one.labels.tolist()) == [k for k in range(3) for _ in range(10)]
    assert one.labels.tolist() != sorted(one.labels.tolist())
    # each is, up to the loss of a second JPEG, a picture of the archive that belongs to its class
    originals = [
        [decode(content, "x", Decoding(size=(32, 32))) for content in files[synset]] for synset in SYNSETS
    ]
    for picture, label in zip(one.images, one.labels, strict=True):
        away = [np.abs(picture.astype(int) - other).mean() for other in originals[label]]
        assert min(away) < 12 < 2 * sorted(away)[1]
    assert len(records(open_source(str(tmp_path / "a"), split="test"))) == 9
    made(archives, tmp_path / "b")
    assert np.array_equal(records(open_source(str(tmp_path / "b"))).images, one.images)
    made(archives, tmp_path / "c", seed=1)
    assert not np.array_equal(records(open_source(str(tmp_path / "c"))).labels, one.labels)


def test_the_mean_image_is_that_of_the_training_set_blue_first(archives: Path, tmp_path: Path) -> None:
    made(archives, tmp_path / "out")
    blob = BlobProto.FromString((tmp_path / "out" / "mean.binaryproto").read_bytes())
    mean = blobproto_to_array(blob)
    assert mean.shape == (1, 3, 32, 32)
    source = open_source(str(archives), size=32, order="bgr")
    assert np.allclose(mean[0], records(source).images.astype(float).mean(0), atol=1e-3)
    lines = (tmp_path / "out" / "labels.txt").read_text().splitlines()
    assert lines == [f"{synset} {number}" for number, synset in enumerate(SYNSETS)]


def test_bad_pictures_are_counted_and_named(archives: Path, tmp_path: Path) -> None:
    content = (archives / "ILSVRC2012_img_val.tar").read_bytes()
    with tarfile.open(archives / "ILSVRC2012_img_val.tar") as archive:
        place = archive.getmembers()[4].offset_data
    (archives / "ILSVRC2012_img_val.tar").write_bytes(content[:place] + b"junk" + content[place + 4 :])
    found = made(archives, tmp_path / "out")
    assert (found.records["val"], found.left_out) == (8, 1)
    assert (
        "ILSVRC2012_img_val.tar ILSVRC2012_val_00000005.JPEG: not a picture that can be read"
        in found.named[0]
    )
    assert len(records(open_source(str(tmp_path / "out"), split="test"))) == 8


def test_it_reads_from_s3_and_writes_there(s3: Callable[[Path], str], archives: Path, tmp_path: Path) -> None:
    url = s3(archives)
    wanted = Wanted(
        archives={"train": (f"{url}/ILSVRC2012_img_train.tar",), "val": (f"{url}/ILSVRC2012_img_val.tar",)},
        labels=f"{url}/val.txt",
        output="s3://pictures/out",
        size=(32, 32),
        shard_records=7,
    )
    assert prepare(wanted, alone).records == {"train": 30, "val": 9}
    made(archives, tmp_path / "disk")
    for split in ("train", "test"):
        there, here = (
            records(open_source(str(at), split=split), 2)  # type: ignore[arg-type]
            for at in ("s3://pictures/out", tmp_path / "disk")
        )
        assert np.array_equal(there.images, here.images)
        assert np.array_equal(there.labels, here.labels)
    again = prepare(wanted, alone)
    assert (again.records, again.resumed) == ({"train": 30, "val": 9}, 7)


KILLED = """
import sys, time
from pathlib import Path
from sparknet.db.imagenet import make, prepare
from tests.sparknet.db.test_imagenet_prepare import wanted_of
def slowly(function, units):
    for unit in units:
        yield function(unit)
        print("done", flush=True)
        time.sleep(0.05)
prepare(wanted_of(Path(sys.argv[1]), sys.argv[2]), slowly)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_where_it_was(archives: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(archives), str(tmp_path / "out")]
    for lines in (1, 2):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(lines):
            assert process.stdout.readline()
        time.sleep(0.03)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)
    done: list[Unit] = []

    def counted(function: Callable[[Unit], Outcome], units: Sequence[Unit]) -> Iterator[Outcome]:
        done.extend(units)
        return map(function, units)

    found = prepare(wanted_of(archives, tmp_path / "out"), counted)
    assert found.resumed >= 3
    assert len(done) == 7 - found.resumed
    made(archives, tmp_path / "whole")
    for name in ("mean.binaryproto", "train/shard-000002.tar", "val/shard-000001.tar", "train/sparknet.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "out" / "_progress").exists()


def test_processes_make_what_one_makes(archives: Path, tmp_path: Path) -> None:
    prepare(wanted_of(archives, tmp_path / "a"), in_processes(2))
    made(archives, tmp_path / "b")
    assert (tmp_path / "a" / "mean.binaryproto").read_bytes() == (
        tmp_path / "b" / "mean.binaryproto"
    ).read_bytes()


@pytest.mark.slow
@pytest.mark.spark
def test_a_cluster_makes_what_one_process_makes(archives: Path, tmp_path: Path) -> None:
    words = ["-m", "sparknet.cli", "imagenet", "prepare", str(archives), "--output", str(tmp_path / "a")]
    words += ["--size", "32", "--shard-records", "7", "--master", "local[2]"]
    ran = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr
    assert f"30 to train on and 9 to test on, 3 classes, in {tmp_path}/a" in ran.stdout
    made(archives, tmp_path / "b")
    for name in ("mean.binaryproto", "train/shard-000002.tar"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_output_of_other_settings_is_left_alone(archives: Path, tmp_path: Path) -> None:
    made(archives, tmp_path / "out")
    with pytest.raises(DataError, match="out was begun with another seed and shard_records: choose another"):
        made(archives, tmp_path / "out", seed=3, shard_records=8)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(DataError, match="mine is there already and was not made by this"):
        made(archives, tmp_path / "mine")


def test_a_shard_has_what_is_left_of_its_pictures(archives: Path, tmp_path: Path) -> None:
    wanted = wanted_of(archives, tmp_path / "out")
    with pytest.raises(DataError, match="is cut short: it ends within"):
        make(
            Unit(
                half="train",
                number=0,
                first=0,
                digits=8,
                members=(_member(str(archives / "ILSVRC2012_img_val.tar"), 10**9),),
                output=wanted.output,
                size=(8, 8),
                quality=95,
            )
        )
    assert not (tmp_path / "out").exists()


def _member(url: str, offset: int) -> object:
    from sparknet.sources.imagenet import Member

    return Member(url, "x.JPEG", offset, 10, 0)


def test_the_command_says_what_is_missing(archives: Path, tmp_path: Path) -> None:
    (archives / "val.txt").unlink()
    ran = CliRunner().invoke(cli, ["imagenet", "prepare", str(archives), "--output", str(tmp_path / "o")])
    assert isinstance(ran.exception, SparkNetError)
    said = str(ran.exception)
    assert "ILSVRC2012_img_val.tar needs the labels of its pictures: --labels, val.txt or " in said
    (tmp_path / "empty").mkdir()
    ran = CliRunner().invoke(cli, ["imagenet", "prepare", str(tmp_path / "empty"), "--output", "x"])
    assert "there is no training archive in it" in str(ran.exception)
