"""Arrow columns become arrays of numbers; a value that is none is named by its row."""

from __future__ import annotations

import io
import math
import pickle
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from sparknet.data.arrow import (
    BadValue,
    Bytes,
    Classes,
    Names,
    Numbers,
    Pictures,
    Reader,
    Vectors,
    Weights,
)

FLOAT, WHOLE = np.dtype(np.float32), np.dtype(np.int64)
VECTOR = pa.struct(
    [
        ("type", pa.int8()),
        ("size", pa.int32()),
        ("indices", pa.list_(pa.int32())),
        ("values", pa.list_(pa.float64())),
    ]
)


def dense(*values: float | None) -> dict[str, Any]:
    return {"type": 1, "size": None, "indices": None, "values": list(values)}


def sparse(size: int, values: dict[int, float]) -> dict[str, Any]:
    return {"type": 0, "size": size, "indices": list(values), "values": list(values.values())}


def picture(channels: int, height: int, width: int) -> dict[str, Any]:
    data = bytes(range(channels * height * width))
    return {"origin": "", "height": height, "width": width, "nChannels": channels, "mode": 16, "data": data}


@pytest.mark.parametrize(
    "kind",
    [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.float32(), pa.float64()],
    ids=str,
)
def test_every_numeric_type_is_read_alike(kind: pa.DataType) -> None:
    assert Numbers(FLOAT).read(pa.array([1, 2, 3], kind)).tolist() == [1, 2, 3]
    nested = pa.array([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], pa.list_(pa.list_(kind)))
    found = Numbers(FLOAT, (2, 2)).read(nested)
    assert found.dtype == FLOAT
    assert found.tolist() == nested.to_pylist()


def test_decimals_and_truth_values_are_numbers() -> None:
    assert Numbers(FLOAT).read(pa.array([Decimal("1.5"), Decimal("-2.5")])).tolist() == [1.5, -2.5]
    assert Numbers(WHOLE).read(pa.array([True, False])).tolist() == [1, 0]


@pytest.mark.parametrize("start", [0, 1, 3])
def test_a_slice_of_a_column_is_read_from_its_own_first_row(start: int) -> None:
    lists = pa.array([[k, k + 0.5] for k in range(5)])[start:]
    assert Numbers(FLOAT, (2,)).read(lists).tolist() == [[k, k + 0.5] for k in range(start, 5)]
    strings = pa.array([bytes([k, k]) for k in range(5)])[start:]
    assert Bytes((2,)).read(strings).tolist() == [[k, k] for k in range(start, 5)]
    vectors = pa.array([sparse(3, {1: float(k)}) for k in range(5)], VECTOR)[start:]
    assert Vectors(3).read(vectors)[:, 1].tolist() == list(range(start, 5))


def test_dense_and_sparse_vectors_may_be_mixed() -> None:
    mixed = pa.array([sparse(3, {0: 1.0, 2: 2.0}), dense(3, 4, 5), sparse(3, {})], VECTOR)
    assert Vectors(3).read(mixed).tolist() == [[1, 0, 2], [3, 4, 5], [0, 0, 0]]
    assert Vectors(3).read(mixed[1:2]).tolist() == [[3, 4, 5]]


def test_pictures_of_spark_become_channels_first() -> None:
    found = Pictures((3, 2, 4)).read(pa.array([picture(3, 2, 4)]))
    assert found.shape == (1, 3, 2, 4)
    assert found[0, :, 1, 2].tolist() == [18, 19, 20]  # blue, green, red of one pixel lie side by side


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_files_of_pictures_are_decoded_at_the_size_that_is_wanted(kind: str) -> None:
    file = io.BytesIO()
    Image.new("RGB", (40, 20), (200, 100, 50)).save(file, kind)
    found = Bytes((3, 8, 8)).read(pa.array([file.getvalue(), file.getvalue()]))
    assert found.shape == (2, 3, 8, 8)
    assert np.abs(found[0].reshape(3, -1).astype(int) - [[200], [100], [50]]).max() <= 3
    with pytest.raises(BadValue, match="row 1 is bytes: not a picture"):
        Bytes((3, 8, 8)).read(pa.array([file.getvalue(), file.getvalue()[:30]]))


def test_names_are_classes_in_the_order_that_was_given() -> None:
    reader = Names(("cat", "dog"))
    assert reader.read(pa.array(["dog", "cat", "dog"])).tolist() == [1, 0, 1]
    assert pickle.loads(pickle.dumps(reader)).read(pa.array(["dog"])).tolist() == [1]


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.float64(), pa.float32()], ids=str)
def test_classes_are_whole_numbers_of_any_type(kind: pa.DataType) -> None:
    found = Classes(3).read(pa.array([0, 2, 1], kind))
    assert found.dtype == WHOLE
    assert found.tolist() == [0, 2, 1]


def test_a_place_of_a_sequence_may_be_left_out_of_account() -> None:
    assert Classes(3, (2,)).read(pa.array([[0, -100], [2, 1]])).tolist() == [[0, -100], [2, 1]]


@pytest.mark.parametrize(
    ("reader", "values", "row", "says"),
    [
        (Numbers(FLOAT), pa.array([1.0, None]), 1, "NULL"),
        (Numbers(FLOAT), pa.array([1.0, math.nan]), 1, "nan"),
        (Numbers(FLOAT), pa.array([1.0, 1e300]), 1, "inf"),
        (Numbers(FLOAT, (2,)), pa.array([[1, 2], [3]]), 1, "a list of 1 elements"),
        (Numbers(FLOAT, (2,)), pa.array([[1, 2], None]), 1, "NULL"),
        (Numbers(FLOAT, (2,)), pa.array([[1, 2], [3, None]]), 1, "NULL"),
        (Numbers(FLOAT, (2,)), pa.array([[1.0, 2], [3, math.inf]]), 1, "inf"),
        (Numbers(FLOAT, (1, 2)), pa.array([[[1, 2]], [[1]]]), 1, "a list of 1 elements"),
        (Numbers(FLOAT, (1, 2)), pa.array([[[1, 2]], []], pa.list_(pa.list_(pa.int64()))), 1, "0 elements"),
        (Bytes((2, 2)), pa.array([b"abcd", b"abc"]), 1, "3 bytes"),
        (Bytes((2, 2)), pa.array([b"abcd", None]), 1, "NULL"),
        (Vectors(2), pa.array([dense(1, 2), dense(1, 2, 3)], VECTOR), 1, "a list of 3 elements"),
        (Vectors(2), pa.array([dense(1, 2), sparse(3, {})], VECTOR), 1, "a vector of 3 numbers"),
        (Vectors(2), pa.array([dense(1, 2), None], VECTOR), 1, "NULL"),
        (Vectors(2), pa.array([sparse(2, {}), sparse(2, {1: math.nan})], VECTOR), 1, "nan"),
        (Pictures((3, 2, 4)), pa.array([picture(3, 2, 4), picture(3, 2, 5)]), 1, "a picture of width 5"),
        (Names(("a", "b")), pa.array(["a", "c"]), 1, "'c'"),
        (Names(("a", "b")), pa.array(["a", None]), 1, "NULL"),
        (Classes(3), pa.array([0, 3]), 1, "3"),
        (Classes(3), pa.array([0, -1]), 1, "-1"),
        (Classes(3), pa.array([0, 1.5]), 1, "1.5"),
        (Classes(), pa.array([0, -100]), 1, "-100"),
        (Weights(), pa.array([0, -0.5]), 1, "-0.5"),
    ],
)
def test_a_value_that_cannot_be_is_named_by_its_row(
    reader: Reader, values: pa.Array, row: int, says: str
) -> None:
    with pytest.raises(BadValue) as caught:
        reader.read(values)
    assert caught.value.row == row
    assert says in caught.value.found


@pytest.mark.parametrize(
    ("reader", "kind"),
    [
        (Numbers(FLOAT, (2, 3)), pa.list_(pa.list_(pa.float64()))),
        (Bytes((2, 3)), pa.binary()),
        (Vectors(6), VECTOR),
        (Names(("a",)), pa.string()),
        (Classes(3), pa.int32()),
    ],
)
def test_no_rows_are_an_empty_array_of_the_columns_shape(reader: Reader, kind: pa.DataType) -> None:
    found = reader.read(pa.array([], kind))
    assert found.shape == (0, *reader.column.shape)
    assert found.dtype == reader.column.dtype
