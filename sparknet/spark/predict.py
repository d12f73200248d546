"""What a net makes of the rows of a DataFrame, as further columns of it.

    predicted(frame, inference, selection, [Output("prediction", "", Likeliest(("cat", "dog")))])

Only the columns that the net reads go to Python, in Arrow batches, and only its outputs come back; Spark has
the rest of each row on its side, and spills it if need be. Memory does not grow with the rows. It works on a
DataFrame of Spark Connect as well, where the weights travel in the plan.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyspark.sql import Column as SparkColumn
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    DataType,
    DoubleType,
    FloatType,
    LongType,
    StringType,
    StructField,
    StructType,
    UserDefinedType,
)

from sparknet.errors import UsageError
from sparknet.inference import Inference, Opened
from sparknet.spark.cancelling import canceller
from sparknet.spark.columns import ColumnSelection, WrongRow
from sparknet.spark.session import use_this_python
from sparknet.spark.task import attempt_number, partition_id
from sparknet.weights import Vector

log = logging.getLogger(__name__)

# Plans of Spark Connect travel in one message, of 128 MiB at most; closures may be pickled in them twice.
CONNECT_BYTES = 48 << 20

# A task that has failed so often fails for good, whatever the session allows.
_ATTEMPTS = 3

_COLUMNAR = "spark.sql.execution.arrow.pythonUDF.columnarInput.enabled"

_VECTOR = pa.struct(
    [
        ("type", pa.int8()),
        ("size", pa.int32()),
        ("indices", pa.list_(pa.int32())),
        ("values", pa.list_(pa.float64())),
    ]
)


class Form(Protocol):
    """How an output of a net, (n, ...) for n rows, is put into a column of the type ``kind``."""

    @property
    def kind(self) -> DataType: ...

    def column(self, rows: NDArray[Any]) -> pa.Array: ...


@dataclass(frozen=True)
class Output:
    """The new column ``column``: the net's output ``name`` in a certain form.

    ``metadata`` goes with the column.
    """

    column: str
    name: str
    form: Form
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Lists:
    """array<float>: all numbers of a row."""

    @property
    def kind(self) -> DataType:
        return ArrayType(FloatType())

    def column(self, rows: NDArray[Any]) -> pa.Array:
        flat = np.ascontiguousarray(rows.reshape(len(rows), -1), np.float32)
        return _lists(flat, pa.array(flat.reshape(-1)))


@dataclass(frozen=True)
class Number:
    """double: the only number of a row."""

    @property
    def kind(self) -> DataType:
        return DoubleType()

    def column(self, rows: NDArray[Any]) -> pa.Array:
        return pa.array(rows.reshape(len(rows)).astype(np.float64))


@dataclass(frozen=True)
class Likeliest:
    """The class with the highest score: its name if there are ``names``, else its number, a double."""

    names: tuple[str, ...] = ()

    @property
    def kind(self) -> DataType:
        return StringType() if self.names else DoubleType()

    def column(self, rows: NDArray[Any]) -> pa.Array:
        scores = rows.reshape(len(rows), -1)
        # a net may have more outputs than there are names
        classes = scores[:, : len(self.names) or None].argmax(1)
        if self.names:
            return pa.array(self.names, pa.string()).take(pa.array(classes))
        return pa.array(classes.astype(np.float64))


@dataclass(frozen=True)
class LikeliestOfEach:
    """array<bigint>: the class with the highest score, along axis 1, at every place of a sequence or mask."""

    @property
    def kind(self) -> DataType:
        return ArrayType(LongType())

    def column(self, rows: NDArray[Any]) -> pa.Array:
        classes = rows.argmax(1).reshape(len(rows), -1).astype(np.int64)
        return _lists(classes, pa.array(classes.reshape(-1)))


@dataclass(frozen=True)
class Scores:
    """An ML vector: the scores of the classes."""

    @property
    def kind(self) -> DataType:
        return _vector_type()

    def column(self, rows: NDArray[Any]) -> pa.Array:
        return _vectors(rows.reshape(len(rows), -1).astype(np.float64))


@dataclass(frozen=True)
class Probabilities:
    """An ML vector: the softmax of the scores."""

    @property
    def kind(self) -> DataType:
        return _vector_type()

    def column(self, rows: NDArray[Any]) -> pa.Array:
        scores = rows.reshape(len(rows), -1).astype(np.float64)
        raised = np.exp(scores - scores.max(1, keepdims=True))
        return _vectors(raised / raised.sum(1, keepdims=True))


def predicted(
    frame: DataFrame,
    inference: Inference,
    weights: Vector,
    selection: ColumnSelection,
    outputs: Sequence[Output],
    *,
    keep_invalid: bool = False,
) -> DataFrame:
    """``frame`` and the columns of ``outputs``; the names of the net's outputs are those of ``inference``.

    ``weights`` float32 (P,) go to every executor once. A row with a value that cannot be (NULL, NaN, another
    size) fails the job, with a DataError that names it, or gets NULL if ``keep_invalid``. Raises UsageError
    for a column that is there already, or for weights that are too large for Spark Connect, and ModelError
    for outputs or weights that are another net's.
    """
    there = {name.lower(): name for name in frame.columns}
    for output in outputs:
        if output.column.lower() in there:  # Spark would replace it, whatever the case
            name = there[output.column.lower()]
            raise UsageError(f"the DataFrame has a column {name} already: choose another name")
    # a record through the net here: what is wrong with net, weights or outputs shows before a job starts
    inference.open(weights)({each.name: each.column.empty(1) for each in selection.inputs})
    connect = is_connect(frame)
    if not connect:
        use_this_python(frame.sparkSession.sparkContext)
    if any(isinstance(field.dataType, UserDefinedType) for field in frame.schema):
        _hand_over_rows(frame.sparkSession)
    work = _Work(
        key=uuid.uuid4().hex,
        inference=inference,
        weights=_sent(frame, weights),
        selection=selection,
        outputs=tuple(outputs),
        keep_invalid=keep_invalid,
        cancel=_no_canceller if connect else canceller(frame.sparkSession.sparkContext),
    )
    served = _served(work)
    if len(outputs) == 1:
        return frame.withColumn(outputs[0].column, _named(served, outputs[0]))
    together = f"sparknet-{uuid.uuid4().hex}"
    columns = [_named(F.col(f"`{together}`.`{output.column}`"), output) for output in outputs]
    return frame.withColumn(together, served).select("*", *columns).drop(together)


def _hand_over_rows(spark: Any) -> None:
    """See that rows become Arrow's columns only on their way to Python, and say so once.

    What comes from Parquet is handed to Arrow UDFs column by column otherwise, which Spark 4.3 cannot do with
    ML vectors, not even with those that no UDF reads (RowToColumnConverter: unsupported data type UDT). The
    setting counts when the plan runs, long after this: it stays.
    """
    if spark.conf.get(_COLUMNAR, "true") != "false":
        spark.conf.set(_COLUMNAR, "false")
        log.warning("%s is false in this session from here on: Spark cannot do it with ML vectors", _COLUMNAR)


def _named(column: SparkColumn, output: Output) -> SparkColumn:
    if output.metadata is None:
        return column.alias(output.column)
    return column.alias(output.column, metadata=dict(output.metadata))


def is_connect(frame: Any) -> bool:
    """Whether this DataFrame, or session, is one of Spark Connect."""
    return type(frame).__module__.startswith("pyspark.sql.connect")


def _sent(frame: DataFrame, weights: Vector) -> Callable[[], Vector]:
    """How a task comes by the weights."""
    if not is_connect(frame):
        broadcast = frame.sparkSession.sparkContext.broadcast(weights)
        return lambda: broadcast.value
    if weights.nbytes > CONNECT_BYTES:
        raise UsageError(
            f"the net has {weights.nbytes / 2**20:.0f} MiB of weights, and a plan of Spark Connect can carry "
            f"{CONNECT_BYTES >> 20}: predict in a session of the cluster itself (master=...)"
        )
    return lambda: weights


@dataclass(frozen=True, kw_only=True, eq=False)
class _Work:
    """What a task does with the batches of its partition. ``key`` names the net in a process of many."""

    key: str
    inference: Inference
    weights: Callable[[], Vector]
    selection: ColumnSelection
    outputs: tuple[Output, ...]
    keep_invalid: bool
    cancel: Callable[[str], None]

    def serve(self, batches: Iterator[Any]) -> Iterator[pa.Array]:
        """What is made of each batch. An error that comes again and again ends the stage."""
        try:
            yield from self._made(batches)
        except Exception as error:
            if attempt_number() >= _ATTEMPTS:
                self.cancel(f"{type(error).__name__}: {error}")
            raise

    def _made(self, batches: Iterator[Any]) -> Iterator[pa.Array]:
        opened = _opened(self.key, self.inference, self.weights)
        before = 0
        for batch in batches:
            arrays = list(batch) if isinstance(batch, tuple) else [batch]
            yield self._computed(opened, arrays, before)
            before += len(arrays[0])

    def _computed(self, opened: Opened, arrays: list[pa.Array], before: int) -> pa.Array:
        if not len(arrays[0]):
            return pa.nulls(0, _type_of(self.outputs))
        try:
            columns = self.selection.read(arrays)
        except WrongRow as error:
            if self.keep_invalid:
                return self._kept(opened, arrays)
            failure = error.at(partition_id(), before)
            self.cancel(str(failure))
            raise failure from None
        found = dict(zip(opened.names, opened(columns), strict=True))
        return self._joined([output.form.column(found[output.name]) for output in self.outputs])

    def _kept(self, opened: Opened, arrays: list[pa.Array]) -> pa.Array:
        """NULL for rows that cannot be, and what the net makes of the others."""
        valid = self._valid(arrays)
        if valid.any():
            columns = self.selection.read([array.filter(pa.array(valid)) for array in arrays])
        else:  # the shapes of the outputs are needed all the same
            columns = {each.name: each.column.empty(1) for each in self.selection.inputs}
        found = dict(zip(opened.names, opened(columns), strict=True))
        made = []
        for output in self.outputs:
            rows = found[output.name]
            every = np.zeros((len(valid), *rows.shape[1:]), rows.dtype)
            every[valid] = rows[: valid.sum()]
            made.append(output.form.column(every))
        return self._joined(made, ~valid)

    def _valid(self, arrays: list[pa.Array]) -> NDArray[np.bool_]:
        """Which rows can be read, (n,): halves of a block that cannot are looked at each by itself."""
        count = len(arrays[0])
        try:
            self.selection.read(arrays)
        except WrongRow:
            if count == 1:
                return np.zeros(1, np.bool_)
            half = count // 2
            parts = ([array[:half] for array in arrays], [array[half:] for array in arrays])
            return np.concatenate([self._valid(part) for part in parts])
        return np.ones(count, np.bool_)

    def _joined(self, made: list[pa.Array], invalid: NDArray[np.bool_] | None = None) -> pa.Array:
        """A struct of several outputs, or the only one, which is NULL where ``invalid``.

        What is in a NULL is there all the same: parts of ML vectors must not be NULL themselves.
        """
        mask = None if invalid is None else pa.array(invalid)
        if len(made) > 1:
            names = [output.column for output in self.outputs]
            return pa.StructArray.from_arrays(made, names=names, mask=mask)
        if mask is None:
            return made[0]
        if pa.types.is_struct(made[0].type):
            parts = [made[0].field(place) for place in range(made[0].type.num_fields)]
            return pa.StructArray.from_arrays(parts, fields=list(made[0].type), mask=mask)
        return pc.if_else(mask, pa.scalar(None, made[0].type), made[0])


def _served(work: _Work) -> SparkColumn:
    """The column that Spark computes in Python: a struct, or the only output itself."""
    kinds = [StructField(output.column, output.form.kind) for output in work.outputs]
    returned = kinds[0].dataType if len(kinds) == 1 else StructType(kinds)

    def serve(batches: Iterator[Any]) -> Iterator[pa.Array]:
        return work.serve(batches)

    # Spark reads the hints, which it needs as objects: one argument comes as an array, several as a tuple
    argument = pa.Array if len(work.selection.sources) == 1 else tuple[pa.Array, ...]
    hints: Any = {"batches": Iterator[argument], "return": Iterator[pa.Array]}  # type: ignore[valid-type]
    serve.__annotations__ = hints
    column: SparkColumn = F.arrow_udf(serve, returned)(*map(F.col, work.selection.sources))  # type: ignore[attr-defined]
    return column


def _no_canceller(reason: str) -> None:
    """Where Spark itself has to try again, and give up."""
    del reason


def _type_of(outputs: tuple[Output, ...]) -> pa.DataType:
    none = [output.form.column(np.zeros((1, 1), np.float32)).type for output in outputs]
    if len(none) == 1:
        return none[0]
    return pa.struct([(output.column, kind) for output, kind in zip(outputs, none, strict=True)])


_OPENED: dict[str, Opened] = {}


def _opened(key: str, inference: Inference, weights: Callable[[], Vector]) -> Opened:
    """The net in this process, which is used for many tasks; only the last is kept."""
    if key not in _OPENED:
        _OPENED.clear()
        _OPENED[key] = inference.open(weights())
    return _OPENED[key]


def _lists(rows: NDArray[Any], values: pa.Array) -> pa.Array:
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * np.int32(rows.shape[1])
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _vector_type() -> DataType:
    # Its module brings pandas: half a second of imports that no worker needs, and few drivers.
    from pyspark.ml.linalg import VectorUDT

    return VectorUDT()


def _vectors(rows: NDArray[np.float64]) -> pa.Array:
    """Dense ML vectors, as VectorUDT lays them out."""
    count = len(rows)
    dense = pa.array(np.ones(count, np.int8))
    values = _lists(rows, pa.array(np.ascontiguousarray(rows).reshape(-1)))
    parts = [dense, pa.nulls(count, pa.int32()), pa.nulls(count, pa.list_(pa.int32())), values]
    return pa.StructArray.from_arrays(parts, fields=list(_VECTOR))
