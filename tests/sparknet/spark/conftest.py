"""One Spark for all tests of this folder: three executors, each in a JVM of its own, one core each."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from sparknet.spark.session import session

OPTIONS = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.executor.memory": "512m",
    "spark.driver.memory": "1g",
    "spark.log.level": "OFF",
}


@pytest.fixture(scope="package")
def spark() -> Iterator[SparkSession]:
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyspark's own, of pandas
        running = session("tests", "local-cluster[3,1,512]", OPTIONS)
        yield running
        running.stop()
