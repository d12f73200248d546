"""The idx layout, against files made here byte by byte and against the real ones."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from sparknet.data import mnist
from sparknet.errors import DataError
from tests.sparknet.data.real import real_data


def pixel(record: int, row: int, column: int) -> int:
    return (record * 11 + row * 28 + column) % 256


def write_pair(folder: Path, images: str, labels: str, count: int, zipped: bool) -> None:
    header = b"\x00\x00\x08\x03" + struct.pack(">III", count, 28, 28)
    pixels = bytes(pixel(r, y, x) for r in range(count) for y in range(28) for x in range(28))
    for name, content in (
        (images, header + pixels),
        (labels, b"\x00\x00\x08\x01" + struct.pack(">I", count) + bytes(r % 10 for r in range(count))),
    ):
        (folder / (f"{name}.gz" if zipped else name)).write_bytes(
            gzip.compress(content) if zipped else content
        )


def make(folder: Path, *, zipped: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_pair(folder, "train-images-idx3-ubyte", "train-labels-idx1-ubyte", 12, zipped)
    write_pair(folder, "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte", 3, zipped)
    return folder


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("below", ["", "mnist", "MNIST/raw"])
def test_plain_and_gzipped_files_are_read_wherever_they_usually_are(
    tmp_path: Path, zipped: bool, below: str
) -> None:
    make(tmp_path / below, zipped=zipped)
    loaded = mnist.load(tmp_path)
    assert loaded.train.shape == (1, 28, 28)
    assert loaded.train.labels.tolist() == [*range(10), 0, 1]
    assert loaded.train.images[11, 0, 27, 3] == pixel(11, 27, 3)
    assert len(loaded.test) == 3
    assert loaded.test.images.flags.writeable


@pytest.mark.parametrize("cut", [1, 28 * 28 * 12, 28 * 28 * 12 + 3])
def test_a_file_cut_short_says_what_it_should_hold(tmp_path: Path, cut: int) -> None:
    file = make(tmp_path) / "train-images-idx3-ubyte"
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte (should hold 12 x 28 x 28|is cut short)"):
        mnist.load(tmp_path)


def test_a_file_with_more_bytes_than_announced_is_refused(tmp_path: Path) -> None:
    file = make(tmp_path) / "t10k-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes() + b"\0")
    with pytest.raises(DataError, match="should hold 3 = 3 bytes after its header and holds 4"):
        mnist.load(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flip"])
def test_a_damaged_gzip_file_is_refused(tmp_path: Path, damage: str) -> None:
    file = make(tmp_path, zipped=True) / "train-images-idx3-ubyte.gz"
    content = bytearray(file.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    else:
        content[len(content) // 2] ^= 0xFF
    file.write_bytes(bytes(content))
    with pytest.raises(DataError, match="gz is damaged or cut short"):
        mnist.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\0\0", b"<html>not found</html>", b"\0\0\x0d\x01\0\0\0\0"])
def test_a_file_that_is_no_idx_of_bytes_is_refused(tmp_path: Path, content: bytes) -> None:
    (make(tmp_path) / "train-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(DataError, match="is no idx file of bytes"):
        mnist.load(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    (make(tmp_path) / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte is missing, plain or"):
        mnist.load(tmp_path)


def test_images_and_labels_of_different_lengths_are_refused(tmp_path: Path) -> None:
    folder = make(tmp_path)
    (folder / "train-labels-idx1-ubyte").write_bytes((folder / "t10k-labels-idx1-ubyte").read_bytes())
    with pytest.raises(DataError, match="do not belong together"):
        mnist.load(tmp_path)


def test_a_folder_without_the_data_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no MNIST in it.*--data synthetic"):
        mnist.load(tmp_path)


def test_the_real_set_is_the_published_one() -> None:
    loaded = mnist.load(real_data())
    assert (len(loaded.train), len(loaded.test)) == (60_000, 10_000)
    # the class counts as published with the set
    assert np.bincount(loaded.train.labels).tolist() == [
        5923,
        6742,
        5958,
        6131,
        5842,
        5421,
        5918,
        6265,
        5851,
        5949,
    ]
    assert np.bincount(loaded.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    # the mean and deviation of the training pixels that everybody uses
    assert loaded.train.images.mean() / 255 == pytest.approx(0.1307, abs=1e-4)
    assert loaded.train.images.std() / 255 == pytest.approx(0.3081, abs=1e-4)
