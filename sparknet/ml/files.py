"""Stages in files, through Spark: wherever it can write, it can save and load them.

    metadata/    the Params, as every stage of Spark ML has them
    data/        Parquet of (name, part, data): the files of ``sparknet.trainer.saved``, or Params that are
                 Python objects, in pieces of 32 MiB

What is Python's own is pickled: load stages alone whose maker is trusted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyspark import cloudpickle
from pyspark.ml.util import DefaultParamsReader, DefaultParamsWriter, MLReader, MLWriter
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from sparknet.errors import ModelError
from sparknet.trainer.saved import contents, restored

_PIECE = 32 << 20
# Params whose values may be objects that JSON cannot say.
_OBJECTS = ("model", "loss", "optimizer", "trainer")


class EstimatorWriter(MLWriter):
    """Writes an estimator."""

    def __init__(self, instance: Any) -> None:
        super().__init__()
        self.instance = instance

    def saveImpl(self, path: str) -> None:  # noqa: N802 - Spark's own name
        values = {param.name: value for param, value in self.instance._paramMap.items()}
        objects = {name: values.pop(name) for name in _OBJECTS if name in values}
        defaults = {p.name: v for p, v in self.instance._defaultParamMap.items()}
        _save_metadata(self.instance, path, self.sparkSession, values, defaults)
        pickled: bytes = cloudpickle.dumps(objects)  # type: ignore[no-untyped-call]
        _write(self.sparkSession, path, {"objects": pickled})


class EstimatorReader(MLReader[Any]):
    """Reads an estimator of the class ``cls``."""

    def __init__(self, cls: type[Any]) -> None:
        super().__init__()
        self.cls = cls

    def load(self, path: str) -> Any:
        metadata = DefaultParamsReader.loadMetadata(path, self.sparkSession)
        instance = self.cls()
        instance._resetUid(metadata["uid"])
        instance.setParams(**metadata["paramMap"])
        objects = cloudpickle.loads(_read(self.sparkSession, path, "objects"))
        return instance.setParams(**objects)


class ModelWriter(MLWriter):
    """Writes a model."""

    def __init__(self, instance: Any) -> None:
        super().__init__()
        self.instance = instance

    def saveImpl(self, path: str) -> None:  # noqa: N802
        model = self.instance
        values = {param.name: value for param, value in model._paramMap.items()}
        defaults = {p.name: v for p, v in model._defaultParamMap.items()}
        extra = {"numClasses": model.numClasses, "labels": model.labels}
        _save_metadata(model, path, self.sparkSession, values, defaults, extra)
        _write(self.sparkSession, path, contents(model.trained))


class ModelReader(MLReader[Any]):
    """Reads a model of the class ``cls``."""

    def __init__(self, cls: type[Any]) -> None:
        super().__init__()
        self.cls = cls

    def load(self, path: str) -> Any:
        metadata = DefaultParamsReader.loadMetadata(path, self.sparkSession)
        trained = restored(lambda name: _read(self.sparkSession, path, name))
        model = self.cls(trained, metadata["numClasses"], tuple(metadata["labels"]))
        model._resetUid(metadata["uid"])
        return model.setParams(**metadata["paramMap"])


def _save_metadata(
    instance: Any,
    path: str,
    spark: SparkSession,
    values: Mapping[str, Any],
    defaults: Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> None:
    del defaults  # a class has its own
    DefaultParamsWriter.saveMetadata(instance, path, spark, dict(extra or {}), dict(values))


def _write(spark: SparkSession, path: str, files: Mapping[str, bytes]) -> None:
    pieces = [
        (name, part, bytearray(data[part * _PIECE : (part + 1) * _PIECE]))
        for name, data in files.items()
        for part in range(max(1, -(-len(data) // _PIECE)))
    ]
    frame = spark.createDataFrame(pieces, "name string, part int, data binary")
    frame.coalesce(1).write.parquet(f"{path}/data")


def _read(spark: SparkSession, path: str, name: str) -> bytes:
    rows = spark.read.parquet(f"{path}/data").where(F.col("name") == name).orderBy("part").collect()
    if not rows:
        raise ModelError(f"{path} has no {name}: it was saved by something else")
    return b"".join(bytes(row.data) for row in rows)
