"""The Spark session of an app: says only what went wrong, and is stopped in the end if the app started it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from py4j.protocol import Py4JError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from sparknet.errors import TrainingError
from sparknet.spark import session


@contextmanager
def open_session(name: str) -> Iterator[SparkSession]:
    """A session for as long as the block runs; one that runs already is taken, and left running.

    Raises TrainingError if Spark does not start.
    """
    running = SparkSession.getActiveSession()
    try:
        spark = session(name)
    except (Py4JError, PySparkException) as error:
        raise TrainingError(
            f"Spark does not start ({str(error).strip().splitlines()[0]}): is there a Java 17 or newer, and "
            "does the master of --master answer?"
        ) from error
    spark.sparkContext.setLogLevel("ERROR")
    try:
        yield spark
    finally:
        if running is None:
            spark.stop()
