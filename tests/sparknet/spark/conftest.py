"""One Spark for all tests of this folder: three executors, each in a JVM of its own, one core each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from tests.running_spark import running_spark


@pytest.fixture(scope="package")
def spark() -> Iterator[SparkSession]:
    with running_spark("local-cluster[3,1,512]", {"spark.executor.memory": "512m"}) as running:
        yield running
