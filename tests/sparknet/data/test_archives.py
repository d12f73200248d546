"""What is compressed is unpacked within bounds, and what is damaged is refused by name."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparknet.data import download, imagenet, mnist
from sparknet.data.archives import TooLargeError, at_most, gunzipped
from sparknet.errors import DataError

LABELS = imagenet.Labels(by_key={"n0": 0}, names=("n0",))


def test_no_more_is_read_than_was_allowed_for() -> None:
    assert at_most(io.BytesIO(b"12345"), 5) == b"12345"
    with pytest.raises(TooLargeError, match="more than 4 bytes"):
        at_most(io.BytesIO(b"12345"), 4)


def test_a_file_that_unpacks_to_gigabytes_is_refused_in_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mnist, "LARGEST", 1 << 20)
    bomb = tmp_path / "train-images-idx3-ubyte.gz"
    bomb.write_bytes(gzip.compress(bytes(1 << 26)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"ubyte\.gz is no idx file .* more than 1,048,576 bytes"):
            mnist.read_idx(bomb)
        assert tracemalloc.get_traced_memory()[1] < 1 << 23
    finally:
        tracemalloc.stop()
    with pytest.raises(TooLargeError):
        gunzipped(bomb, 1000)


@pytest.mark.parametrize("axes", [0, 5, 64, 65, 255])
def test_an_idx_file_of_other_axes_is_refused(axes: int, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes([0, 0, 8, axes]) + bytes(4 * axes))
    with pytest.raises(DataError, match=f"it says that it has {axes} axes"):
        mnist.read_idx(tmp_path / "x")


def test_a_member_that_cannot_be_unpacked_is_left_out_and_the_rest_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagenet, "LARGEST", 10_000)
    picture = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(picture, "JPEG")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (("1", picture.getvalue()), ("2", bytes(1 << 20)), ("3", picture.getvalue())):
            archive.writestr(f"n0/{name}.jpg", content)
    data = bytearray((tmp_path / "a.zip").read_bytes())
    data[60:70] = bytes(10)  # within the first
    (tmp_path / "a.zip").write_bytes(data)
    found = list(imagenet.Slice(sources=(tmp_path / "a.zip",)).examples(LABELS, side=4))
    assert sum(map(len, found)) == 1
    assert "n0/1.jpg is left out" in caplog.text
    assert "n0/2.jpg is left out: it holds more than 10,000 bytes" in caplog.text


def test_an_archive_whose_member_would_fill_the_disk_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "LARGEST_MEMBER", 1000)
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("data_batch_1")
        member.size = 1 << 20
        archive.addfile(member, io.BytesIO(bytes(1 << 20)))
    with pytest.raises(DataError, match=r"a\.tar\.gz cannot be unpacked \(data_batch_1 would be"):
        download.unpack(tmp_path / "a.tar.gz", tmp_path / "to", ["data_batch_1"])
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("ending", ["tar.xz", "tar.bz2", "tar.gz", "zip"])
def test_a_damaged_archive_is_refused_by_name(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{ending}"
    if ending == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("n0/1.jpg", bytes(5000))
        path.write_bytes(path.read_bytes()[:-30])
    else:
        with tarfile.open(path, f"w:{ending[4:]}") as tar:  # type: ignore[call-overload]
            member = tarfile.TarInfo("n0/1.jpg")
            member.size = 5000
            tar.addfile(member, io.BytesIO(np.random.default_rng(1).bytes(5000)))
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data[: len(data) - 100])
    with pytest.raises(DataError, match=rf"a\.{ending}"):
        list(imagenet.Slice(sources=(path,)).examples(LABELS, side=4))
