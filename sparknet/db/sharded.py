"""Records in numbered files, each of them whole or not there: tar shards, HDF5, Parquet; on a disk or in
S3."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sparknet.data.decoding import Order
from sparknet.db.records import Record
from sparknet.errors import DataError
from sparknet.sources import files, hdf5, parquet, tar
from sparknet.sources.files import File, joined
from sparknet.sources.pictures import Raw

LIST = "files.txt"
"""Names the HDF5 files, for Caffe's HDF5Data layer."""

Pack = Callable[[Sequence[Record], int], bytes]


class ShardedTarget:
    """Files ``name.format(number)`` in the folder ``url``, of ``step`` numbers each, made by ``pack``."""

    def __init__(
        self, url: str, name: str, pack: Pack, count: Callable[[File], int], *, step: int, digits: int
    ) -> None:
        self.url, self.step, self.digits = url, step, digits
        self._name, self._pack, self._count = name, pack, count
        self._records: dict[str, int] = {}

    def begin(self) -> int:
        found = {file.name: file for file in (files.listing(self.url) if files.exists(self.url) else [])}
        number = 0
        while (name := self._name.format(number)) in found:
            self._records[name] = self._count(found[name])
            number += 1
        return number * self.step

    def put(self, first: int, records: Sequence[Record]) -> None:
        name = self._name.format(first // self.step)
        files.write(joined(self.url, name), self._pack(records, self.digits))
        self._records[name] = len(records)

    def close(self) -> None:
        if self._name.endswith(".h5") and self._records:
            files.write(
                joined(self.url, LIST), "".join(f"{name}\n" for name in sorted(self._records)).encode()
            )

    def shards(self) -> dict[str, int]:
        return dict(self._records)

    def count(self) -> int:
        return sum(self._records.values())


def tar_target(url: str, digits: int, step: int) -> ShardedTarget:
    """WebDataset's layout: NUMBER_NAME.jpg and .cls, or .npy where pixels are raw."""
    return ShardedTarget(
        url,
        "shard-{:06d}.tar",
        packed_tar,
        lambda f: tar.count(tar.Shard(f.url, f.size)),
        step=step,
        digits=digits,
    )


def hdf5_target(url: str, digits: int, step: int, order: Order) -> ShardedTarget:
    """Datasets ``data`` and ``label``, and a list of the files: what Caffe's HDF5Data layer reads."""

    def pack(records: Sequence[Record], digits: int) -> bytes:  # noqa: ARG001
        return packed_hdf5(records, order)

    return ShardedTarget(url, "part-{:06d}.h5", pack, _hdf5_rows, step=step, digits=digits)


def parquet_target(url: str, digits: int, step: int) -> ShardedTarget:
    """Columns ``image``, ``label`` and ``key``."""
    return ShardedTarget(
        url,
        "part-{:06d}.parquet",
        packed_parquet,
        lambda f: len(parquet.rows_of([f.url])[0]),
        step=step,
        digits=digits,
    )


def packed_tar(records: Sequence[Record], digits: int) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for record in records:
            stem = record.key.rpartition("/")[2].partition(".")[0]
            key = f"{record.number:0{digits}d}_{stem}"
            image = record.image
            _add(archive, f"{key}.{record.ending}", image if isinstance(image, bytes) else _npy(image))
            if isinstance(record.label, float):
                raise DataError(f"{record.key}: a shard has whole numbers for labels, not {record.label}")
            if record.label is not None:
                _add(archive, f"{key}.cls", str(record.label).encode())
    return content.getvalue()


def packed_hdf5(records: Sequence[Record], order: Order) -> bytes:
    import h5py

    pixels = [record.pixels(order) for record in records]
    _one_size(records, [picture.shape for picture in pixels])
    labels = [record.label for record in records]
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["data"] = np.stack(pixels) if pixels else np.zeros((0, 1, 1, 1), np.uint8)
        known = all(isinstance(record.image, bytes) or record.order for record in records)
        if known:
            file["data"].attrs["order"] = order
        if labels and labels[0] is not None:
            file["label"] = np.array(labels, np.float32)
    return content.getvalue()


def packed_parquet(records: Sequence[Record], digits: int) -> bytes:  # noqa: ARG001
    raw = {record.image.shape for record in records if not isinstance(record.image, bytes)}
    if len(raw) > 1:
        _one_size(records, [r.image.shape for r in records if not isinstance(r.image, bytes)])
    images = [r.image if isinstance(r.image, bytes) else r.image.tobytes() for r in records]
    columns = {"image": pa.array(images, pa.binary()), "key": [record.key for record in records]}
    if records and records[0].label is not None:
        columns["label"] = [record.label for record in records]
    table = pa.table(columns)
    if raw:  # as Spark keeps the metadata of a column
        shape = list(next(iter(raw)))
        field = {"name": "image", "type": "binary", "nullable": True, "metadata": {"shape": shape}}
        kinds = {"string": "string", "int64": "long", "double": "double"}
        others = [
            {
                "name": name,
                "type": kinds[str(table.schema.field(name).type)],
                "nullable": True,
                "metadata": {},
            }
            for name in table.column_names[1:]
        ]
        schema = json.dumps({"type": "struct", "fields": [field, *others]})
        table = table.replace_schema_metadata({parquet.SPARK_METADATA: schema.encode()})
    content = io.BytesIO()
    pq.write_table(table, content)
    return content.getvalue()


def _one_size(records: Sequence[Record], shapes: Sequence[tuple[int, ...]]) -> None:
    wrong = next((k for k, shape in enumerate(shapes) if shape != shapes[0]), None)
    if wrong is not None:
        raise DataError(
            f"{records[wrong].key} is {shapes[wrong]} where the first picture is {shapes[0]}: give a size"
        )


def _hdf5_rows(file: File) -> int:
    return len(hdf5.Hdf5Source("", (file.url,)))


def _npy(pixels: Raw) -> bytes:
    content = io.BytesIO()
    np.save(content, pixels)
    return content.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))
