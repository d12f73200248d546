"""Databases of every format hold what their source has, go on after a kill, and are read by any reader."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import lmdb
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from sparknet import caffe
from sparknet.caffe.schema.caffe_pb2 import Datum
from sparknet.cli import cli
from sparknet.data.dataset import Examples
from sparknet.db import FORMATS, Making, create
from sparknet.db.create import order_of
from sparknet.db.key_value import LmdbTarget
from sparknet.db.records import Record
from sparknet.db.target import digits_of, key_of
from sparknet.errors import DataError, SparkNetError, UsageError
from sparknet.sources import open_source
from tests.sparknet.sources.test_sources import records, same
from tests.sparknet.sources.writing import CLASSES, WRITERS, drawn, put_folder, put_tars

COUNT = 230


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return put_folder(tmp_path / "photos", drawn(COUNT))


def made(source: Path | str, target: Path | str, format_: str, **options: Any) -> Any:
    making = {name: options.pop(name) for name in list(options) if name in Making.__annotations__}
    return create(open_source(str(source)), str(target), format_, Making(**making), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("encoding", ["raw", "png", "keep"])
def test_every_format_gives_back_what_was_written(
    format_: str, encoding: str, photos: Path, tmp_path: Path
) -> None:
    if format_ == "hdf5" and encoding == "png":
        pytest.skip("HDF5 holds pixels")
    created = made(photos, tmp_path / "db", format_, encoding=encoding, order="rgb", shard_records=100)
    assert (created.records, created.left_out, created.resumed_at) == (COUNT, 0, 0)
    source = open_source(str(tmp_path / "db"))
    assert same(records(source, 3), drawn(COUNT))
    if format_ != "parquet":
        assert source.classes == CLASSES


@pytest.mark.parametrize("format_", ["lmdb", "leveldb", "hdf5", "tar"])
def test_raw_pixels_are_blue_first_as_caffe_has_them_and_come_back_as_asked(
    format_: str, photos: Path, tmp_path: Path
) -> None:
    made(photos, tmp_path / "db", format_)
    assert same(records(open_source(str(tmp_path / "db"))), drawn(COUNT))
    blue_first = records(open_source(str(tmp_path / "db"), order="bgr"))
    assert np.array_equal(blue_first.images[:, ::-1], drawn(COUNT).images)


@pytest.mark.parametrize("kind", list(WRITERS))
def test_any_source_becomes_a_database(kind: str, tmp_path: Path) -> None:
    at = WRITERS[kind](tmp_path / "source", drawn(1000 if "Parquet" in kind else 60))
    made(at, tmp_path / "db", "lmdb", encoding="png", order="rgb")
    assert same(records(open_source(str(tmp_path / "db"))), drawn(1000 if "Parquet" in kind else 60))


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("kind", ["folder by class", "tar, PNG", "LMDB, raw", "CIFAR, binary", "HDF5"])
def test_records_are_shuffled_by_the_seed_alone(kind: str, format_: str, tmp_path: Path) -> None:
    if format_ == "folder":
        pytest.skip("a folder by class is in the order of its classes")
    at = WRITERS[kind](tmp_path / "source", drawn(60))
    made(at, tmp_path / "db", format_, seed=5, order="rgb", encoding="raw")
    assert same(records(open_source(str(tmp_path / "db"))), drawn(60)[order_of(60, 5)])


def test_pictures_are_resized_and_made_grey(photos: Path, tmp_path: Path) -> None:
    made(photos, tmp_path / "db", "lmdb", size=(20, 24), channels=1)
    wanted = records(open_source(str(photos), size=(20, 24), channels=1))
    assert wanted.images.shape == (COUNT, 1, 20, 24)
    assert same(records(open_source(str(tmp_path / "db"))), wanted)


@pytest.mark.parametrize("backend", ["lmdb", "leveldb"])
@pytest.mark.parametrize("encoding", ["raw", "png"])
def test_caffes_data_layer_reads_what_was_written(
    backend: str, encoding: str, photos: Path, tmp_path: Path
) -> None:
    made(photos, tmp_path / "db", backend, encoding=encoding)
    (tmp_path / "net.prototxt").write_text(
        f'layer {{ name: "d" type: "Data" top: "data" top: "label" data_param {{ source: "{tmp_path}/db" '
        f"batch_size: 50 backend: {backend.upper()} }} }}"
    )
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    net.forward()
    assert np.array_equal(net.blobs["data"].data, drawn(COUNT).images[:50, ::-1].astype(np.float32))
    assert np.array_equal(net.blobs["label"].data, drawn(COUNT).labels[:50].astype(np.float32))


def test_caffes_hdf5_layer_reads_what_was_written(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(photos, tmp_path / "db", "hdf5", shard_records=100)
    monkeypatch.chdir(tmp_path / "db")  # Caffe takes the paths of the list from where it runs
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "d" type: "HDF5Data" top: "data" top: "label" hdf5_data_param { source: "files.txt" '
        "batch_size: 150 } }"
    )
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    net.forward()
    assert np.array_equal(net.blobs["data"].data, drawn(COUNT).images[:150, ::-1].astype(np.float32))
    with h5py.File(tmp_path / "db" / "part-000002.h5") as file:
        assert file["data"].dtype == np.uint8
        assert file["label"].dtype == np.float32


def test_liblmdb_finds_the_keys_and_records_of_convert_imageset(photos: Path, tmp_path: Path) -> None:
    made(photos, tmp_path / "db", "lmdb", encoding="png")
    with lmdb.open(str(tmp_path / "db"), readonly=True) as environment, environment.begin() as transaction:
        pairs = list(transaction.cursor())
    assert pairs[0][0] == b"00000000_class0/00000.png"
    assert pairs[-1][0] == f"{COUNT - 1:08d}_class9/{COUNT - 1:05d}.png".encode()
    datum = Datum.FromString(pairs[7][1])
    assert (datum.encoded, datum.label) == (True, 0)
    with Image.open(io.BytesIO(datum.data)) as image:
        assert np.array_equal(np.asarray(image).transpose(2, 0, 1), drawn(COUNT).images[7])


@pytest.mark.parametrize("total", [100_000_000, 100_000_001, 12_000_000_000])
def test_keys_past_eight_digits_stay_in_order(total: int) -> None:
    digits = digits_of(total)
    numbers = (0, 9, 99_999_999, total - 1)
    keys = [key_of(Record(number, "x", b"", 0), digits) for number in numbers]
    assert keys == sorted(keys)
    assert len({len(key) for key in keys}) == 1


def test_no_record_is_lost_whose_key_is_out_of_order(tmp_path: Path) -> None:
    target = LmdbTarget(tmp_path / "db", digits=1)  # keys as of a run that did not know how many there are
    target.begin()
    target.put(0, [Record(number, "x", b"a file", number) for number in range(20)])
    assert target.count() == 20
    target.close()


def test_a_map_that_is_full_grows(photos: Path, tmp_path: Path) -> None:
    target = LmdbTarget(tmp_path / "db", digits=8, map_bytes=1 << 16)
    target.begin()
    noise = np.random.default_rng(0).bytes(3000)
    for first in range(0, 3000, 1000):
        target.put(first, [Record(first + k, "x", noise, 1) for k in range(1000)])
    assert target.count() == 3000
    target.close()


@pytest.mark.parametrize("format_", FORMATS)
def test_pictures_that_cannot_be_decoded_are_counted_and_named(
    format_: str, photos: Path, tmp_path: Path
) -> None:
    bad = sorted(photos.rglob("*.png"))[3:20]
    for file in bad:
        file.write_bytes(file.read_bytes()[:60])
    encoding = "raw" if format_ == "hdf5" else "png"
    created = made(photos, tmp_path / "db", format_, encoding=encoding, shard_records=100)
    assert (created.records, created.left_out) == (COUNT - 17, 17)
    assert len(created.named) == 10
    assert created.named[0].startswith(f"{bad[0]}: not a picture that can be read")
    assert len(records(open_source(str(tmp_path / "db")))) == COUNT - 17


KILLED = """
import sys, time
from sparknet.db import Making, create
from sparknet.db.target import BATCH
from sparknet.sources import open_source
import sparknet.db.key_value as key_value, sparknet.db.loose as loose
key_value.LmdbTarget.step = key_value.LevelDbTarget.step = loose.FolderTarget.step = 20
def slow(done, total):
    print(done, flush=True)
    time.sleep(0.05)
source, target, format_ = sys.argv[1:]
create(open_source(source), target, format_, Making(seed=3, encoding="keep"), shard_records=20, progress=slow)
"""


@pytest.mark.slow
@pytest.mark.parametrize("format_", FORMATS)
def test_a_run_that_is_killed_goes_on_where_it_was(
    format_: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", KILLED, str(photos), str(tmp_path / "db"), format_]
    for lines in (2, 3):  # killed twice
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for _ in range(lines):
            assert process.stdout.readline()
        time.sleep(0.03)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=20)
        assert process.returncode == -signal.SIGKILL
    for name in ("key_value.LmdbTarget", "key_value.LevelDbTarget", "loose.FolderTarget"):
        monkeypatch.setattr(f"sparknet.db.{name}.step", 20)
    seen: list[int] = []
    making = {"seed": 3, "encoding": "keep", "shard_records": 20}
    created = made(photos, tmp_path / "db", format_, **making, progress=lambda done, _: seen.append(done))
    assert created.records == COUNT
    assert created.resumed_at >= 60  # three batches at least were there
    assert seen[0] > 60
    made(photos, tmp_path / "whole", format_, **making)
    assert same(records(open_source(str(tmp_path / "db"))), records(open_source(str(tmp_path / "whole"))))
    again = made(photos, tmp_path / "db", format_, **making)
    assert (again.records, again.resumed_at) == (COUNT, COUNT)


def test_what_was_begun_with_other_settings_is_left_alone(photos: Path, tmp_path: Path) -> None:
    made(photos, tmp_path / "db", "lmdb", seed=1)
    with pytest.raises(DataError, match="db was begun with another seed: choose another place"):
        made(photos, tmp_path / "db", "lmdb", seed=2)
    assert made(photos, tmp_path / "db", "lmdb", seed=2, overwrite=True).resumed_at == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("dear diary")
    with pytest.raises(DataError, match="mine is there already"):
        made(photos, tmp_path / "mine", "lmdb")
    assert (tmp_path / "mine" / "notes.txt").exists()


def test_a_run_that_wrote_nothing_is_in_nobodys_way(photos: Path, tmp_path: Path) -> None:
    Image.new("RGB", (7, 9)).save(photos / "class0" / "00000.png")
    with pytest.raises(
        DataError, match=r"is \(3, 32, 32\) where the first picture is \(3, 9, 7\): give a size"
    ):
        made(photos, tmp_path / "db", "hdf5")
    assert made(photos, tmp_path / "db", "hdf5", size=(16, 16)).records == COUNT


def test_a_folder_that_is_called_like_a_file_is_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x\.tar: tar goes into a folder, such as .*/x_tar$"):
        made(photos, tmp_path / "x.tar", "tar")


def test_hdf5_goes_into_one_file_as_well(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.h5"
    (tmp_path / "x.h5.parts").mkdir()  # as a run leaves it that was killed at once
    assert made(photos, target, "hdf5", order="rgb", shard_records=100).records == COUNT
    source = open_source(str(target))
    assert same(records(source, 3), drawn(COUNT))
    assert source.classes == CLASSES
    with h5py.File(target) as file:
        assert file["data"].shape == (COUNT, 3, 32, 32)
        assert file["label"][()].tolist() == drawn(COUNT).labels.tolist()
    assert [path.name for path in tmp_path.glob("*x.h5*")] == ["x.h5"]
    assert made(photos, target, "hdf5", order="rgb", shard_records=100).resumed_at == COUNT
    with pytest.raises(DataError, match=r"x\.h5 is there already: choose another place, or overwrite it"):
        made(photos, target, "hdf5", size=(8, 8))
    assert made(photos, target, "hdf5", size=(8, 8), overwrite=True).records == COUNT
    assert open_source(str(target)).schema["image"].shape == (3, 8, 8)


def test_one_file_of_hdf5_is_written_on_this_machine(photos: Path) -> None:
    with pytest.raises(UsageError, match=r"^s3://bucket/x\.h5: one HDF5 file is written on a disk of this"):
        made(photos, "s3://bucket/x.h5", "hdf5")


@pytest.mark.parametrize(
    ("format_", "options", "said"),
    [
        ("hdf5", {"encoding": "png"}, "HDF5 holds pixels"),
        ("lmdb", {"encoding": "keep", "size": (8, 8)}, "cannot be kept as they are"),
        ("zip", {}, "format 'zip' is not one of lmdb"),
        ("lmdb", {"quality": 0}, "quality 0 is not 1 to 100"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    format_: str, options: dict[str, Any], said: str, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=said):
        made(photos, tmp_path / "db", format_, **options)
    assert not (tmp_path / "db").exists()


def test_shards_are_written_to_s3_and_read_there(
    s3: Callable[[Path], str], photos: Path, tmp_path: Path
) -> None:
    url = "s3://pictures/made/shards"
    made(photos, url, "tar", encoding="png", shard_records=50)
    source = open_source(url)
    assert source.name == f"230 pictures in 10 classes from 5 tar shards of {url}"
    assert same(records(source, 2), drawn(COUNT))
    assert made(photos, url, "tar", encoding="png", shard_records=100, overwrite=True).records == COUNT
    assert open_source(url).name == f"230 pictures in 10 classes from 3 tar shards of {url}"
    with pytest.raises(UsageError, match="an LMDB is written on a disk of this machine"):
        made(photos, "s3://pictures/made/lmdb", "lmdb")
    with pytest.raises(DataError, match=r"^s3://nobody/x.* there is no such bucket"):
        made(photos, "s3://nobody/x", "tar", encoding="png")


def run(*words: str | Path) -> str:
    """What the command says; an error of it is raised."""
    ran = CliRunner().invoke(cli, [str(word) for word in words])
    if isinstance(ran.exception, SparkNetError):
        raise ran.exception
    assert ran.exit_code == 0, ran.output
    return ran.output


def test_the_command_creates_converts_and_looks(photos: Path, tmp_path: Path) -> None:
    said = run("db", "create", photos, tmp_path / "my_lmdb", "--size", "16", "--seed", "1")
    assert f"230 records in {tmp_path}/my_lmdb" in said
    run("db", "convert", tmp_path / "my_lmdb", tmp_path / "my_leveldb")
    run("db", "convert", tmp_path / "my_leveldb", tmp_path / "my_hdf5", "--shard-records", "100")
    run("db", "convert", tmp_path / "my_hdf5", tmp_path / "shards")
    run("db", "convert", tmp_path / "shards", tmp_path / "back", "--format", "folder")
    wanted = records(open_source(str(photos), size=16))[order_of(COUNT, 1)]
    assert same(records(open_source(str(tmp_path / "shards"))), wanted)
    assert "230 pictures" in run("db", "info", f"{tmp_path}/shards/shard-{{000000..000000}}.tar")
    said = run("db", "info", tmp_path / "shards")
    assert "image: uint8 (3, 16, 16)" in said
    assert "classes: class0, class1" in said
    assert "labels of the first 230 records: 0: 23, 1: 23" in said
    by_class = np.argsort(wanted.labels, kind="stable")
    assert same(records(open_source(str(tmp_path / "back"))), wanted[by_class])


def test_the_command_says_what_cannot_be(photos: Path, tmp_path: Path) -> None:
    ran = CliRunner().invoke(cli, ["db", "create", str(photos), str(tmp_path / "x"), "--size", "0x3"])
    assert ran.exit_code == 2
    assert "'0x3' is not a size such as 256 or 240x320" in ran.output
    with pytest.raises(DataError, match="nowhere does not exist"):
        run("db", "info", tmp_path / "nowhere")


def test_a_database_that_is_not_complete_says_so(photos: Path, tmp_path: Path) -> None:
    made(photos, tmp_path / "db", "lmdb")
    told = tmp_path / "db" / "sparknet.json"
    told.write_text(told.read_text().replace('"is_complete": true', '"is_complete": false'))
    with pytest.raises(UsageError, match="db is not complete: run the command that writes it again"):
        run("db", "info", tmp_path / "db")


def test_a_label_that_is_no_whole_number_is_refused_by_a_datum(tmp_path: Path) -> None:
    folder = put_tars(tmp_path / "x", drawn(4), shards=1)
    made(folder, tmp_path / "files", "folder", encoding="png")
    names = sorted(file.relative_to(tmp_path / "files") for file in (tmp_path / "files").rglob("*.png"))
    (tmp_path / "files" / "labels.csv").write_text("".join(f"{name},0.5\n" for name in names))
    with pytest.raises(DataError, match=r"the label 0\.5 is no whole number"):
        made(tmp_path / "files", tmp_path / "db", "lmdb")
    created = made(tmp_path / "files", tmp_path / "h", "hdf5")
    assert created.records == 4
    block = next(iter(open_source(str(tmp_path / "h")).parts(1)[0].blocks()))
    assert block["label"].tolist() == [0.5] * 4


def test_the_order_of_a_seed_is_one_of_all_records() -> None:
    assert sorted(order_of(50, 9).tolist()) == list(range(50))
    assert order_of(50, 9).tolist() == order_of(50, 9).tolist() != order_of(50, 10).tolist()
    assert isinstance(drawn(3), Examples)
