"""What a task is handed becomes one array: Arrow batches, blocks, and rows, whole and in their order."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from sparknet.data.arrow import Bytes, Numbers
from sparknet.data.dataset import Shard
from sparknet.data.growable import MemoryLimit
from sparknet.errors import DataError
from sparknet.spark.columns import ColumnSelection, Input, Part
from sparknet.spark.frames import drain_batches, drain_blocks, schema_of
from tests.sparknet.small import pictures

EXAMPLES = pictures(2500)
SHAPE = EXAMPLES.shape


@pytest.fixture
def limit(tmp_path: Path) -> MemoryLimit:
    return MemoryLimit(memory_bytes=10_000, folder=tmp_path)  # 2,500 pictures of 16 bytes do not fit


SCHEMA = schema_of(SHAPE)


def chosen(kind: pa.DataType) -> ColumnSelection:
    """Pictures and labels as they are read of a DataFrame whose pictures are of this kind."""
    floats = Numbers(np.dtype(np.float32), (int(np.prod(SHAPE)),))
    reader = Bytes(SHAPE) if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) else floats
    image = Input("data", (Part("image", reader, SHAPE),), reader.column.dtype)
    whole = np.dtype(np.int64)
    return ColumnSelection(inputs=(image,), label=Input("label", (Part("label", Numbers(whole), ()),), whole))


def same(found: Shard, images: object = EXAMPLES.images) -> bool:
    return np.array_equal(found.columns["data"], images) and np.array_equal(
        found.columns["label"], EXAMPLES.labels
    )


def batches(images: pa.Array, rows: int = 300) -> list[pa.RecordBatch]:
    return pa.table({"image": images, "label": EXAMPLES.labels}).to_batches(rows)


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()], ids=["binary", "large binary"])
def test_arrow_batches_of_bytes(limit: MemoryLimit, kind: pa.DataType) -> None:
    arrived = batches(pa.array([image.tobytes() for image in EXAMPLES.images], kind))
    assert same(drain_batches(iter(arrived), chosen(kind), limit))


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.float32()), pa.large_list(pa.float32())], ids=["list", "large list"]
)
def test_arrow_batches_of_floats(limit: MemoryLimit, kind: pa.DataType) -> None:
    floats = EXAMPLES.images.reshape(2500, -1) / np.float32(7)
    arrived = batches(pa.array(list(floats), kind))
    found = drain_batches(iter(arrived), chosen(kind), limit)
    assert found.columns["data"].dtype == np.float32
    assert same(found, floats.reshape(2500, *SHAPE))


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (
            pa.array([b"x" * 16] * 2499 + [b"short"]),
            "column image, partition 7, row 2499: 5 bytes, but 1 x 4 x 4 = 16 is needed",
        ),
        (
            pa.array([b"x" * 16] * 2499 + [None]),
            "column image, partition 7, row 2499: NULL, but a value is needed",
        ),
        (
            pa.array([[1.0] * 16] * 400 + [[1.0] * 15] * 2100, pa.list_(pa.float32())),
            "partition 7, row 400: a list of 15 elements, but 16 is needed",
        ),
        (
            pa.array([[1.0] * 16] * 400 + [[None] * 16] * 2100, pa.list_(pa.float32())),
            "partition 7, row 400: NULL, but a value is needed",
        ),
        (
            pa.array([[1.0] * 16] * 400 + [[math.nan] * 16] * 2100, pa.list_(pa.float32())),
            "partition 7, row 400: nan, but a finite number is needed",
        ),
    ],
    ids=["short", "null", "too few floats", "null floats", "not a number"],
)
def test_pictures_that_cannot_be_are_refused(limit: MemoryLimit, column: pa.Array, says: str) -> None:
    with pytest.raises(DataError, match=says):
        drain_batches(iter(batches(column)), chosen(column.type), limit, 7)


def test_rows_are_gathered_in_batches(limit: MemoryLimit) -> None:
    rows = [
        (image.tobytes(), int(label)) for image, label in zip(EXAMPLES.images, EXAMPLES.labels, strict=True)
    ]
    assert same(drain_blocks(iter(rows), SCHEMA, limit))


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_rows_may_hold_arrays(limit: MemoryLimit, dtype: type) -> None:
    images = EXAMPLES.images.astype(dtype)
    found = drain_blocks(iter(zip(images, EXAMPLES.labels, strict=True)), SCHEMA, limit)
    assert found.columns["data"].dtype == (np.uint8 if dtype == np.uint8 else np.float32)
    assert same(found)


def test_a_short_row_is_refused(limit: MemoryLimit) -> None:
    with pytest.raises(DataError, match="a picture has 3 bytes where 1 x 4 x 4 = 16 are due"):
        drain_blocks(iter([(b"abc", 1)]), SCHEMA, limit)


def test_one_block_that_has_room_is_not_copied() -> None:
    exactly = MemoryLimit(memory_bytes=EXAMPLES.nbytes, folder=Path("/nowhere"))
    assert drain_blocks(iter([EXAMPLES]), SCHEMA, exactly) is EXAMPLES


def test_one_block_that_has_no_room_in_memory_goes_to_a_file(limit: MemoryLimit) -> None:
    found = drain_blocks(iter([EXAMPLES]), SCHEMA, limit)
    assert same(found)
    address = found.columns["data"].__array_interface__["data"][0]
    assert str(limit.folder) in mapping_of(address)


def mapping_of(address: int) -> str:
    """What the kernel says lies at this address of this process."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(end, 16) for end in line.split()[0].split("-"))
        if low <= address < high:
            return line
    return ""


def test_many_blocks_are_joined(limit: MemoryLimit) -> None:
    parts = [EXAMPLES[:700], EXAMPLES[700:701], EXAMPLES[701:]]
    assert same(drain_blocks(iter(parts), SCHEMA, limit))


def test_an_empty_partition_has_no_records(limit: MemoryLimit) -> None:
    for found in (drain_blocks(iter([]), SCHEMA, limit), drain_batches(iter([]), chosen(pa.binary()), limit)):
        assert len(found) == 0
        assert found.columns["data"].shape == (0, *SHAPE)
