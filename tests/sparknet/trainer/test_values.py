"""What Spark does to values on the way to a net, and what becomes of it here: see docs/values.md."""

from __future__ import annotations

import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pyspark.errors import IllegalArgumentException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from torch import nn

from sparknet.errors import DataError
from sparknet.inference import Inference
from sparknet.sources import open_source
from sparknet.spark import bundle
from sparknet.spark.columns import select
from sparknet.spark.predict import Lists, Output, predicted
from sparknet.trainer import Trainer
from sparknet.weights import Vector

ROOT = Path(__file__).resolve().parents[3]
TABLE = (ROOT / "docs" / "values.md").read_text(encoding="utf-8")

pytestmark = pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")


def test_every_row_of_the_table_names_a_test_that_there_is() -> None:
    named = re.findall(r"`(test_\w+)` \|$", TABLE, re.MULTILINE)
    rows = [line for line in TABLE.splitlines() if line.startswith("| ")]
    assert len(named) == len(rows) - 1
    tests = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/sparknet/**/test_*.py"))
    assert [name for name in named if f"def {name}(" not in tests] == []


def linear(frame: DataFrame, columns: list[str], weights: Vector | None = None) -> DataFrame:
    """A column ``sum`` that adds the columns, counted 1, 2, 3, ..."""
    values = np.append(np.arange(1, len(columns) + 1), 0).astype(np.float32)
    inference = Inference(build=lambda: nn.Linear(len(columns), 1), batch_size=10)
    selection = select(frame, features=columns)
    return predicted(frame, inference, values if weights is None else weights, selection, [SUM])


SUM = Output("sum", "", Lists())


@pytest.mark.parametrize("value", ["nan", "uint64"])
@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.filterwarnings("ignore:createDataFrame attempted Arrow")  # uint64 is none of Arrow's to Spark
def test_nan_of_pandas_is_named_as_the_null_it_has_become(spark: SparkSession, value: str) -> None:
    spoiled = [1.0, np.nan, 3.0] if value == "nan" else np.array([1, 2**63 + 1, 3], np.uint64)
    frame = spark.createDataFrame(pd.DataFrame({"a": spoiled, "y": [1.0, 2.0, 3.0]}))
    assert frame.where("a IS NULL").count() == 1
    trainer = Trainer(model=lambda: nn.Linear(2, 1), loss="mse", features=["a", "y"], label="y")
    with pytest.raises(DataError, match=r"column a, partition \d, row \d: NULL"):
        trainer.fit(frame)


def test_a_png_of_16_bits_keeps_its_high_byte(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    pixels = np.full((8, 8), 0x40FF, np.uint16)
    Image.fromarray(pixels).save(tmp_path / "one" / "deep.png")
    source = open_source(str(tmp_path), size=8)
    (block,) = source.parts(1)[0].blocks()
    assert np.abs(block["image"].astype(int) - 0x40).max() <= 1


@pytest.mark.slow
@pytest.mark.spark
def test_a_net_is_built_once_in_a_process_of_many_tasks(spark: SparkSession, tmp_path: Path) -> None:
    folder = str(tmp_path)

    def build() -> nn.Module:
        import os

        (Path(folder) / f"{os.getpid()}-{time.time_ns()}").touch()
        return nn.Linear(1, 1)

    frame = spark.range(0, 400, 1, 20).select(F.array(F.col("id").cast("float")).alias("x"))
    selection = select(frame, features="x", shapes={"x": (1,)})
    made = predicted(frame, Inference(build=build), np.zeros(2, np.float32), selection, [SUM])
    made.write.format("noop").mode("overwrite").save()
    built = [path.name.partition("-")[0] for path in tmp_path.iterdir()]
    assert len(built) == len(set(built))


def test_the_package_that_is_handed_over_is_named_for_its_contents() -> None:
    first = bundle()
    assert bundle() == first
    assert re.search(r"sparknet-[0-9a-f]{16}\.zip$", first)


def test_no_stage_is_a_barrier_stage() -> None:
    sources = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("sparknet/**/*.py"))
    assert ".barrier(" not in sources
    assert "barrier=True" not in sources


@pytest.mark.slow
@pytest.mark.spark
def test_the_order_of_columns_plays_no_part(spark: SparkSession) -> None:
    frame = spark.createDataFrame([(1.0, 10.0, 100.0)], ["a", "b", "c"])
    for names in (["a", "b", "c"], ["c", "a", "b"]):
        row = linear(frame.select(*names), ["a", "b", "c"]).first()
        assert row is not None
        assert row["sum"] == [1 + 20 + 300]


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.filterwarnings("ignore:toPandas attempted Arrow:UserWarning")  # where the session has Arrow on
def test_an_action_over_predictions_fails_once_with_one_sentence(spark: SparkSession) -> None:
    frame = spark.range(0, 100, 1, 2).selectExpr("IF(id = 60, NULL, id) AS a", "1 AS b")
    made = linear(frame, ["a", "b"])
    says = "column a, partition 1, row 10: NULL, but a value is needed"
    actions = [made.collect, made.toPandas, lambda: made.write.format("noop").mode("overwrite").save()]
    for action in actions:
        began = time.monotonic()
        with pytest.raises(IllegalArgumentException, match=says) as failed:
            action()
        assert "\n" not in str(failed.value)
        assert time.monotonic() - began < 60
