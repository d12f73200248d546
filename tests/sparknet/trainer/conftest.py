"""A Spark of two slots, for what is trained and predicted on DataFrames."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from tests.running_spark import running_spark


@pytest.fixture(scope="package")
def spark() -> Iterator[SparkSession]:
    with running_spark("local[2]", {"spark.sql.shuffle.partitions": "2"}) as running:
        yield running
