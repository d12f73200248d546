"""Columns are chosen, checked and read as a net wants them; nothing here needs Spark's Java."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyspark.ml.linalg import VectorUDT
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    BooleanType,
    ByteType,
    DataType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    ShortType,
    StringType,
    StructField,
    StructType,
)

from sparknet.data.arrow import Classes
from sparknet.errors import DataError, UsageError
from sparknet.spark.columns import Labels, select

IMAGE = StructType(
    [
        StructField("origin", StringType()),
        StructField("height", IntegerType()),
        StructField("width", IntegerType()),
        StructField("nChannels", IntegerType()),
        StructField("mode", IntegerType()),
        StructField("data", BinaryType()),
    ]
)


CUBES = ArrayType(ArrayType(FloatType()))


class Frame:
    """A DataFrame of which only the types are known."""

    def __init__(self, **kinds: DataType | tuple[DataType, dict[str, Any]]) -> None:
        pairs = {k: v if isinstance(v, tuple) else (v, None) for k, v in kinds.items()}
        self.schema = StructType([StructField(k, kind, True, note) for k, (kind, note) in pairs.items()])
        self.columns = list(kinds)

    def select(self, *columns: Any) -> Any:
        raise AssertionError("nothing needs to be looked at here")


NUMBERS = [ByteType(), ShortType(), IntegerType(), LongType(), FloatType(), DoubleType(), DecimalType(9, 2)]


@pytest.mark.parametrize("kind", [*NUMBERS, BooleanType()], ids=lambda kind: kind.simpleString())
def test_numbers_of_every_type_stand_side_by_side(kind: DataType) -> None:
    found = select(Frame(a=kind, b=DoubleType()), features=["a", "b"])
    assert str(found.schema["data"]) == "float32 (2)"


def test_one_number_is_a_table_of_one_column_where_a_list_is_given() -> None:
    frame = Frame(a=DoubleType())
    assert select(frame, features=["a"]).schema["data"].shape == (1,)
    assert select(frame, features="a").schema["data"].shape == ()
    found = select(frame, features=["a"]).read([pa.array([1.0, 2.0])])
    assert found["data"].tolist() == [[1], [2]]


def test_arrays_vectors_and_numbers_are_flattened_side_by_side() -> None:
    frame = Frame(
        n=LongType(),
        v=(VectorUDT(), {"ml_attr": {"num_attrs": 2}}),
        m=(ArrayType(ArrayType(IntegerType())), {"shape": [2, 2]}),
    )
    found = select(frame, features=["m", "n", "v"])
    vectors = pa.array(
        [{"type": 1, "size": None, "indices": None, "values": [8.0, 9.0]}],
        pa.struct(
            [
                ("type", pa.int8()),
                ("size", pa.int32()),
                ("indices", pa.list_(pa.int32())),
                ("values", pa.list_(pa.float64())),
            ]
        ),
    )
    read = found.read([pa.array([[[1, 2], [3, 4]]]), pa.array([5]), vectors])
    assert read["data"].tolist() == [[1, 2, 3, 4, 5, 8, 9]]


def test_whole_numbers_alone_stay_whole_until_a_net_wants_floats() -> None:
    found = select(Frame(t=(ArrayType(LongType()), {"shape": [3]})), features="t")
    assert found.schema["data"].dtype == np.int64
    assert found.as_floats().schema["data"].dtype == np.float32


def test_pictures_are_bytes_of_a_shape_that_somebody_tells() -> None:
    told = select(Frame(p=(BinaryType(), {"shape": [3, 2, 2]})), features="p")
    given = select(Frame(p=BinaryType()), features="p", shapes={"p": (3, 2, 2)})
    assert str(told.schema["data"]) == str(given.schema["data"]) == "uint8 (3, 2, 2)"
    with pytest.raises(DataError, match=r"column p is binary and does not say .*shapes=\{\"p\": \(channels"):
        select(Frame(p=BinaryType()), features="p")


def test_inputs_are_named_and_a_column_may_be_used_twice() -> None:
    frame = Frame(p=(BinaryType(), {"shape": [2]}), x=FloatType(), y=FloatType())
    found = select(
        frame, features={"data": "p", "clip": ["x", "y"]}, label=Labels(column="x", kind="numbers")
    )
    assert list(found.schema) == ["data", "clip", "label"]
    assert found.sources == ["p", "x", "y", "x"]
    read = found.read([pa.array([b"ab"]), pa.array([1.0]), pa.array([2.0]), pa.array([1.0])])
    assert {name: array.tolist() for name, array in read.items()} == {
        "data": [[97, 98]],
        "clip": [[1, 2]],
        "label": [1],
    }


@pytest.mark.parametrize("kind", [*NUMBERS, BooleanType()], ids=lambda kind: kind.simpleString())
def test_classes_are_whole_numbers_of_any_type(kind: DataType) -> None:
    found = select(
        Frame(x=FloatType(), y=kind), features=["x"], label=Labels(column="y", kind="classes", count=2)
    )
    assert found.label is not None
    assert found.label.parts[0].reader == Classes(2)
    assert found.schema["label"].dtype == np.int64


def test_strings_are_the_classes_that_are_named() -> None:
    frame = Frame(x=FloatType(), y=StringType())
    found = select(frame, features=["x"], label=Labels(column="y", kind="classes", names=("a", "b")))
    assert found.names == ("a", "b")
    assert found.read([pa.array([1.0, 1.0]), pa.array(["b", "a"])])["label"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("frame", "options", "says"),
    [
        (Frame(a=StringType()), {}, "column a is string: a number, an array or vector.*StringIndexer"),
        (Frame(a=DateType()), {}, "column a is date: a number, an array or vector of numbers, binary or an"),
        (Frame(a=ArrayType(StringType())), {}, "column a is array<string>: a number"),
        (Frame(a=StructType([StructField("b", FloatType())])), {}, "column a is struct<b:float>: a number"),
        (Frame(a=(CUBES, {"shape": [2, 2, 2]})), {}, "which cannot be of the shape"),
        (Frame(a=FloatType(), y=DateType()), {"label": Labels(column="y")}, "column y is date"),
        (
            Frame(a=FloatType(), y=StringType()),
            {"label": Labels(column="y", kind="numbers")},
            "column y is string: a number or an array or vector of numbers is needed",
        ),
        (
            Frame(a=FloatType(), y=VectorUDT()),
            {"label": Labels(column="y", kind="classes")},
            "column y is vector: a class, which is a whole number or a string, is needed",
        ),
        (
            Frame(a=FloatType(), y=ArrayType(StringType())),
            {"label": Labels(column="y", kind="classes")},
            "column y is array<string>: one string a record",
        ),
        (Frame(a=FloatType(), w=StringType()), {"weight": "w"}, "column w is string: a weight is a number"),
    ],
)
def test_a_type_that_cannot_be_is_named_with_the_one_that_is_wanted(
    frame: Frame, options: dict[str, Any], says: str
) -> None:
    with pytest.raises(DataError, match=says):
        select(frame, features="a", **options)


def test_no_features_are_refused() -> None:
    with pytest.raises(UsageError, match="no feature column is named"):
        select(Frame(a=FloatType()), features=[])


def test_a_row_is_named_in_its_partition_whatever_batch_it_is_in() -> None:
    found = select(Frame(a=FloatType(), b=DoubleType()), features=["a", "b"])
    good = pa.RecordBatch.from_arrays([pa.array([1.0, 2.0, 3.0]), pa.array([1.0, 2.0, 3.0])], ["c0", "c1"])
    bad = pa.RecordBatch.from_arrays([pa.array([1.0, 2.0]), pa.array([1.0, math.nan])], ["c0", "c1"])
    with pytest.raises(DataError, match="column b, partition 4, row 4: nan, but a finite number is needed"):
        list(found.blocks([good, bad], 4))


def test_an_image_of_spark_needs_a_look_at_the_first() -> None:
    with pytest.raises(AssertionError):
        select(Frame(image=IMAGE), features="image")
