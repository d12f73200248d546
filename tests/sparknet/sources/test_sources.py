"""Every kind of source gives the same records in the same order, whole or in parts that travel."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparknet.data.dataset import Examples
from sparknet.data.records import Column
from sparknet.data.shards import contiguous, sampler
from sparknet.errors import DataError, UsageError
from sparknet.sources import Source, open_source
from tests.sparknet.sources.writing import CLASSES, WRITERS, drawn, put_folder, put_lmdb, put_mnist, put_tars

COUNT = 2000


@pytest.fixture(scope="module")
def examples() -> Examples:
    return drawn(COUNT)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, examples: Examples) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {kind: write(folder / str(k), examples) for k, (kind, write) in enumerate(WRITERS.items())}


def records(source: Source, count: int = 1) -> Examples:
    """All of them, each part read from its pickle."""
    return together([read_part(part) for part in source.parts(count)])


def read_part(part: Any) -> Examples:
    blocks = list(pickle.loads(pickle.dumps(part)).blocks())
    return together([Examples(block["image"], block["label"]) for block in blocks])


def together(parts: Sequence[Examples]) -> Examples:
    return Examples(
        np.concatenate([part.images for part in parts]), np.concatenate([part.labels for part in parts])
    )


def same(one: Examples, other: Examples) -> bool:
    return np.array_equal(one.images, other.images) and np.array_equal(one.labels, other.labels)


@pytest.mark.parametrize("kind", list(WRITERS))
def test_a_source_of_any_kind_gives_the_records_that_were_written(
    kind: str, written: dict[str, Path], examples: Examples
) -> None:
    source = open_source(str(written[kind]))
    assert source.schema == {
        "image": Column(np.dtype(np.uint8), (3, 32, 32)),
        "label": Column(np.dtype(np.int64)),
    }
    assert source.name.startswith("2,000 pictures")
    assert same(records(source), examples)


@pytest.mark.parametrize("kind", list(WRITERS))
def test_parts_are_the_neighbours_that_a_shard_of_any_data_has(
    kind: str, written: dict[str, Path], examples: Examples
) -> None:
    parts = open_source(str(written[kind])).parts(3)
    for part, which in zip(parts, contiguous(COUNT, 3), strict=True):
        assert same(read_part(part), examples[which])


@pytest.mark.parametrize("kind", list(WRITERS))
def test_the_first_batch_that_is_trained_on_is_the_same(
    kind: str, written: dict[str, Path], examples: Examples
) -> None:
    shard = read_part(open_source(str(written[kind])).parts(2)[1])
    first = next(sampler("window", records=len(shard), batch_size=50, seed=7, shard=1).batches(10))
    assert same(shard[first], examples[contiguous(COUNT, 2)[1]][first])


def test_mnist_gives_what_is_in_its_files(tmp_path: Path, examples: Examples) -> None:
    source = open_source(str(put_mnist(tmp_path / "mnist", examples)))
    assert same(records(source, 3), Examples(examples.images[:, :1], examples.labels))
    assert source.classes == tuple("0123456789")


def test_the_halves_of_cifar_are_told_apart(written: dict[str, Path], examples: Examples) -> None:
    source = open_source(str(written["CIFAR, binary"]), split="test")
    assert same(records(source), examples[:100])


def test_classes_are_named_where_they_have_names(written: dict[str, Path]) -> None:
    assert open_source(str(written["folder by class"])).classes == CLASSES
    assert open_source(str(written["LMDB, raw"])).classes is None


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if "PNG" in kind or "CIFAR" in kind])
def test_blue_comes_first_where_it_is_asked_for(
    kind: str, written: dict[str, Path], examples: Examples
) -> None:
    found = records(open_source(str(written[kind]), order="bgr"))
    assert np.array_equal(found.images[:, ::-1], examples.images)


@pytest.mark.parametrize("kind", list(WRITERS))
def test_pictures_of_any_source_are_resized_alike(kind: str, written: dict[str, Path]) -> None:
    first = next(iter(open_source(str(written[kind]), size=(20, 24)).parts(100)[0].blocks()))["image"]
    other = next(iter(open_source(str(written["CIFAR, binary"]), size=(20, 24)).parts(100)[0].blocks()))[
        "image"
    ]
    assert first.shape == (20, 3, 20, 24)
    assert np.array_equal(first, other)


@pytest.mark.parametrize("kind", list(WRITERS))
def test_grey_pictures_are_made_of_those_in_colour(kind: str, written: dict[str, Path]) -> None:
    source = open_source(str(written[kind]), channels=1)
    assert source.schema["image"].shape == (1, 32, 32)
    first = next(iter(source.parts(100)[0].blocks()))["image"]
    other = next(iter(open_source(str(written["folder by class"]), channels=1).parts(100)[0].blocks()))[
        "image"
    ]
    assert np.abs(first.astype(int) - other.astype(int)).max() <= 1


def test_more_parts_than_records_are_refused(tmp_path: Path) -> None:
    source = open_source(str(put_folder(tmp_path, drawn(3, classes=1))))
    with pytest.raises(DataError, match="3 records cannot be shared out among 4 workers"):
        source.parts(4)


def test_a_picture_that_cannot_be_decoded_is_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put_folder(tmp_path, drawn(100))
    bad = sorted(tmp_path.rglob("*.png"))[20:35]
    for file in bad:
        file.write_bytes(file.read_bytes()[:100])
    found = records(open_source(str(tmp_path)))
    assert len(found) == 85
    assert f"left out: {bad[0]}: not a picture that can be read" in caplog.messages[0]
    assert len(caplog.messages) == 11
    assert caplog.messages[-1] == "left out: 5 more pictures that cannot be decoded"


def test_a_folder_of_nothing_but_bad_pictures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"no")
    with pytest.raises(DataError, match=r"a/x\.png: not a picture that can be read"):
        _ = open_source(str(tmp_path)).schema


def test_pictures_of_two_sizes_are_refused_with_the_way_out(tmp_path: Path) -> None:
    put_folder(tmp_path, drawn(30))
    put_folder(tmp_path / "class9", drawn(1, side=20, classes=1))
    (tmp_path / "class9" / "class0" / "00000.png").rename(tmp_path / "class9" / "zz.png")
    source = open_source(str(tmp_path))
    wrong = (
        r"zz\.png is 3 x 20 x 20 .* where the first picture is 3 x 32 x 32: give a size, such as size=\(32"
    )
    with pytest.raises(DataError, match=wrong):
        records(source)
    assert len(records(open_source(str(tmp_path), size=8))) == 31


def test_the_halves_of_a_folder_are_told_apart_and_have_the_same_classes(tmp_path: Path) -> None:
    put_folder(tmp_path / "train", drawn(30))
    put_folder(tmp_path / "val", drawn(30)[15:])
    train, test = (open_source(str(tmp_path), split=split) for split in ("train", "test"))  # type: ignore[arg-type]
    assert train.classes == test.classes == CLASSES
    assert same(records(train), drawn(30))
    assert same(records(test), drawn(30)[15:])


def test_a_folder_without_classes_has_no_labels(tmp_path: Path) -> None:
    for path in put_folder(tmp_path / "x", drawn(5)).rglob("*.png"):
        path.rename(tmp_path / path.name)
    source = open_source(str(tmp_path))
    assert set(source.schema) == {"image"}
    assert [len(block["image"]) for block in source.parts(1)[0].blocks()] == [5]


def test_braces_stand_for_numbered_shards(tmp_path: Path) -> None:
    put_tars(tmp_path / "tars", drawn(40))
    source = open_source(f"{tmp_path}/tars/shard-{{000001..000002}}.tar")
    assert same(records(source), drawn(40)[10:30])


@pytest.mark.parametrize("bytes_lost", [1, 600, 5000])
def test_a_shard_that_is_cut_short_is_named(tmp_path: Path, bytes_lost: int) -> None:
    put_tars(tmp_path / "tars", drawn(40))
    shard = tmp_path / "tars" / "shard-000002.tar"
    end = max(k for k in range(0, shard.stat().st_size, 512) if shard.read_bytes()[k : k + 512].strip(b"\0"))
    shard.write_bytes(shard.read_bytes()[: end + 512 - bytes_lost])
    with pytest.raises(DataError, match=r"shard-000002\.tar is cut short"):
        records(open_source(str(tmp_path / "tars")))


def test_a_shard_cut_between_two_files_is_noticed(tmp_path: Path) -> None:
    put_tars(tmp_path / "tars", drawn(4), shards=1)
    shard = tmp_path / "tars" / "shard-000000.tar"
    end = max(k for k in range(0, shard.stat().st_size, 512) if shard.read_bytes()[k : k + 512].strip(b"\0"))
    shard.write_bytes(shard.read_bytes()[: end + 512])  # the last file is whole, the mark of the end is gone
    with pytest.raises(DataError, match="without the mark of an end"):
        open_source(str(tmp_path / "tars")).parts(1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "zip"}, "kind 'zip' is not one of folder, tar"),
        ({"split": "val"}, "split 'val' is not train or test"),
        ({"size": (1, 2, 3)}, "size"),
        ({"size": 0}, "size"),
        ({"order": "brg"}, "order 'brg' is not rgb or bgr"),
        ({"channels": 2}, "channels 2"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_source(str(tmp_path), **options)


@pytest.mark.parametrize("kind", list(WRITERS))
def test_what_has_been_written_anew_at_its_path_is_read_as_it_is(kind: str, tmp_path: Path) -> None:
    before = drawn(20)
    after = Examples(255 - before.images, before.labels)
    assert same(records(open_source(str(WRITERS[kind](tmp_path / "here", before)))), before)
    shutil.rmtree(tmp_path / "here")
    assert same(records(open_source(str(WRITERS[kind](tmp_path / "here", after)))), after)


def test_what_lies_in_folders_below_does_not_make_a_folder_a_database(tmp_path: Path) -> None:
    (tmp_path / "databases").mkdir()
    put_lmdb(tmp_path / "databases" / "db", drawn(4), encoded=False)
    put_folder(tmp_path / "databases" / "photos", drawn(10))
    with pytest.raises(DataError, match=r"databases is neither an LMDB \(data\.mdb\) nor a LevelDB"):
        _ = open_source(str(tmp_path / "databases"), kind="lmdb").schema
    assert open_source(str(tmp_path / "databases")).name.startswith("10 pictures")


def test_nothing_and_nothing_known_are_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give a path or a URL"):
        open_source("")
    with pytest.raises(DataError, match=r"nowhere does not exist$"):
        open_source(str(tmp_path / "nowhere"))
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(DataError, match="has nothing in it that is known: pictures by class"):
        open_source(str(tmp_path))
    with pytest.raises(DataError, match=r"notes\.md is a file of no kind that is known"):
        open_source(str(tmp_path / "notes.md"))
