"""Training data for Spark, and back: arrays to an RDD or a DataFrame, a partition to one contiguous array.

from_examples       one block of records for each worker: the quickest, for sets the driver can hold
frame_of            a DataFrame of ``image`` (binary, c * h * w bytes) and ``label`` (bigint)
drain_blocks, drain_batches   in a task: everything a partition has, as ``Examples`` in memory or on disk
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import RDD
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import BinaryType, LongType, StructField, StructType

from sparknet.data import Examples, contiguous
from sparknet.data.dataset import Indices, Pixels
from sparknet.data.growable import MemoryLimit, collect
from sparknet.errors import DataError

Shape = tuple[int, int, int]
Row = tuple[Any, int]
"""An image and its label: c * h * w bytes, or an array (c, h, w) of uint8 or floats."""

# One pickle frame holds a shard, and Java arrays end at 2 GiB.
_SHARD_LIMIT = 1 << 30
# Rows of an RDD that are turned into an array together.
_ROWS = 1000


def from_examples(spark: SparkSession, examples: Examples, workers: int) -> RDD[Examples]:
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


def drain_blocks(blocks: Iterable[Examples | Row], shape: Shape, limit: MemoryLimit) -> Examples:
    """All records of a partition of an RDD: of ``Examples``, or of rows (image, label), a batch at a time.

    The records of a single block that has room in memory are not copied. Raises DataError as
    ``drain_batches`` does.
    """
    arriving = iter(blocks)
    first = next(arriving, None)
    if not isinstance(first, Examples):
        rows = chain([] if first is None else [first], cast("Iterator[Row]", arriving))
        return collect(_row_blocks(rows, shape), shape, limit)
    more = [block for block in [next(arriving, None)] if block is not None]
    if not more and first.images.nbytes <= limit.memory_bytes:
        return first
    rest = cast("Iterator[Examples]", chain([first, *more], arriving))
    return collect(((block.images, block.labels) for block in rest), shape, limit)


def drain_batches(batches: Iterator[pa.RecordBatch], shape: Shape, limit: MemoryLimit) -> Examples:
    """All records of a partition that comes as Arrow batches of ``image`` and ``label``.

    Raises DataError for pictures of another size and for missing values.
    """
    blocks = (
        (pixels_of(batch.column("image"), shape), _labels(batch.column("label")))
        for batch in batches
        if batch.num_rows
    )
    return collect(blocks, shape, limit)


def pixels_of(column: pa.Array, shape: Shape) -> Pixels:
    """(n, c, h, w), without a copy: uint8 of a binary column, float32 of one of lists of floats."""
    if column.null_count:
        raise DataError(f"{column.null_count} of {len(column)} records have no image")
    dtype, offset_dtype = _dtypes(column.type)
    _, offset_bytes, *_, data = column.buffers()
    offsets = np.frombuffer(offset_bytes, offset_dtype)[column.offset : column.offset + len(column) + 1]
    width = int(np.prod(shape))
    _check_sizes(np.diff(offsets) * dtype.itemsize, shape, dtype.itemsize)
    first = int(offsets[0])
    if dtype != np.uint8:
        if column.values.null_count:
            raise DataError("there are pictures with missing values")
        first += column.values.offset
    pixels = np.frombuffer(data, dtype)[first : first + len(column) * width]
    return cast("Pixels", pixels.reshape(len(column), *shape))


def _dtypes(kind: pa.DataType) -> tuple[np.dtype[Any], type[np.int32 | np.int64]]:
    """What the elements of an image are, and what the offsets of the images."""
    offsets = np.int64 if pa.types.is_large_binary(kind) or pa.types.is_large_list(kind) else np.int32
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return np.dtype(np.uint8), offsets
    if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_float32(kind.value_type):
        return np.dtype(np.float32), offsets
    raise DataError(f"the column image is {kind}: binary or array<float> is needed")


def _check_sizes(sizes: NDArray[Any], shape: Shape, item: int) -> None:
    """All pictures must have as many bytes as ``shape`` asks for, at ``item`` bytes each."""
    width = int(np.prod(shape)) * item
    if (sizes != width).any():
        wrong, due = sizes[sizes != width][0], " x ".join(map(str, (*shape, item) if item > 1 else shape))
        raise DataError(f"a picture has {wrong:,} bytes where {due} = {width:,} are due")


def _row_blocks(rows: Iterator[Row], shape: Shape) -> Iterator[tuple[Pixels, Indices]]:
    while block := list(islice(rows, _ROWS)):
        images, labels = zip(*block, strict=True)
        if isinstance(images[0], bytes | bytearray | memoryview):
            _check_sizes(np.fromiter(map(len, images), np.int64, len(images)), shape, 1)
            pixels = np.frombuffer(b"".join(images), np.uint8)
        else:
            pixels = np.asarray(images, np.uint8 if np.asarray(images[0]).dtype == np.uint8 else np.float32)
            _check_sizes(np.array([pixels[0].nbytes]), shape, pixels.itemsize)
        yield cast("Pixels", pixels.reshape(len(images), *shape)), np.array(labels, np.int64)


def _labels(column: pa.Array) -> NDArray[np.int64]:
    if column.null_count:
        raise DataError(f"{column.null_count} of {len(column)} records have no label")
    labels: NDArray[np.int64] = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return labels
