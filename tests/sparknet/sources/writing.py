"""The same pictures in files of every kind, written by the libraries that others write them with."""

from __future__ import annotations

import csv
import io
import json
import pickle
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from sparknet.caffe.schema.caffe_pb2 import Datum
from sparknet.data.dataset import Examples

CLASSES = tuple(f"class{k}" for k in range(10))


def drawn(count: int = 2000, side: int = 32, classes: int = 10) -> Examples:
    """Noise, class after class, so that a folder by class has them in the same order."""
    images = np.random.default_rng(13).integers(0, 256, (count, 3, side, side), dtype=np.uint8)
    return Examples(images, np.arange(count, dtype=np.int64) * classes // count)


def file_of(image: np.ndarray, kind: str = "PNG") -> bytes:
    content = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0) if len(image) == 3 else image[0]).save(content, kind)
    return content.getvalue()


def datum(image: np.ndarray, label: int, *, encoded: bool) -> bytes:
    if encoded:
        return Datum(data=file_of(image), encoded=True, label=label).SerializeToString()
    channels, height, width = image.shape
    return Datum(
        channels=channels, height=height, width=width, data=image.tobytes(), label=label
    ).SerializeToString()


def put_folder(folder: Path, examples: Examples) -> Path:
    for k, (image, label) in enumerate(zip(examples.images, examples.labels, strict=True)):
        (folder / CLASSES[label]).mkdir(parents=True, exist_ok=True)
        (folder / CLASSES[label] / f"{k:05d}.png").write_bytes(file_of(image))
    return folder


def put_csv(folder: Path, examples: Examples) -> Path:
    folder.mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file_name", "label"])
        for k, (image, label) in enumerate(zip(examples.images, examples.labels, strict=True)):
            name = f"{(k * 7919) % len(examples):05d}.png"  # names that are in no order
            (folder / name).write_bytes(file_of(image))
            rows.writerow([name, label])
    return folder


def put_tars(folder: Path, examples: Examples, *, encoded: bool = True, shards: int = 4) -> Path:
    folder.mkdir(parents=True)
    for number, which in enumerate(np.array_split(np.arange(len(examples)), shards)):
        with tarfile.open(folder / f"shard-{number:06d}.tar", "w") as archive:
            for k in which:
                image = examples.images[k]
                if encoded:
                    add(archive, f"{k:06d}.png", file_of(image))
                    add(archive, f"{k:06d}.cls", str(examples.labels[k]).encode())
                else:
                    array = io.BytesIO()
                    np.save(array, image)
                    add(archive, f"{k:06d}.npy", array.getvalue())
                    add(archive, f"{k:06d}.json", json.dumps({"label": int(examples.labels[k])}).encode())
    return folder


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def put_lmdb(folder: Path, examples: Examples, *, encoded: bool) -> Path:
    with lmdb.open(str(folder), map_size=1 << 28) as environment, environment.begin(write=True) as records:
        for k, (image, label) in enumerate(zip(examples.images, examples.labels, strict=True)):
            records.put(f"{k:08d}_x".encode(), datum(image, int(label), encoded=encoded))
    return folder


def put_leveldb(folder: Path, examples: Examples, *, encoded: bool) -> Path:
    import plyvel

    database = plyvel.DB(str(folder), create_if_missing=True)
    for k, (image, label) in enumerate(zip(examples.images, examples.labels, strict=True)):
        database.put(f"{k:08d}_x".encode(), datum(image, int(label), encoded=encoded))
    database.close()
    return folder


def put_hdf5(folder: Path, examples: Examples) -> Path:
    """Two files and Caffe's list of them; labels are floats, as Caffe wants."""
    folder.mkdir(parents=True)
    half = len(examples) // 2
    for name, part in (("a.h5", examples[:half]), ("b.h5", examples[half:])):
        with h5py.File(folder / name, "w") as file:
            file["data"] = part.images
            file["label"] = part.labels.astype(np.float32)
    (folder / "list.txt").write_text("a.h5\nb.h5\n")
    return folder / "list.txt"


def put_parquet(folder: Path, examples: Examples, *, encoded: bool) -> Path:
    folder.mkdir(parents=True)
    images = [file_of(image) if encoded else image.tobytes() for image in examples.images]
    table = pa.table({"image": images, "label": examples.labels})
    if not encoded:  # as Spark writes the metadata of a column
        fields = [{"name": "image", "type": "binary", "nullable": False, "metadata": {"shape": [3, 32, 32]}}]
        text = json.dumps({"type": "struct", "fields": fields})
        table = table.replace_schema_metadata({"org.apache.spark.sql.parquet.row.metadata": text})
    pq.write_table(table.slice(0, 700), folder / "part-0.parquet", row_group_size=300)
    pq.write_table(table.slice(700), folder / "part-1.parquet", row_group_size=300)
    (folder / "_SUCCESS").touch()
    return folder


def put_cifar(folder: Path, examples: Examples) -> Path:
    folder.mkdir(parents=True)
    rows = np.concatenate(
        [examples.labels[:, None].astype(np.uint8), examples.images.reshape(len(examples), -1)], 1
    )
    for name, part in zip((*(f"data_batch_{k}" for k in range(1, 6)),), np.array_split(rows, 5), strict=True):
        (folder / f"{name}.bin").write_bytes(part.tobytes())
    (folder / "test_batch.bin").write_bytes(rows[:100].tobytes())
    return folder


def put_cifar_python(folder: Path, examples: Examples) -> Path:
    folder.mkdir(parents=True)
    for number, which in enumerate(np.array_split(np.arange(len(examples)), 5), start=1):
        part = examples[which]
        batch = {b"data": part.images.reshape(len(part), -1), b"labels": part.labels.tolist()}
        (folder / f"data_batch_{number}").write_bytes(pickle.dumps(batch))
    return folder


def put_cifar100(folder: Path, examples: Examples) -> Path:
    """Train and test set, whose coarse classes say nothing of the fine ones."""
    folder.mkdir(parents=True)
    labels = examples.labels[:, None].astype(np.uint8)
    rows = np.concatenate([19 - labels, labels, examples.images.reshape(len(examples), -1)], 1)
    (folder / "train.bin").write_bytes(rows.tobytes())
    (folder / "test.bin").write_bytes(rows[:100].tobytes())
    return folder


def put_cifar100_python(folder: Path, examples: Examples) -> Path:
    folder.mkdir(parents=True)
    pixels, labels = examples.images.reshape(len(examples), -1), examples.labels.tolist()
    for name in ("train", "test"):
        batch = {b"data": pixels, b"fine_labels": labels, b"coarse_labels": [0] * len(labels)}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": []}))
    return folder


def put_mnist(folder: Path, examples: Examples) -> Path:
    """The first channel."""
    folder.mkdir(parents=True)
    images = examples.images[:, 0]
    head = struct.pack(">4B3I", 0, 0, 8, 3, *images.shape)
    (folder / "train-images-idx3-ubyte").write_bytes(head + images.tobytes())
    labels = struct.pack(">4BI", 0, 0, 8, 1, len(images)) + examples.labels.astype(np.uint8).tobytes()
    (folder / "train-labels-idx1-ubyte").write_bytes(labels)
    return folder


WRITERS: dict[str, Callable[[Path, Examples], Path]] = {
    "folder by class": put_folder,
    "folder with a CSV": put_csv,
    "tar, PNG": put_tars,
    "tar, raw": lambda folder, examples: put_tars(folder, examples, encoded=False),
    "LMDB, PNG": lambda folder, examples: put_lmdb(folder, examples, encoded=True),
    "LMDB, raw": lambda folder, examples: put_lmdb(folder, examples, encoded=False),
    "LevelDB, PNG": lambda folder, examples: put_leveldb(folder, examples, encoded=True),
    "LevelDB, raw": lambda folder, examples: put_leveldb(folder, examples, encoded=False),
    "HDF5": put_hdf5,
    "Parquet, PNG": lambda folder, examples: put_parquet(folder, examples, encoded=True),
    "Parquet, raw": lambda folder, examples: put_parquet(folder, examples, encoded=False),
    "CIFAR, binary": put_cifar,
    "CIFAR, Python": put_cifar_python,
    "CIFAR-100, binary": put_cifar100,
    "CIFAR-100, Python": put_cifar100_python,
}
