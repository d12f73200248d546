"""What ``Trainer.fit`` is given, as the workers want it: a DataFrame, an RDD, or a source of records.

DataFrame             its columns are chosen and checked here, and read over Arrow by the workers
RDD of Examples or Records    as it is; the first block says what is in them
Source                its parts are read by the workers themselves
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from numpy.typing import NDArray
from pyspark import RDD
from pyspark.sql import DataFrame, SparkSession

from sparknet.data import Examples, Records
from sparknet.data.arrow import Classes
from sparknet.data.dataset import Shard
from sparknet.data.feed import TARGETS
from sparknet.data.records import Column
from sparknet.errors import DataError, UsageError
from sparknet.objectives import LabelKind
from sparknet.spark.columns import ColumnSelection, Features, Labels, Shape, select
from sparknet.spark.fields import find, some
from sparknet.spark.frames import from_examples
from sparknet.spark.predict import is_connect

# Where features lie unless somebody says so, in the order of preference.
_FEATURES = ("features", "image", "data")


@dataclass(frozen=True)
class InMemory:
    """Records that the driver holds."""

    records: Shard

    @property
    def schema(self) -> Mapping[str, Column]:
        return {name: Column.of(array) for name, array in self.records.columns.items()}

    def shards(self, spark: SparkSession, workers: int) -> RDD[Any]:
        return from_examples(spark, self.records, workers)

    def __len__(self) -> int:
        return len(self.records)


class Shards(Protocol):
    """Training data that is cut for as many workers as there are."""

    @property
    def schema(self) -> Mapping[str, Column]: ...

    def shards(self, spark: SparkSession, workers: int) -> RDD[Any]:
        """Examples or Records in a partition for each worker."""
        ...


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns are trained on: see ``Trainer``."""

    features: Features | None = None
    label: str | None = "label"
    weight: str | None = None
    shapes: Mapping[str, Shape]
    kind: LabelKind = "any"


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Training data: ``schema`` is what the net and its loss are fed; ``names`` are those of the classes.

    ``selection`` says how a DataFrame is read, ``parts`` gives an RDD in so many partitions.
    """

    data: Any
    schema: Mapping[str, Column]
    features: Features
    selection: ColumnSelection | None = None
    names: tuple[str, ...] = ()

    @property
    def inputs(self) -> dict[str, Column]:
        return {name: column for name, column in self.schema.items() if name not in TARGETS}

    def count(self) -> int:
        """How many records there are, which is a job of Spark's own."""
        if isinstance(self.data, DataFrame):
            return int(self.data.count())
        if isinstance(self.data, RDD):
            return int(self.data.map(len).sum())
        if hasattr(self.data, "__len__"):
            return len(self.data)
        if not hasattr(self.data, "parts"):
            raise UsageError(
                "epochs need a number of records, which this training data does not tell: give rounds"
            )
        return sum(_length(block) for part in self.data.parts(1) for block in part.blocks())

    def checked(self, classes: int, floats: bool) -> Prepared:
        """The same with labels checked against so many classes (0: as they are), whole numbers as floats."""
        if self.selection is None:
            if classes and len(self.names) > classes:
                raise DataError(
                    f"the data have {len(self.names)} classes, and the net has {classes} outputs: "
                    f"{some(self.names, 10)}"
                )
            return self
        if classes and len(self.names) > classes:
            raise DataError(
                f"column {self.selection.label_column} has {len(self.names)} different strings, and the net "
                f"has {classes} outputs: {some(self.names, 10)}"
            )
        selection = self.selection.as_floats() if floats else self.selection
        label = selection.label
        if label and classes and isinstance(label.parts[0].reader, Classes):
            part = replace(label.parts[0], reader=replace(label.parts[0].reader, count=classes))
            selection = replace(selection, label=replace(label, parts=(part,)))
        return replace(self, selection=selection, schema=selection.schema)

    def partitioned(self, spark: SparkSession, workers: int) -> Any:
        """A DataFrame or RDD with a partition for each worker."""
        if isinstance(self.data, RDD) and self.data.getNumPartitions() == workers:
            return self.data
        if isinstance(self.data, DataFrame | RDD):
            return self.data.repartition(workers)
        if hasattr(self.data, "shards"):
            return self.data.shards(spark, workers)
        parts = self.data.parts(workers)
        names = input_names(self.features)

        def blocks(part: Any) -> Iterator[Records]:
            return (Records(renamed(block, names)) for block in part.blocks())

        return spark.sparkContext.parallelize(list(parts), workers).flatMap(blocks)


def session_of(data: Any, given: SparkSession | None) -> SparkSession:
    """The session that ``data`` belongs to; for a source the one given, or the active one.

    Raises UsageError for Spark Connect, where nothing can be trained, and where there is no session.
    """
    if is_connect(data):
        raise UsageError(
            "this DataFrame is of Spark Connect, which cannot hold the long-lived tasks of a training: "
            "train in a session of the cluster itself (SparkSession.builder.master(...), or spark-submit); "
            "predictions work in both"
        )
    if isinstance(data, DataFrame):
        return data.sparkSession
    found = given or SparkSession.getActiveSession()
    if found is None:
        raise UsageError("there is no Spark session: make one, with sparknet.spark.session(), or give spark=")
    return found


def prepare(data: Any, columns: Columns) -> Prepared:
    """Choose and check the columns. Raises DataError naming one that cannot be, UsageError for no data."""
    if isinstance(data, DataFrame):
        return _of_frame(data, columns)
    if isinstance(data, RDD):
        return _of_rdd(data, columns)
    if isinstance(data, Examples | Records):
        data = InMemory(data)
    if hasattr(data, "shards") and hasattr(data, "schema"):
        names = tuple(getattr(data, "classes", ()))
        return Prepared(data=data, schema=data.schema, features={"data": "data"}, names=names)
    if hasattr(data, "parts") and hasattr(data, "schema"):
        return _of_source(data, columns)
    raise UsageError(
        f"fit takes a DataFrame, Examples, Records, an RDD of these or a source, not {type(data).__name__}: "
        "spark.createDataFrame makes a DataFrame of a table in memory, sparknet.sources.open_source a source "
        "of files"
    )


def _of_frame(frame: DataFrame, columns: Columns) -> Prepared:
    features = columns.features or _found(frame.columns, _FEATURES, "features")
    if columns.label is not None:
        _check_label(frame, columns.label)
    label = Labels(column=columns.label, kind=columns.kind) if columns.label else None
    selection = select(frame, features=features, label=label, weight=columns.weight, shapes=columns.shapes)
    return Prepared(
        data=frame,
        schema=selection.schema,
        features=features,
        selection=selection,
        names=selection.names,
    )


def _check_label(frame: DataFrame, label: str) -> None:
    try:
        find(frame.schema, label)
    except DataError as error:
        raise DataError(f"{error}: say which it is (label=...), or that there is none (label=None)") from None


def _of_rdd(rdd: Any, columns: Columns) -> Prepared:
    first = rdd.filter(len).take(1)
    if not first or not hasattr(first[0], "columns"):
        raise DataError("the RDD has no Examples or Records in it")
    schema = {name: Column.of(array) for name, array in first[0].columns.items()}
    features = columns.features or {name: name for name in schema if name not in TARGETS}
    return Prepared(data=rdd, schema=schema, features=features)


def _of_source(source: Any, columns: Columns) -> Prepared:
    features = columns.features or _found(list(source.schema), _FEATURES, "features")
    names = input_names(features)
    schema = {names.get(name, name): column for name, column in source.schema.items()}
    kept = {name: c for name, c in schema.items() if name in names.values() or name in TARGETS}
    return Prepared(data=source, schema=kept, features=features, names=tuple(source.classes or ()))


def _found(there: list[str], wanted: tuple[str, ...], what: str) -> str:
    for name in wanted:
        if name in there:
            return name
    raise DataError(
        f"there is no column {' or '.join(wanted)}, but {some(there)}: "
        f"say which columns are the {what} ({what}=...)"
    )


def input_names(features: Features) -> dict[str, str]:
    """Column to input, for sources, whose columns are an input each."""
    if isinstance(features, str):
        return {features: "data"}
    if isinstance(features, Mapping):
        return {str(column): name for name, column in features.items()}
    raise UsageError("a source has columns that are an input each: name one, or {input: column}")


def renamed(block: Mapping[str, NDArray[Any]], names: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    return {names.get(name, name): array for name, array in block.items() if name in names or name in TARGETS}


def _length(block: Mapping[str, NDArray[Any]]) -> int:
    return len(next(iter(block.values()), ()))
