"""A Spark for the tests of a folder, which share it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from pyspark.sql import SparkSession

from sparknet.spark.session import session

OPTIONS = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "1g",
    "spark.log.level": "OFF",
}


@contextmanager
def running_spark(master: str, options: Mapping[str, str]) -> Iterator[SparkSession]:
    """One of ``master``, with further ``options``; no warnings of pyspark's own become errors."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas
        running = session("tests", master, {**OPTIONS, **options})
        yield running
        running.stop()
