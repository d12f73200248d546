from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sparknet.data import imagenet
from sparknet.data.imagenet import Labels, Slice
from sparknet.errors import DataError
from tests.sparknet.data import photographs
from tests.sparknet.data.photographs import COLOURS, LABELS, jpeg, named

PUT: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "loose": lambda root, files: photographs.put_loose(root / "pictures", files),
    "zip": lambda root, files: photographs.put_zip(root / "pictures.zip", files),
    "tar": lambda root, files: photographs.put_tar(root / "pictures.tar", files),
}


def labels() -> Labels:
    return Labels(by_key={"n01": 0, "n02": 1, "n03": 2}, names=("red thing", "green", "blue"))


def read(part: Slice, side: int = 8) -> list[tuple[int, tuple[int, ...]]]:
    """(label, first pixel as blue, green, red) of every picture of a slice."""
    return [
        (int(label), tuple(int(value) for value in image[:, 0, 0]))
        for block in part.examples(labels(), side=side)
        for image, label in zip(block.images, block.labels, strict=True)
    ]


@pytest.mark.parametrize("kind", PUT)
def test_pictures_become_squares_of_blue_green_and_red(tmp_path: Path, kind: str) -> None:
    where = PUT[kind](tmp_path, named(2))
    found = read(imagenet.slices(imagenet.sources(where), 1)[0])
    assert sorted(label for label, _ in found) == [0, 0, 1, 1, 2, 2]
    for label, pixel in found:
        colour = list(COLOURS.values())[label]
        assert np.allclose(pixel, colour[::-1], atol=4), "JPEG moves colours a little"


@pytest.mark.parametrize("kind", PUT)
@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_workers_share_the_pictures_of_one_archive_out_evenly(
    tmp_path: Path, kind: str, workers: int
) -> None:
    found = imagenet.sources(PUT[kind](tmp_path, named(7)))
    counts = [len(read(part)) for part in imagenet.slices(found, workers)]
    assert sum(counts) == 21
    assert max(counts) - min(counts) <= 1


def test_many_archives_are_shared_out_whole(tmp_path: Path) -> None:
    for number in range(5):
        photographs.put_tar(tmp_path / f"train.{number}.tar", named(1, prefix=f"{number}/"))
    parts = imagenet.slices(imagenet.sources(tmp_path), 2)
    assert [len(part.sources) for part in parts] == [3, 2]
    assert [len(read(part)) for part in parts] == [9, 6]


def test_a_tenth_or_so_is_held_out_by_name_and_never_trained_on(tmp_path: Path) -> None:
    where = PUT["zip"](tmp_path, named(70))
    found = imagenet.sources(where)
    train, test = (len(read(imagenet.slices(found, 1, part)[0])) for part in ("train", "test"))
    assert train + test == 210
    assert 8 <= test <= 40


def test_blocks_are_shuffled_so_that_classes_mix(tmp_path: Path) -> None:
    part = imagenet.slices(imagenet.sources(PUT["zip"](tmp_path, named(20))), 1)[0]
    order = [label for label, _ in read(part)]
    assert order != sorted(order)
    assert order == [label for label, _ in read(part)], "by a seed"


def test_what_is_no_picture_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = {**named(1), "n02_9.JPEG": b"no picture", "n03_9.JPEG": jpeg((1, 2, 3))[:80]}
    with caplog.at_level(logging.WARNING):
        found = read(imagenet.slices(imagenet.sources(PUT["zip"](tmp_path, files)), 1)[0])
    assert len(found) == 3
    assert "n02_9.JPEG is left out" in caplog.text
    assert "n03_9.JPEG is left out" in caplog.text


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_printed_pictures_are_read_too(tmp_path: Path, mode: str) -> None:
    where = PUT["zip"](tmp_path, {"n01_0.jpg": jpeg((200, 30, 40), mode=mode)})
    assert len(read(imagenet.slices(imagenet.sources(where), 1)[0])) == 1


def test_files_that_the_labels_do_not_name_are_not_read(tmp_path: Path) -> None:
    where = PUT["tar"](tmp_path, {**named(1), "n99_0.JPEG": jpeg((0, 0, 0)), "README.txt": b"hello"})
    assert len(read(imagenet.slices(imagenet.sources(where), 1)[0])) == 3


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("n02_10026.JPEG", 1),
        ("n02/x.JPEG", 1),
        ("a/n03_green_thing.jpg", 2),
        ("val_7.JPEG", 2),
        ("n9_1.JPEG", None),
    ],
)
def test_a_picture_is_known_by_its_synset_its_folder_or_its_own_name(name: str, label: int | None) -> None:
    listed = Labels(by_key={"n01": 0, "n02": 1, "n03": 2, "val_7.JPEG": 2}, names=("a", "b", "c"))
    assert listed.of(name) == label


def test_labels_are_read_with_names(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text(LABELS + "\n")
    assert Labels.read(tmp_path / "labels.txt") == labels()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("n01 zero\n", 'labels.txt:1 is "n01 zero"'),
        ("n01 0\nn02 2\n", "names 2 classes, but not all of 0 to 2"),
        ("", "names 0 classes"),
        ("n01\n", 'labels.txt:1 is "n01"'),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "labels.txt").write_text(text)
    with pytest.raises(DataError, match=says):
        Labels.read(tmp_path / "labels.txt")


def test_missing_labels_are_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        Labels.read(tmp_path / "labels.txt")


@pytest.mark.parametrize("name", ["broken.zip", "broken.tar"])
def test_a_damaged_archive_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"no archive at all")
    with pytest.raises(DataError, match=rf"{name} cannot be read"):
        read(imagenet.slices(imagenet.sources(tmp_path), 1)[0])


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_pictures_is_named(tmp_path: Path, exists: bool) -> None:
    says = "has no JPEG files" if exists else "does not exist"
    with pytest.raises(DataError, match=says):
        imagenet.sources(tmp_path if exists else tmp_path / "nowhere")


def test_the_first_records_are_taken_and_no_more_blocks_are_read(tmp_path: Path) -> None:
    part = imagenet.slices(imagenet.sources(PUT["zip"](tmp_path, named(5))), 1)[0]
    assert len(imagenet.first(part.examples(labels(), side=8), 4)) == 4
    with pytest.raises(DataError, match="none of the pictures"):
        imagenet.first([], 4)
