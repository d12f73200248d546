"""Training data for Spark, and back: arrays to an RDD or a DataFrame, a partition to one contiguous array.

from_examples       one block of records for each worker: the quickest, for sets the driver can hold
frame_of            a DataFrame of ``image`` (binary, c * h * w bytes) and ``label`` (bigint)
drain_blocks, drain_batches   in a task: everything a partition has, as records in memory or on disk
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import RDD
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import BinaryType, LongType, StructField, StructType

from sparknet.data import Column, Examples, Records, contiguous
from sparknet.data.dataset import Shard
from sparknet.data.growable import MemoryLimit, collect
from sparknet.errors import DataError
from sparknet.spark.columns import ColumnSelection, Labels, select

Shape = tuple[int, int, int]
Row = tuple[Any, int]
"""An image and its label: c * h * w bytes, or an array (c, h, w) of uint8 or floats."""

# One pickle frame holds a shard, and Java arrays end at 2 GiB.
_SHARD_LIMIT = 1 << 30
# Rows of an RDD that are turned into an array together.
_ROWS = 1000


def from_examples(spark: SparkSession, examples: Shard, workers: int) -> RDD[Shard]:
    """An RDD of ``workers`` partitions, each with one contiguous shard.

    Raises DataError for fewer records than workers, and for shards past 1 GiB.
    """
    shards = [examples[part] for part in contiguous(len(examples), workers)]
    largest = max(shard.nbytes for shard in shards)
    if largest > _SHARD_LIMIT:
        raise DataError(
            f"a shard has {largest / 2**30:.1f} GiB, more than a task can carry: use more workers, "
            "or read the records into a DataFrame in the cluster"
        )
    return spark.sparkContext.parallelize(shards, workers)


def frame_of(spark: SparkSession, examples: Examples) -> DataFrame:
    """One row for each record; the shape of the pictures is kept in the metadata of ``image``."""
    count, width = len(examples), int(np.prod(examples.shape))
    pixels = pa.py_buffer(np.ascontiguousarray(examples.images).reshape(-1))
    offsets = pa.py_buffer(np.arange(count + 1, dtype=np.int64) * width)
    images = pa.Array.from_buffers(pa.large_binary(), count, [None, offsets, pixels])
    table = pa.table({"image": images, "label": examples.labels})
    schema = StructType(
        [
            StructField("image", BinaryType(), False, {"shape": list(examples.shape)}),
            StructField("label", LongType(), False),
        ]
    )
    return spark.createDataFrame(table, schema)


def shape_of(frame: DataFrame) -> Shape:
    """(c, h, w) of the pictures in ``frame``. Raises DataError unless it has ``image`` and ``label``."""
    if not {"image", "label"} <= set(frame.columns):
        raise DataError(
            f"the DataFrame has the columns {', '.join(frame.columns)}: image (binary) and label are needed"
        )
    shape = frame.schema["image"].metadata.get("shape")
    if not shape:
        raise DataError(
            "the column image does not say how large its pictures are: give shape=(channels, height, width)"
        )
    channels, height, width = shape
    return channels, height, width


def selection_of(frame: DataFrame, shape: Shape | None = None) -> ColumnSelection:
    """How ``image`` and ``label`` of ``frame`` are read: any whole number is a label.

    Raises DataError unless it has both, and for columns of other kinds.
    """
    size = shape or shape_of(frame)
    return select(frame, features="image", label=Labels(column="label"), shapes={"image": size})


def schema_of(shape: Shape) -> dict[str, Column]:
    """What pictures of this shape and their labels are as records."""
    return {"data": Column(np.dtype(np.uint8), shape), "label": Column(np.dtype(np.int64))}


def drain_blocks(blocks: Iterable[Shard | Row], schema: Mapping[str, Column], limit: MemoryLimit) -> Shard:
    """All records of a partition of an RDD: of ``Examples`` or ``Records``, or of rows (image, label).

    The records of a single block that has room in memory are not copied. Raises DataError for rows that do
    not fit ``schema``.
    """
    arriving = iter(blocks)
    first = next(arriving, None)
    if not isinstance(first, Examples | Records):
        rows = chain([] if first is None else [first], cast("Iterator[Row]", arriving))
        return collect(_row_blocks(rows, schema), schema, limit)
    more = [block for block in [next(arriving, None)] if block is not None]
    if not more and first.nbytes <= limit.memory_bytes:
        return first
    rest = cast("Iterator[Shard]", chain([first, *more], arriving))
    own = {name: Column.of(array) for name, array in first.columns.items()}
    return collect((block.columns for block in rest), own, limit)


def drain_batches(
    batches: Iterable[pa.RecordBatch], selection: ColumnSelection, limit: MemoryLimit, partition: int = 0
) -> Records:
    """All records of a partition that comes as Arrow batches of what ``selection`` chose.

    Raises DataError naming partition, row and value for one that cannot be.
    """
    return collect(selection.blocks(batches, partition), selection.schema, limit)


def _check_sizes(sizes: NDArray[Any], shape: tuple[int, ...], item: int) -> None:
    """All pictures must have as many bytes as ``shape`` asks for, at ``item`` bytes each."""
    width = int(np.prod(shape)) * item
    if (sizes != width).any():
        wrong, due = sizes[sizes != width][0], " x ".join(map(str, (*shape, item) if item > 1 else shape))
        raise DataError(f"a picture has {wrong:,} bytes where {due} = {width:,} are due")


def _row_blocks(rows: Iterator[Row], schema: Mapping[str, Column]) -> Iterator[dict[str, NDArray[Any]]]:
    shape = schema["data"].shape
    while block := list(islice(rows, _ROWS)):
        images, labels = zip(*block, strict=True)
        if isinstance(images[0], bytes | bytearray | memoryview):
            _check_sizes(np.fromiter(map(len, images), np.int64, len(images)), shape, 1)
            pixels = np.frombuffer(b"".join(images), np.uint8)
        else:
            pixels = np.asarray(images, np.uint8 if np.asarray(images[0]).dtype == np.uint8 else np.float32)
            _check_sizes(np.array([pixels[0].nbytes]), shape, pixels.itemsize)
        yield {"data": pixels.reshape(len(images), *shape), "label": np.array(labels, np.int64)}
