"""Columns are found by the names that users write, without asking Spark."""

from __future__ import annotations

import pytest
from pyspark.sql.types import DoubleType, LongType, StructField, StructType

from sparknet.errors import DataError
from sparknet.spark.fields import find

SIZE = StructType([StructField("height", LongType()), StructField("in.cm", DoubleType())])
SCHEMA = StructType(
    [
        StructField("age", LongType()),
        StructField("a.b", DoubleType()),
        StructField("a`b", DoubleType()),
        StructField("Size", SIZE),
        StructField("twice", LongType()),
        StructField("twice", DoubleType()),
        StructField("Case", LongType()),
        StructField("case", DoubleType()),
    ]
)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("age", "age"),
        ("AGE", "age"),
        ("a.b", "`a.b`"),
        ("`a.b`", "`a.b`"),
        ("a`b", "`a``b`"),
        ("Size.height", "Size.height"),
        ("size.HEIGHT", "Size.height"),
        ("Case", "Case"),
        ("case", "case"),
    ],
)
def test_a_column_is_found_by_its_name_in_any_case_with_dots_or_in_a_struct(
    name: str, reference: str
) -> None:
    assert find(SCHEMA, name).reference == reference


def test_the_field_is_that_of_the_struct() -> None:
    assert find(SCHEMA, "size.height").field.dataType == LongType()


@pytest.mark.parametrize("name", ["nowhere", "age.years", "Size.depth", ""])
def test_a_column_that_is_not_there_is_named_with_those_that_are(name: str) -> None:
    with pytest.raises(DataError, match=f"^there is no column {name} in the DataFrame, which has age, a.b, "):
        find(SCHEMA, name)


def test_a_name_that_two_columns_have_is_refused() -> None:
    with pytest.raises(DataError, match=r"^the DataFrame has 2 columns twice: rename one of them"):
        find(SCHEMA, "twice")
