"""Data sets, archives of pictures, and checkpoints: valid ones, and what reads them."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np

from tests.sparknet.fuzz.records import png


def mnist(folder: Path) -> list[Path]:
    from sparknet.data import mnist

    images, labels = np.zeros((3, 2, 2), np.uint8), np.arange(3, dtype=np.uint8)
    paths = []
    for name in mnist.FILES:
        array = images if "images" in name else labels
        header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
        paths.append(folder / f"{name}.gz")
        paths[-1].write_bytes(gzip.compress(header + array.tobytes()))
    return paths


def read_mnist(path: Path) -> None:
    from sparknet.data import mnist

    mnist.load(path.parent)


def cifar(folder: Path) -> list[Path]:
    import pickle

    from sparknet.data import cifar10

    for name in (*cifar10.BATCHES, cifar10.TEST_BATCH):
        batch = {b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]}
        (folder / name).write_bytes(pickle.dumps(batch, 2))
    return [folder / cifar10.BATCHES[0], folder / cifar10.TEST_BATCH]


def read_cifar(path: Path) -> None:
    from sparknet.data import cifar10

    cifar10.load(path.parent)


def archives(folder: Path) -> list[Path]:
    picture = png()
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(4):
            archive.writestr(f"n0/{i}.jpg", picture)
    for name, mode in (("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.bz2", "w:bz2"), ("a.tar.xz", "w:xz")):
        with tarfile.open(folder / name, mode) as tar:  # type: ignore[call-overload]
            for i in range(4):
                member = tarfile.TarInfo(f"n0/{i}.jpg")
                member.size = len(picture)
                tar.addfile(member, io.BytesIO(picture))
    return sorted(folder.glob("a.*"))


def read_archive(path: Path) -> None:
    from sparknet.data import download, imagenet

    labels = imagenet.Labels(by_key={"n0": 0}, names=("n0",))
    list(imagenet.Slice(sources=(path,)).examples(labels, side=4))
    if path.suffix != ".zip":
        download.unpack(path, path.parent / "unpacked", ["0.jpg"])


def checkpoint(folder: Path) -> list[Path]:
    from sparknet.checkpoint import Checkpoint, Checkpoints
    from sparknet.training import WorkerState

    weights = np.ones(5, np.float32)
    state = WorkerState(iteration=3, position=2, history=weights)
    Checkpoints(str(folder / "run")).save(
        Checkpoint(round=2, lr=0.1, weights=weights, outer={"momentum": weights}, workers={0: state})
    )
    return sorted(path for path in (folder / "run").rglob("*") if path.is_file())


def read_checkpoint(path: Path) -> None:
    from sparknet.checkpoint import Checkpoints

    Checkpoints(str(path.parents[1])).latest()
