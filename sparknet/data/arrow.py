"""Arrow columns to arrays of numbers, and what is wrong with a value that is none.

    Numbers(dtype, shape)     int, float, bool or decimal, or (nested) lists of them
    Bytes(shape)              binary: uint8, as many bytes as the shape has places; files of pictures, too
    Vectors(size)             ML vectors, dense and sparse: float32 (size,)
    Pictures(shape)           Spark's image struct: uint8 (c, h, w), in the order blue, green, red
    Names(values)             strings: the place of each in ``values``, int64
    Classes(count, shape)     whole numbers from 0 to count - 1: int64
    Weights()                 numbers that are not negative: float32

A reader is made once, in the driver, travels, and reads batch after batch: ``read(array)`` is (n, *shape).
A value that is missing, not finite or of another size raises ``BadValue``, which knows its row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sparknet.data.decoding import Decoding, decode, is_encoded
from sparknet.data.records import IGNORED, Column
from sparknet.errors import DataError

_DENSE = 1  # the ``type`` of an ML vector


class BadValue(Exception):  # noqa: N818 - it says what it is about
    """``row`` of the array has ``found``, where ``wanted`` is needed."""

    def __init__(self, row: int, found: str, wanted: str) -> None:
        super().__init__(f"row {row} is {found}: {wanted} is needed")
        self.row, self.found, self.wanted = row, found, wanted


class Reader(Protocol):
    """Reads one Arrow column."""

    @property
    def column(self) -> Column: ...

    def read(self, array: pa.Array) -> NDArray[Any]:
        """(n, *shape), possibly a view of the Arrow memory. Raises BadValue."""
        ...


@dataclass(frozen=True)
class Numbers:
    """Numbers or lists of them as ``dtype``; ``shape`` is () for single numbers."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...] = ()

    @property
    def column(self) -> Column:
        return Column(self.dtype, self.shape)

    def read(self, array: pa.Array) -> NDArray[Any]:
        values, count = array, len(array)
        width = 1
        for length in self.shape:
            values = _elements(values, length, width)
            width *= length
        numbers = _numbers(values, width, self.dtype)
        return numbers.reshape(count, *self.shape)


@dataclass(frozen=True)
class Bytes:
    """Binary values of ``shape`` bytes each, without a copy.

    Where they are the files of pictures (JPEG, PNG, ...), as ``binaryFile`` gives them, and ``shape`` is
    (channels, height, width), they are decoded at that size.
    """

    shape: tuple[int, ...]

    @property
    def column(self) -> Column:
        return Column(np.dtype(np.uint8), self.shape)

    def read(self, array: pa.Array) -> NDArray[np.uint8]:
        _refuse_nulls(array, 1)
        if not len(array):
            return np.zeros((0, *self.shape), np.uint8)
        width = int(np.prod(self.shape))
        _, offset_bytes, data = array.buffers()
        offsets = np.frombuffer(offset_bytes, _offsets_of(array.type))
        offsets = offsets[array.offset : array.offset + len(array) + 1]
        sizes = np.diff(offsets)
        if self._are_files(array, sizes):
            return np.stack([self._decoded(row, value.as_py()) for row, value in enumerate(array)])
        _refuse_sizes(sizes, width, 1, "{:,} bytes", f"{' x '.join(map(str, self.shape))} = {width:,}")
        pixels = np.frombuffer(data, np.uint8)[int(offsets[0]) : int(offsets[0]) + len(array) * width]
        return pixels.reshape(len(array), *self.shape)

    def _are_files(self, array: pa.Array, sizes: NDArray[Any]) -> bool:
        """Whether the first value that is not as long as pixels would be is a picture's file."""
        other = np.flatnonzero(sizes != int(np.prod(self.shape)))
        picture = len(self.shape) == 3 and self.shape[0] in (1, 3)
        return bool(picture and len(other) and is_encoded(array[int(other[0])].as_py()))

    def _decoded(self, row: int, value: bytes) -> NDArray[np.uint8]:
        channels, height, width = self.shape
        how = Decoding(size=(height, width), channels=1 if channels == 1 else 3)
        try:
            return decode(value, "bytes", how)
        except DataError as error:
            raise BadValue(row, str(error), "a picture") from None


@dataclass(frozen=True)
class Vectors:
    """ML vectors of ``size`` numbers as float32; sparse ones are filled up with zeros."""

    size: int

    @property
    def column(self) -> Column:
        return Column(np.dtype(np.float32), (self.size,))

    def read(self, array: pa.Array) -> NDArray[np.float32]:
        _refuse_nulls(array, 1)
        dense = array.field("type").to_numpy(zero_copy_only=False) == _DENSE
        values = Numbers(np.dtype(np.float32), (self.size,))
        if dense.all():
            return values.read(array.field("values"))
        rows = np.zeros((len(array), self.size), np.float32)
        if dense.any():
            rows[dense] = values.read(array.field("values").filter(pa.array(dense)))
        where = np.flatnonzero(~dense)
        self._fill(rows, where, array.take(pa.array(where)))
        return rows

    def _fill(self, rows: NDArray[np.float32], where: NDArray[np.int64], sparse: pa.Array) -> None:
        sizes = sparse.field("size").to_numpy(zero_copy_only=False)
        try:
            _refuse_sizes(sizes, self.size, 1, "a vector of {:,} numbers", f"{self.size:,}")
        except BadValue as error:
            raise BadValue(int(where[error.row]), error.found, error.wanted) from None
        lengths = pc.list_value_length(sparse.field("indices")).to_numpy(zero_copy_only=False)
        places = sparse.field("indices").flatten().to_numpy(zero_copy_only=False)
        owners = np.repeat(where, lengths)
        numbers = sparse.field("values").flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        _refuse_infinite(numbers, lambda place: int(owners[place]))
        rows[owners, places] = numbers


@dataclass(frozen=True)
class Pictures:
    """Spark's ``image`` struct, all of them as large as ``shape`` (c, h, w)."""

    shape: tuple[int, int, int]

    @property
    def column(self) -> Column:
        return Column(np.dtype(np.uint8), self.shape)

    def read(self, array: pa.Array) -> NDArray[np.uint8]:
        _refuse_nulls(array, 1)
        channels, height, width = self.shape
        for name, due in (("nChannels", channels), ("height", height), ("width", width)):
            sizes = array.field(name).to_numpy(zero_copy_only=False)
            _refuse_sizes(sizes, due, 1, f"a picture of {name} {{:,}}", f"{name} {due}")
        rows = Bytes((height, width, channels)).read(array.field("data"))
        return np.ascontiguousarray(rows.transpose(0, 3, 1, 2))


@dataclass(frozen=True)
class Names:
    """Strings that stand for classes: ``values`` in the order of the classes."""

    values: tuple[str, ...]

    @property
    def column(self) -> Column:
        return Column(np.dtype(np.int64))

    @cached_property
    def _set(self) -> pa.Array:
        return pa.array(self.values, pa.string())

    def __getstate__(self) -> dict[str, Any]:
        return {"values": self.values}

    def read(self, array: pa.Array) -> NDArray[np.int64]:
        _refuse_nulls(array, 1)
        places = pc.index_in(array.cast(pa.string()), self._set)
        if places.null_count:
            row = int(np.flatnonzero(places.is_null().to_numpy(zero_copy_only=False))[0])
            some = ", ".join(self.values[:10]) + (", ..." if len(self.values) > 10 else "")
            raise BadValue(row, repr(array[row].as_py()), f"one of {some}")
        numbers: NDArray[np.int64] = places.to_numpy(zero_copy_only=False).astype(np.int64)
        return numbers


@dataclass(frozen=True)
class Classes:
    """Whole numbers from 0 to ``count`` - 1, of any numeric type; no upper limit if ``count`` is 0.

    In sequences and masks ``IGNORED`` stands for a place that does not count, as in torch's cross entropy.
    """

    count: int = 0
    shape: tuple[int, ...] = ()

    @property
    def column(self) -> Column:
        return Column(np.dtype(np.int64), self.shape)

    def read(self, array: pa.Array) -> NDArray[np.int64]:
        exact = pa.types.is_integer(_leaf(array.type))
        found = Numbers(np.dtype(np.int64 if exact else np.float64), self.shape).read(array)
        labels: NDArray[np.int64] = found.astype(np.int64, copy=False)
        wrong = (labels < 0) | ((labels >= self.count) if self.count else False) | (labels != found)
        if self.shape:
            wrong &= labels != IGNORED
        if wrong.any():
            place = int(np.flatnonzero(wrong)[0])
            row = place // max(1, int(np.prod(self.shape)))
            upper = f"0 to {self.count - 1:,}" if self.count else "0, 1, 2, ..."
            raise BadValue(row, f"{found.reshape(-1)[place]:g}", f"a class, {upper},")
        return labels


@dataclass(frozen=True)
class Weights:
    """What each record counts: numbers from 0 on, as float32."""

    @property
    def column(self) -> Column:
        return Column(np.dtype(np.float32))

    def read(self, array: pa.Array) -> NDArray[np.float32]:
        weights: NDArray[np.float32] = Numbers(np.dtype(np.float32)).read(array)
        if (weights < 0).any():
            row = int(np.flatnonzero(weights < 0)[0])
            raise BadValue(row, f"{weights[row]:g}", "a weight from 0 on")
        return weights


def _offsets_of(kind: pa.DataType) -> type[np.int32 | np.int64]:
    return np.int64 if pa.types.is_large_binary(kind) else np.int32


def _leaf(kind: pa.DataType) -> pa.DataType:
    while pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        kind = kind.value_type
    return kind


def _elements(lists: pa.Array, length: int, width: int) -> pa.Array:
    """What is in ``lists``, each of which must have ``length`` elements; ``width`` of them are a row."""
    _refuse_nulls(lists, width)
    if not len(lists):
        return lists.values[:0] if hasattr(lists, "values") else lists.flatten()
    if pa.types.is_fixed_size_list(lists.type):
        _refuse_sizes(np.array([lists.type.list_size]), length, width, "a list of {:,}", f"{length:,}")
        return lists.flatten()
    offsets = lists.offsets.to_numpy()
    _refuse_sizes(np.diff(offsets), length, width, "a list of {:,} elements", f"{length:,}")
    return lists.values[int(offsets[0]) : int(offsets[-1])]


def _numbers(values: pa.Array, width: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    _refuse_nulls(values, width)
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.float64())
    found = values.to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore", invalid="ignore"):
        numbers: NDArray[Any] = found.astype(dtype, copy=False)
    if dtype.kind == "f":
        _refuse_infinite(numbers, lambda place: place // width)
    return numbers


def _refuse_nulls(array: pa.Array, width: int) -> None:
    if array.null_count:
        place = int(np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False))[0])
        raise BadValue(place // width, "NULL", "a value")


def _refuse_infinite(numbers: NDArray[Any], row: Callable[[int], int]) -> None:
    good = np.isfinite(numbers)
    if not good.all():
        place = int(np.flatnonzero(~good)[0])
        raise BadValue(row(place), str(numbers[place]), "a finite number")


def _refuse_sizes(sizes: NDArray[Any], due: int, width: int, found: str, wanted: str) -> None:
    wrong = np.flatnonzero(sizes != due)
    if len(wrong):
        raise BadValue(int(wrong[0]) // width, found.format(int(sizes[wrong[0]])), wanted)
