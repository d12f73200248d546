"""Which columns of a DataFrame become which input of a net, decided and checked before a job starts.

    features="pixels"                            one column is the net's only input; a number is (n,)
    features=["age", "height", "vector"]         several side by side, flattened, float32: (n, width)
    features={"data": "pixels", "clip": "clip"}  columns by the names of the net's inputs

A feature is binary (uint8), a number, an array (nested too), an ML vector, dense or sparse, or Spark's
``image`` struct; a label is a class (a whole number of any type, or a string), a number, or an array of
either. Sizes that neither metadata nor the caller tells are those of the first row.

    wanted = select(frame, features=["x", "y"], label=Labels("kind", "classes"))
    wanted.schema                    {"data": float32 (2,), "label": int64 ()}
    frame.select(wanted.columns)     what has to be read, in the order in which ``wanted.read`` expects it
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import Column as SparkColumn
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    DataType,
    DecimalType,
    FractionalType,
    IntegralType,
    StringType,
    StructField,
    StructType,
    UserDefinedType,
)

from sparknet.data.arrow import BadValue, Bytes, Classes, Names, Numbers, Pictures, Reader, Vectors, Weights
from sparknet.data.records import Column
from sparknet.errors import DataError, UsageError
from sparknet.objectives import LabelKind
from sparknet.spark.fields import find

Features = str | Sequence[str] | Mapping[str, str | Sequence[str]]
"""A column, several side by side, or either for each input of the net by its name."""

Shape = tuple[int, ...]

FLOAT, INTEGER = np.dtype(np.float32), np.dtype(np.int64)
FEATURES = "a number, an array or vector of numbers, binary or an image"
# Strings that stand for more classes than this are names of records, most likely.
_MOST_CLASSES = 100_000


class Frame(Protocol):
    """What is needed of a DataFrame, classic or of Spark Connect."""

    @property
    def schema(self) -> StructType: ...

    def select(self, *columns: Any) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The column of labels and how they are understood.

    ``count`` is the number of classes (0: not known); ``names`` are those of strings, in the order of the
    classes, found in the data if there are none.
    """

    column: str
    kind: LabelKind = "any"
    count: int = 0
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A column of the DataFrame as ``reader`` reads it, made ``shape`` afterwards.

    ``reference`` is its name as Spark's ``col`` takes it, where that is another.
    """

    name: str
    reader: Reader
    shape: Shape
    reference: str = ""

    def read(self, array: pa.Array) -> NDArray[Any]:
        return self.reader.read(array).reshape(len(array), *self.shape)


@dataclass(frozen=True)
class Input:
    """One input of the net, of one column, or of several side by side (n, width)."""

    name: str
    parts: tuple[Part, ...]
    dtype: np.dtype[Any]

    @property
    def column(self) -> Column:
        if len(self.parts) == 1:
            return Column(self.dtype, self.parts[0].shape)
        return Column(self.dtype, (sum(math.prod(part.shape) for part in self.parts),))

    def read(self, arrays: Sequence[pa.Array]) -> NDArray[Any]:
        """(n, ...) of ``dtype``. Raises WrongRow for a value that cannot be."""
        blocks = [_read(part, array) for part, array in zip(self.parts, arrays, strict=True)]
        if len(blocks) == 1:
            return blocks[0].astype(self.dtype, copy=False)
        count, width = len(arrays[0]), self.column.shape[0]
        if all(part.shape in ((), (1,)) for part in self.parts):  # a column at a time, and turned at the end
            columns = np.empty((width, count), self.dtype)
            for column, block in zip(columns, blocks, strict=True):
                column[...] = block.reshape(count)
            return np.ascontiguousarray(columns.T)
        rows, start = np.empty((count, width), self.dtype), 0
        for part, block in zip(self.parts, blocks, strict=True):
            end = start + math.prod(part.shape)
            rows[:, start:end] = block.reshape(count, end - start)
            start = end
        return rows


class WrongRow(Exception):  # noqa: N818
    """A value of ``column`` in ``row`` of a block that cannot be used."""

    def __init__(self, column: str, error: BadValue) -> None:
        super().__init__(f"column {column}, row {error.row}: {error.found}, but {error.wanted} is needed")
        self.column, self.row, self.found, self.wanted = column, error.row, error.found, error.wanted

    def at(self, partition: int, before: int) -> DataError:
        """The error that names the row in its partition, ``before`` rows of which came earlier."""
        return DataError(
            f"column {self.column}, partition {partition}, row {before + self.row}: {self.found}, but "
            f"{self.wanted} is needed"
        )


@dataclass(frozen=True, kw_only=True)
class ColumnSelection:
    """All that is read of a DataFrame; pickles. ``names`` are the strings that classes stand for."""

    inputs: tuple[Input, ...]
    label: Input | None = None
    weight: Input | None = None
    names: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[Input, ...]:
        return (*self.inputs, *(extra for extra in (self.label, self.weight) if extra))

    @property
    def label_column(self) -> str:
        """What the labels are called in the DataFrame."""
        return self.label.parts[0].name if self.label else ""

    @property
    def sources(self) -> list[str]:
        """The columns that are read, in order, by their names for Spark; one used twice is there twice."""
        return [part.reference or part.name for each in self.all for part in each.parts]

    @property
    def columns(self) -> list[SparkColumn]:
        """For ``DataFrame.select``: the sources under names of their own."""
        return [F.col(name).alias(f"c{place}") for place, name in enumerate(self.sources)]

    @property
    def schema(self) -> dict[str, Column]:
        """What the records have, by the names that the net knows."""
        return {each.name: each.column for each in self.all}

    def read(self, arrays: Sequence[pa.Array]) -> dict[str, NDArray[Any]]:
        """The columns of a block, in the order of ``columns``, as arrays by name. Raises WrongRow."""
        found, start = {}, 0
        for each in self.all:
            found[each.name] = each.read(arrays[start : start + len(each.parts)])
            start += len(each.parts)
        return found

    def blocks(self, batches: Iterable[pa.RecordBatch], partition: int) -> Iterator[dict[str, NDArray[Any]]]:
        """The blocks of a partition. Raises DataError with partition and row for a value that cannot be."""
        before = 0
        for batch in batches:
            if batch.num_rows:
                try:
                    yield self.read(batch.columns)
                except WrongRow as error:
                    raise error.at(partition, before) from None
                before += batch.num_rows

    def as_floats(self) -> ColumnSelection:
        """The same with whole numbers among the features as float32, for a net that computes with them."""
        return replace(
            self,
            inputs=tuple(replace(one, dtype=FLOAT) if one.dtype == INTEGER else one for one in self.inputs),
        )


def select(
    frame: Frame,
    *,
    features: Features,
    label: Labels | None = None,
    weight: str | None = None,
    shapes: Mapping[str, Shape] | None = None,
    first: str = "data",
) -> ColumnSelection:
    """Decide how ``frame`` is read; the only input is named ``first`` unless ``features`` names it.

    ``shapes`` says how large the values of a column are, as binary columns need it. Raises DataError naming
    the column, its type and the type that is needed.
    """
    look = _Look(frame, shapes or {})
    named = features if isinstance(features, Mapping) else {first: features}
    inputs = tuple(look.referred(_input(name, columns, look)) for name, columns in named.items())
    target, names = _label(label, look) if label else (None, ())
    return ColumnSelection(
        inputs=inputs,
        label=look.referred(target) if target else None,
        weight=look.referred(_weight(weight, look)) if weight else None,
        names=names,
    )


def _listed(columns: str | Sequence[str]) -> list[str]:
    listed = [columns] if isinstance(columns, str) else list(columns)
    if not listed:
        raise UsageError("no feature column is named: give at least one")
    return listed


class _Look:
    """What can be known of the columns of a frame."""

    def __init__(self, frame: Frame, shapes: Mapping[str, Shape]) -> None:
        self.frame, self._shapes, self._schema = frame, shapes, frame.schema

    def field(self, name: str) -> StructField:
        """Raises DataError for a column that is not there."""
        return find(self._schema, name).field

    def column(self, name: str) -> SparkColumn:
        return F.col(find(self._schema, name).reference)

    def values(self, name: str) -> Any:
        """A DataFrame of all values that are not NULL."""
        return self.frame.select(self.column(name).alias("value")).where("value IS NOT NULL")

    def referred(self, each: Input) -> Input:
        """The same with the names that Spark needs."""
        parts = (replace(part, reference=find(self._schema, part.name).reference) for part in each.parts)
        return replace(each, parts=tuple(parts))

    def shape(self, name: str) -> Shape | None:
        """What was given, or what the metadata says."""
        if name in self._shapes:
            return tuple(self._shapes[name])
        metadata = self.field(name).metadata or {}
        size = metadata.get("ml_attr", {}).get("num_attrs")
        found = metadata.get("shape") or ([size] if size else None)
        return tuple(found) if found else None

    def first(self, name: str) -> Any:
        """The first value that is not NULL. Raises DataError if there is none."""
        rows = self.values(name).limit(1).collect()
        if not rows:
            raise DataError(f"column {name} has no values: the DataFrame has no rows, or they are all NULL")
        return rows[0][0]


def _input(name: str, columns: str | Sequence[str], look: _Look) -> Input:
    parts = tuple(_feature(column, look) for column in _listed(columns))
    if len(parts) == 1 and not isinstance(columns, str) and not parts[0].shape:
        parts = (replace(parts[0], shape=(1,)),)  # a table of one column is one, too
    kinds = {part.reader.column.dtype for part in parts}
    return Input(name, parts, kinds.pop() if len(parts) == 1 else FLOAT)


def _feature(name: str, look: _Look) -> Part:
    kind = look.field(name).dataType
    if isinstance(kind, BinaryType):
        return _bytes(name, look)
    if _is_vector(kind):
        size = (look.shape(name) or (len(look.first(name)),))[0]
        return Part(name, Vectors(size), (size,))
    if _is_image(kind):
        row = look.first(name)
        shape = (row["nChannels"], row["height"], row["width"])
        return Part(name, Pictures(shape), shape)
    whole = isinstance(_leaf(kind), IntegralType | BooleanType)
    return _numbers(name, look, INTEGER if whole else FLOAT, FEATURES)


def _bytes(name: str, look: _Look) -> Part:
    shape = look.shape(name)
    if shape is None:
        raise DataError(
            f"column {name} is binary and does not say how large its pictures are, or are to be: "
            f'give shapes={{"{name}": (channels, height, width)}}'
        )
    return Part(name, Bytes(shape), shape)


def _numbers(name: str, look: _Look, dtype: np.dtype[Any], wanted: str) -> Part:
    kind = look.field(name).dataType
    if not _is_number(_leaf(kind)):
        hint = " (StringIndexer makes numbers of strings)" if isinstance(_leaf(kind), StringType) else ""
        raise DataError(f"column {name} is {kind.simpleString()}: {wanted} is needed{hint}")
    told, depth = look.shape(name), _depth(kind)
    if not depth:
        return Part(name, Numbers(dtype), ())
    if told is None:
        told = _shape_of(look.first(name), depth)
    # a picture may lie in a plain list
    flat = told if depth == len(told) else (math.prod(told),)
    if len(flat) != depth:
        raise DataError(f"column {name} is {kind.simpleString()}, which cannot be of the shape {told}")
    return Part(name, Numbers(dtype, flat), told)


def _label(label: Labels, look: _Look) -> tuple[Input, tuple[str, ...]]:
    kind = look.field(label.column).dataType
    if isinstance(_leaf(kind), StringType) and label.kind != "numbers":
        if _depth(kind):
            raise DataError(f"column {label.column} is {kind.simpleString()}: one string a record is needed")
        names = label.names or _distinct(label.column, look)
        part = Part(label.column, Names(names), ())
        return Input("label", (part,), INTEGER), names
    if _is_vector(kind) and label.kind != "classes":
        part = _feature(label.column, look)
        return Input("label", (part,), FLOAT), ()
    whole = isinstance(_leaf(kind), IntegralType | BooleanType)
    wanted = {
        "classes": "a class, which is a whole number or a string,",
        "numbers": "a number or an array or vector of numbers",
        "any": "a number, an array of numbers or a string",
    }[label.kind]
    dtype = INTEGER if label.kind == "classes" or (label.kind == "any" and whole) else FLOAT
    part = _numbers(label.column, look, dtype, wanted)
    if label.kind == "classes":
        part = replace(part, reader=Classes(label.count, part.reader.column.shape))
    return Input("label", (part,), dtype), label.names


def _distinct(name: str, look: _Look) -> tuple[str, ...]:
    """The strings of a column, in the order of their characters."""
    rows = look.values(name).distinct().limit(_MOST_CLASSES + 1).collect()
    if not rows:
        look.first(name)
    if len(rows) > _MOST_CLASSES:
        raise DataError(
            f"column {name} has more than {_MOST_CLASSES:,} different strings: they cannot all be classes"
        )
    return tuple(sorted(row[0] for row in rows))


def _weight(name: str, look: _Look) -> Input:
    kind = look.field(name).dataType
    if not _is_number(kind):
        raise DataError(f"column {name} is {kind.simpleString()}: a weight is a number")
    return Input("weight", (Part(name, Weights(), ()),), FLOAT)


def _read(part: Part, array: pa.Array | pa.ChunkedArray) -> NDArray[Any]:
    try:
        return part.read(array)
    except BadValue as error:
        raise WrongRow(part.name, error) from None


def _shape_of(value: Any, depth: int) -> Shape:
    """How long a nested list is on each of its levels, by its first elements."""
    if not depth:
        return ()
    if not value:
        raise DataError("the first array is empty: arrays of one length are needed")
    return (len(value), *_shape_of(value[0], depth - 1))


def _leaf(kind: DataType) -> DataType:
    return _leaf(kind.elementType) if isinstance(kind, ArrayType) else kind


def _depth(kind: DataType) -> int:
    return 1 + _depth(kind.elementType) if isinstance(kind, ArrayType) else 0


def _is_number(kind: DataType) -> bool:
    return isinstance(kind, IntegralType | FractionalType | BooleanType | DecimalType)


def _is_vector(kind: DataType) -> bool:
    """Whether it is ML's vector, told by its name: its module brings pandas and half a second of imports, and
    whoever has a column of vectors has imported it already.
    """
    return isinstance(kind, UserDefinedType) and kind.simpleString() == "vector"


def _is_image(kind: DataType) -> bool:
    names = {"origin", "height", "width", "nChannels", "mode", "data"}
    return isinstance(kind, StructType) and names <= set(kind.names)
