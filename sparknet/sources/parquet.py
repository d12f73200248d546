"""Parquet: pictures in a column ``image``, with a column ``label``, or columns of numbers.

A picture is a binary column: encoded files, or raw bytes whose shape (channels, height, width) the file's
metadata say, as ``sparknet.spark.frame_of`` writes them, or ``shape``; or Spark's ``image`` struct; or a
struct of ``bytes`` and ``path``. Labels are whole numbers, or strings: classes in alphabetical order.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sparknet.data.arrow import BadValue, Bytes, Classes, Names, Numbers, Reader
from sparknet.data.decoding import is_encoded
from sparknet.data.records import Column
from sparknet.data.shards import contiguous
from sparknet.errors import DataError
from sparknet.sources import files
from sparknet.sources.pictures import Sample
from sparknet.sources.rows import Rows, cut
from sparknet.sources.source import Block, Part, records_of_a_block

ENDING = ".parquet"
IMAGE, LABEL = "image", "label"
SPARK_METADATA = b"org.apache.spark.sql.parquet.row.metadata"
_BATCH = 256

Shape = tuple[int, int, int]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PicturePart:
    """Rows with pictures: ``shape`` is that of raw bytes, ``names`` are the classes of string labels."""

    rows: tuple[Rows, ...]
    shape: Shape | None
    names: tuple[str, ...] | None
    has_label: bool

    def __iter__(self) -> Iterator[Sample]:
        places = {name: number for number, name in enumerate(self.names or ())}
        columns = [IMAGE, LABEL] if self.has_label else [IMAGE]
        for url, first, batch in _batches(self.rows, columns, _BATCH):
            for k, row in enumerate(batch.to_pylist()):
                name = f"{url} row {first + k}"
                label = row.get(LABEL)
                if isinstance(label, str):
                    label = places.get(label)
                yield sample_of(row[IMAGE], label, name, self.shape)


@dataclass(frozen=True, eq=False)
class ParquetPictures:
    """All rows of some files with pictures, as samples."""

    is_sequential: ClassVar[bool] = True

    rows: tuple[Rows, ...]
    shape: Shape | None
    names: tuple[str, ...] | None
    has_label: bool

    def __len__(self) -> int:
        return sum(map(len, self.rows))

    def part(self, which: slice) -> PicturePart:
        return PicturePart(cut(self.rows, which), self.shape, self.names, self.has_label)


@dataclass(frozen=True)
class TablePart:
    """Rows of numbers."""

    rows: tuple[Rows, ...]
    readers: Mapping[str, Reader]

    def blocks(self) -> Iterator[Block]:
        """Raises DataError naming file, row and column of a value that cannot be."""
        size = records_of_a_block({name: reader.column for name, reader in self.readers.items()})
        for url, first, batch in _batches(self.rows, list(self.readers), size):
            block = {}
            for name, reader in self.readers.items():
                try:
                    block[name] = reader.read(batch.column(name))
                except BadValue as error:
                    place = f"{url} row {first + error.row}, column {name}"
                    raise DataError(f"{place}: {error.found} where {error.wanted} is needed") from None
            yield block


@dataclass(frozen=True, eq=False)
class ParquetTable:
    """A ``Source`` of the columns that are numbers, or lists of as many."""

    name: str
    rows: tuple[Rows, ...]
    readers: Mapping[str, Reader]
    classes: tuple[str, ...] | None = None

    @cached_property
    def schema(self) -> Mapping[str, Column]:
        return {name: reader.column for name, reader in self.readers.items()}

    def parts(self, count: int) -> Sequence[Part]:
        total = sum(map(len, self.rows))
        return [TablePart(cut(self.rows, which), self.readers) for which in contiguous(total, count)]


def rows_of(urls: Sequence[str]) -> tuple[Rows, ...]:
    """How many rows each file says it has. Raises DataError for a file that is damaged."""
    found = []
    for url in urls:
        with _reading(url) as file:
            found.append(Rows(url, 0, file.metadata.num_rows))
    return tuple(found)


def schema_at(url: str) -> pa.Schema:
    with _reading(url) as file:
        return file.schema_arrow


def has_pictures(schema: pa.Schema) -> bool:
    """Whether there is a column ``image`` of files or bytes."""
    if IMAGE not in schema.names:
        return False
    kind = schema.field(IMAGE).type
    return _is_binary(kind) or pa.types.is_struct(kind)


def pictures(rows: tuple[Rows, ...], shape: Shape | None) -> ParquetPictures:
    """The pictures in ``rows``; raw ones are of ``shape``, or of the one that the file's metadata say."""
    schema = schema_at(rows[0].url)
    has_label = LABEL in schema.names
    names = None
    if has_label and _is_text(schema.field(LABEL).type):
        names = _distinct(rows)
    elif has_label and not _is_number(schema.field(LABEL).type):
        raise DataError(f"{rows[0].url}: the column label is {schema.field(LABEL).type}, not numbers or text")
    return ParquetPictures(rows, shape or _told_shape(schema), names, has_label)


def table(name: str, rows: tuple[Rows, ...], columns: Sequence[str] | None) -> ParquetTable:
    """The columns of numbers in ``rows``: all of them, or those named. Raises DataError without any."""
    schema = schema_at(rows[0].url)
    missing = sorted(set(columns or ()) - set(schema.names))
    if missing:
        raise DataError(f"{rows[0].url} has no column {missing[0]}; it has {', '.join(schema.names)}")
    first = next(_batches(cut(rows, slice(0, 1)), list(columns or schema.names), 1), None)
    readers: dict[str, Reader] = {}
    classes = None
    for column in columns or schema.names:
        kind = schema.field(column).type
        if column == LABEL and _is_text(kind):
            classes = _distinct(rows)
            readers[column] = Names(classes)
            continue
        reader = _reader(
            column, kind, None if first is None else first[2].column(column), _told_shape(schema)
        )
        if reader is not None:
            readers[column] = reader
        elif columns is not None:
            raise DataError(f"{rows[0].url}: the column {column} is {kind}, not numbers or lists of them")
        else:
            log.info("the column %s of %s is left out: it is %s", column, rows[0].url, kind)
    if not readers:
        raise DataError(f"{rows[0].url} has no columns of numbers; it has {', '.join(schema.names)}")
    return ParquetTable(name, rows, readers, classes)


def _reader(name: str, kind: pa.DataType, first: pa.Array | None, told: Shape | None) -> Reader | None:
    """How a column is read, by its type and, for lists, the length of the first."""
    if _is_binary(kind) and told is not None:
        return Bytes(told)
    shape: list[int] = []
    value = first[0].as_py() if first is not None and len(first) else None
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        shape.append(len(value or ()))
        value, kind = (value[0] if value else None), kind.value_type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return Classes() if name == LABEL and not shape else Numbers(np.dtype(np.int64), tuple(shape))
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return Numbers(np.dtype(np.float32), tuple(shape))
    return None


def sample_of(value: Any, label: Any, name: str, shape: Shape | None) -> Sample:
    """The picture in a value of the column ``image``. Raises DataError, beginning with ``name``, for none."""
    if value is None:
        raise DataError(f"{name} has no image")
    key = name.rpartition("/")[2].replace(" row ", "-")
    if isinstance(value, dict) and "nChannels" in value:
        size = (value["height"], value["width"], value["nChannels"])
        pixels = np.frombuffer(value["data"], np.uint8)
        if pixels.size != np.prod(size):
            raise DataError(f"{name} has {pixels.size:,} bytes for a picture of {' x '.join(map(str, size))}")
        return Sample(name, key, pixels.reshape(size).transpose(2, 0, 1), label, "bgr")
    if isinstance(value, dict):
        value = value.get("bytes")
        if value is None:
            raise DataError(f"{name} has no bytes in its image")
    if shape is None or (is_encoded(value) and len(value) != np.prod(shape)):
        return Sample(name, key, value, label)
    if len(value) != np.prod(shape):
        due = " x ".join(map(str, shape))
        raise DataError(f"{name} has {len(value):,} bytes where {due} = {np.prod(shape):,} are due")
    return Sample(name, key, np.frombuffer(value, np.uint8).reshape(shape), label)


def _told_shape(schema: pa.Schema) -> Shape | None:
    """The shape of raw pictures that Spark keeps in the metadata of the column."""
    text = (schema.metadata or {}).get(SPARK_METADATA)
    fields = json.loads(text)["fields"] if text else []
    told = next((field["metadata"].get("shape") for field in fields if field["name"] == IMAGE), None)
    return None if told is None else (told[0], told[1], told[2])


def _distinct(rows: Sequence[Rows]) -> tuple[str, ...]:
    """The strings in the column of labels, in alphabetical order."""
    found: set[str] = set()
    for _, _, batch in _batches(rows, [LABEL], 1 << 16):
        found.update(value for value in pc.unique(batch.column(LABEL)).to_pylist() if value is not None)
    return tuple(sorted(found))


def _batches(
    rows: Sequence[Rows], columns: list[str], size: int
) -> Iterator[tuple[str, int, pa.RecordBatch]]:
    """(file, number of its first row, batch) of the rows, whose groups alone are read."""
    for span in rows:
        with _reading(span.url) as file:
            begins, begin = [], 0
            for group in range(file.num_row_groups):
                begins.append(begin)
                begin += file.metadata.row_group(group).num_rows
            ends = [*begins[1:], begin]
            wanted = [k for k in range(len(begins)) if begins[k] < span.stop and span.start < ends[k]]
            row = begins[wanted[0]] if wanted else 0
            for batch in file.iter_batches(size, row_groups=wanted, columns=columns):
                first, last = max(span.start - row, 0), min(span.stop - row, batch.num_rows)
                if first < last:
                    yield span.url, row + first, batch.slice(first, last - first)
                row += batch.num_rows


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


@contextmanager
def _reading(url: str) -> Iterator[Any]:
    try:
        with files.opened(url) as content, pq.ParquetFile(content, pre_buffer=False) as file:
            yield file
    except pa.ArrowException as error:
        raise DataError(f"{url} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
