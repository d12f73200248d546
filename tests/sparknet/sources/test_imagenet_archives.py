"""ImageNet's archives, small ones of the official layout, are read where they lie."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from sparknet.data.decoding import decode
from sparknet.errors import DataError
from sparknet.sources import open_source
from tests.sparknet.sources.test_sources import records
from tests.sparknet.sources.writing import add, drawn, file_of

SYNSETS = tuple(f"n{number:08d}" for number in (1440764, 1443537, 2066245))


def put_train(folder: Path, each: int = 10) -> dict[str, list[bytes]]:
    """ILSVRC2012_img_train.tar, an archive of archives; the files by synset."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = iter(drawn(each * len(SYNSETS), side=40).images)
    files = {synset: [file_of(next(pictures), "JPEG") for _ in range(each)] for synset in SYNSETS}
    with tarfile.open(folder / "ILSVRC2012_img_train.tar", "w") as archive:
        for synset, contents in files.items():
            inner = io.BytesIO()
            with tarfile.open(fileobj=inner, mode="w") as of_class:
                for number, content in enumerate(contents):
                    add(of_class, f"{synset}_{number * 7}.JPEG", content)
            add(archive, f"{synset}.tar", inner.getvalue())
    return files


def put_val(folder: Path, count: int = 9) -> list[bytes]:
    """ILSVRC2012_img_val.tar and Caffe's val.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [file_of(image, "JPEG") for image in drawn(count, side=40).images]
    names = [f"ILSVRC2012_val_{number + 1:08d}.JPEG" for number in range(count)]
    with tarfile.open(folder / "ILSVRC2012_img_val.tar", "w") as archive:
        for name, content in zip(names, files, strict=True):
            add(archive, name, content)
    (folder / "val.txt").write_text("".join(f"{name} {k % 3}\n" for k, name in enumerate(names)))
    return files


def test_the_training_archive_gives_its_pictures_class_by_class(tmp_path: Path) -> None:
    files = put_train(tmp_path)
    source = open_source(str(tmp_path / "ILSVRC2012_img_train.tar"))
    assert source.classes == SYNSETS
    assert source.name.startswith("30 pictures in 3 classes from ImageNet's archives at ")
    found = records(source, 4)
    assert found.labels.tolist() == [k for k in range(3) for _ in range(10)]
    wanted = [decode(content, "x") for synset in SYNSETS for content in files[synset]]
    assert np.array_equal(found.images, np.stack(wanted))


def test_the_halves_of_a_folder_with_both_archives_are_told_apart(tmp_path: Path) -> None:
    put_train(tmp_path)
    files = put_val(tmp_path)
    assert len(records(open_source(str(tmp_path)))) == 30
    found = records(open_source(str(tmp_path), split="test"), 2)
    assert found.labels.tolist() == [0, 1, 2] * 3
    assert np.array_equal(found.images, np.stack([decode(content, "x") for content in files]))


def test_the_validation_archive_needs_its_labels(tmp_path: Path) -> None:
    put_val(tmp_path / "a")
    archive = tmp_path / "a" / "ILSVRC2012_img_val.tar"
    with pytest.raises(DataError, match=r"ILSVRC2012_val_00000001\.JPEG has no class: name a file of lines"):
        open_source(str(archive))
    assert len(records(open_source(str(archive), labels=str(tmp_path / "a" / "val.txt")))) == 9


def test_archives_in_s3_are_read_there(s3: Callable[[Path], str], tmp_path: Path) -> None:
    put_train(tmp_path / "tars")
    wanted = records(open_source(str(tmp_path / "tars")))
    url = s3(tmp_path / "tars")
    shutil.rmtree(tmp_path / "tars")
    found = records(open_source(f"{url}/ILSVRC2012_img_train.tar", size=40), 3)
    assert np.array_equal(found.images, wanted.images)
    assert np.array_equal(found.labels, wanted.labels)


def put_devkit(folder: Path, truth: list[int]) -> Path:
    """Numbers of the kit's own, in another order than the synsets, with one for what stands above them."""
    numbered = [(1, SYNSETS[2]), (2, SYNSETS[0]), (3, SYNSETS[1]), (1001, "n00001740")]
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O")]
    synsets = np.array([(number, synset, "a name") for number, synset in numbered], dtype=kinds)
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets})
    kit = folder / "ILSVRC2012_devkit_t12.tar.gz"
    with tarfile.open(kit, "w:gz") as archive:
        lines = "".join(f"{number}\n" for number in truth).encode()
        add(archive, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", lines)
        add(archive, "ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())
    return kit


def test_the_development_kit_tells_the_classes_of_the_validation_archive(tmp_path: Path) -> None:
    put_val(tmp_path)
    (tmp_path / "val.txt").unlink()
    kit = put_devkit(tmp_path, [2, 3, 1] * 3)  # numbers of the synsets 0, 1, 2 in their order
    assert records(open_source(str(tmp_path), split="test"), 1).labels.tolist() == [0, 1, 2] * 3
    with tarfile.open(kit) as archive:
        archive.extractall(tmp_path, filter="data")
    truth = tmp_path / "ILSVRC2012_devkit_t12" / "data" / "ILSVRC2012_validation_ground_truth.txt"
    archive_of_it = str(tmp_path / "ILSVRC2012_img_val.tar")
    assert records(open_source(archive_of_it, labels=str(truth)), 1).labels.tolist() == [0, 1, 2] * 3
    (truth.parent / "meta.mat").unlink()
    with pytest.raises(DataError, match=r"meta.mat does, which is not beside it: .*devkit_t12.tar.gz itself"):
        open_source(archive_of_it, labels=str(truth))


@pytest.mark.parametrize("cut", [0, 100])
def test_a_development_kit_that_is_damaged_is_named(tmp_path: Path, cut: int) -> None:
    put_val(tmp_path)
    kit = put_devkit(tmp_path, [2, 3, 1001] * 3)
    kit.write_bytes(kit.read_bytes()[: -cut or None])
    with pytest.raises(DataError, match=rf"^{kit}"):
        open_source(str(tmp_path / "ILSVRC2012_img_val.tar"), labels=str(kit))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_an_archive_that_is_cut_short_is_named(tmp_path: Path, share: float) -> None:
    put_train(tmp_path)
    archive = tmp_path / "ILSVRC2012_img_train.tar"
    archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * share)])
    with pytest.raises(DataError, match=r"ILSVRC2012_img_train\.tar is cut short"):
        records(open_source(str(archive)))
