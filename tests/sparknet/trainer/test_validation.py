"""The validation set is read as the training data are, in pieces where it is large, or refused in time."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparknet.data import Records
from sparknet.errors import DataError, UsageError
from sparknet.trainer import validation
from sparknet.trainer.source import Columns, Prepared, prepare
from sparknet.trainer.validation import collected

pytestmark = [
    pytest.mark.spark,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]


@pytest.fixture
def frame(spark: SparkSession) -> DataFrame:
    return spark.range(0, 100, 1, 3).selectExpr("double(id) AS a", "id % 7 AS b", "id % 2 AS label")


def prepared(frame: DataFrame) -> Prepared:
    columns = Columns(features=["a", "b"], shapes={}, kind="classes")
    return prepare(frame, columns).checked(2, floats=True)


def numbers(found: object) -> list[float]:
    assert isinstance(found, Records)
    return found.columns["data"][:, 0].tolist()  # type: ignore[no-any-return]


def test_a_large_set_comes_a_partition_at_a_time(frame: DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = collected(prepared(frame), frame)
    monkeypatch.setattr(validation, "_AT_ONCE_BYTES", 0)
    in_pieces = collected(prepared(frame), frame)
    assert numbers(whole) == numbers(in_pieces) == list(range(100))
    for name, array in whole.columns.items():
        assert np.array_equal(array, in_pieces.columns[name])


def test_a_set_that_has_no_room_is_refused_before_it_is_read(
    frame: DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "share_of_memory", lambda tasks: 400 * tasks)
    says = r"^the validation set has 100 rows of 16 bytes, 0.0 GiB, .* frame.sample\(fraction=0.1, seed=0\)$"
    with pytest.raises(DataError, match=says):
        collected(prepared(frame), frame)


def test_columns_may_lie_elsewhere_and_be_of_other_numbers(frame: DataFrame) -> None:
    other = frame.selectExpr("int(label) AS Label", "float(b) AS b", "int(a) AS A")
    assert numbers(collected(prepared(frame), other)) == list(range(100))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("drop", r"^there is no column b in the validation set, which has a, label$"),
        ("text", r"^column b is string: a number, an array or vector of numbers"),
        ("names", r"^column label is string in the validation set, and a number in training$"),
        ("class", r"^the validation set, column label, row 0: 7, but a class, 0 to 1, is needed$"),
        ("empty", r"^the validation set has no rows$"),
    ],
)
def test_a_set_unlike_the_training_data_is_one_sentence(frame: DataFrame, change: str, says: str) -> None:
    others = {
        "drop": frame.drop("b"),
        "text": frame.withColumn("b", F.lit("x")),
        "names": frame.withColumn("label", F.lit("x")),
        "class": frame.withColumn("label", F.lit(7)),
        "empty": frame.limit(0),
    }
    with pytest.raises(DataError, match=says):
        collected(prepared(frame), others[change])


def test_what_is_no_data_is_refused(frame: DataFrame) -> None:
    with pytest.raises(UsageError, match=r"^validation is a str: a share of the rows, such as 0.2, or data"):
        collected(prepared(frame), "x")
