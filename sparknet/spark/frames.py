"""Training data for Spark, and back: arrays to an RDD or a DataFrame, a partition to one contiguous array.

from_examples       one block of records for each worker: the quickest, for sets the driver can hold
frame_of            a DataFrame of ``image`` (binary, c * h * w bytes) and ``label`` (bigint)
drain_blocks, drain_batches   in a task: everything a partition has, as ``Examples``
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark import RDD
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import BinaryType, LongType, StructField, StructType

from sparknet.data import Examples, contiguous
from sparknet.errors import DataError

Shape = tuple[int, int, int]

# One pickle frame holds a shard, and Java arrays end at 2 GiB.
_SHARD_LIMIT = 1 << 30


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


def drain_blocks(blocks: Iterable[Examples], shape: Shape) -> Examples:
    """All records of a partition of ``from_examples``; those of a single block are not copied."""
    parts = list(blocks)
    if len(parts) == 1:
        return parts[0]
    return _joined([part.images for part in parts], [part.labels for part in parts], shape)


def drain_batches(batches: Iterator[pa.RecordBatch], shape: Shape) -> Examples:
    """All records of a partition that comes as Arrow batches of ``image`` and ``label``.

    Raises DataError for pictures of another size and for missing values.
    """
    images, labels = [], []
    for batch in batches:
        images.append(pixels_of(batch.column("image"), shape))
        labels.append(_labels(batch.column("label")))
    return _joined(images, labels, shape)


def pixels_of(column: pa.Array, shape: Shape) -> NDArray[np.uint8]:
    """uint8 (n, c, h, w), without a copy."""
    if column.null_count:
        raise DataError(f"{column.null_count} of {len(column)} records have no image")
    width = int(np.prod(shape))
    wide = pa.types.is_large_binary(column.type)
    _, offset_bytes, data = column.buffers()
    offsets = np.frombuffer(offset_bytes, np.int64 if wide else np.int32)
    offsets = offsets[column.offset : column.offset + len(column) + 1]
    sizes = np.diff(offsets)
    if (sizes != width).any():
        wrong, due = sizes[sizes != width][0], " x ".join(map(str, shape))
        raise DataError(f"a picture has {wrong:,} bytes where {due} = {width:,} are due")
    start = int(offsets[0])
    pixels = np.frombuffer(data, np.uint8)[start : start + len(column) * width]
    return pixels.reshape(len(column), *shape)


def _labels(column: pa.Array) -> NDArray[np.int64]:
    if column.null_count:
        raise DataError(f"{column.null_count} of {len(column)} records have no label")
    labels: NDArray[np.int64] = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return labels


def _joined(images: list[NDArray[np.uint8]], labels: list[NDArray[np.int64]], shape: Shape) -> Examples:
    if not images:
        return Examples(np.empty((0, *shape), np.uint8), np.empty(0, np.int64))
    return Examples(np.concatenate(images), np.concatenate(labels))
