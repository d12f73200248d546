"""Sources of records and DataFrames, turned into each other.

frame = frame_of_source(spark, open_source("photos_lmdb"))      read by the tasks, where they run
source = source_of_frame(frame)                                 for sparknet.db.create
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import BinaryType, FloatType, LongType, StringType, StructField, StructType

from sparknet.errors import DataError
from sparknet.sources.parquet import Shape, sample_of
from sparknet.sources.pictures import PictureSource, Sample
from sparknet.sources.source import Part, Source

IMAGE, LABEL = "image", "label"


def frame_of_source(spark: SparkSession, source: Source, partitions: int | None = None) -> DataFrame:
    """A row for each record: ``image``, binary with its shape in the column's metadata, and ``label``.

    Raises DataError for a source that has no pictures.
    """
    schema = source.schema
    if IMAGE not in schema or schema[IMAGE].dtype != np.uint8:
        raise DataError(f"{source.name}: there are no pictures of bytes in it")
    fields = [StructField(IMAGE, BinaryType(), False, {"shape": list(schema[IMAGE].shape)})]
    if LABEL in schema:
        kind = LongType() if schema[LABEL].dtype == np.int64 else FloatType()
        fields.append(StructField(LABEL, kind, False))
    count = partitions or spark.sparkContext.defaultParallelism
    parts = spark.sparkContext.parallelize(list(source.parts(count)), count)
    return spark.createDataFrame(parts.flatMap(_rows), StructType(fields))


def source_of_frame(frame: DataFrame) -> PictureSource:
    """The rows of a DataFrame as labelled pictures, in the order of its partitions; for
    ``sparknet.db.create``.

    ``image`` is binary, files or raw bytes whose shape the column's metadata say, or Spark's image struct;
    ``label`` is a number, or a string. A database that is to be gone on with after a kill needs a
    DataFrame that gives the same rows in the same order again. Raises DataError for other columns.
    """
    if IMAGE not in frame.columns:
        raise DataError(f"the DataFrame has the columns {', '.join(frame.columns)}: image is needed")
    field = frame.schema[IMAGE]
    if not isinstance(field.dataType, BinaryType | StructType):
        raise DataError(
            f"the column image is {field.dataType.simpleString()}: binary, or Spark's image struct"
        )
    told = field.metadata.get("shape")
    shape = None if told is None else (told[0], told[1], told[2])
    has_label = LABEL in frame.columns
    names = None
    if has_label and isinstance(frame.schema[LABEL].dataType, StringType):
        rows = frame.select(LABEL).distinct().collect()
        names = tuple(sorted(row[0] for row in rows if row[0] is not None))
    chosen = frame.select(IMAGE, LABEL) if has_label else frame.select(IMAGE)
    samples = FrameSamples(chosen, frame.count(), shape, names)
    return PictureSource(f"{len(samples):,} pictures from a DataFrame", samples, classes=names)


@dataclass(frozen=True, eq=False)
class FrameSamples:
    """The rows of a DataFrame, which the driver reads partition by partition."""

    is_sequential: ClassVar[bool] = True

    frame: DataFrame
    count: int
    shape: Shape | None
    names: tuple[str, ...] | None

    def __len__(self) -> int:
        return self.count

    def part(self, which: slice) -> Iterator[Sample]:
        places = {name: number for number, name in enumerate(self.names or ())}
        rows = self.frame.limit(which.stop) if which.stop < self.count else self.frame
        for number, row in enumerate(islice(rows.toLocalIterator(), which.start, which.stop), which.start):
            label = row[1] if len(row) > 1 else None
            label = places.get(label) if isinstance(label, str) else label
            value = row[0].asDict() if hasattr(row[0], "asDict") else row[0]
            yield sample_of(
                bytes(value) if isinstance(value, bytearray) else value,
                label,
                f"DataFrame row {number}",
                self.shape,
            )


def _rows(part: Part) -> Iterator[tuple[object, ...]]:
    for block in part.blocks():
        images = (image.tobytes() for image in block[IMAGE])
        if LABEL in block:
            yield from zip(images, block[LABEL].tolist(), strict=True)
        else:
            yield from zip(images)
