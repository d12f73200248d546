"""The validation set of a run, which the driver collects and hands to every worker as a broadcast.

It is read as the training data are. One that is too large to be handed out is refused before it is read.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray
from pyspark import RDD
from pyspark.sql import DataFrame
from pyspark.sql.types import StringType

from sparknet.data import Examples, Records
from sparknet.data.arrow import Names
from sparknet.data.dataset import Shard
from sparknet.data.growable import MemoryLimit, collect, share_of_memory, spill_folder
from sparknet.errors import DataError, UsageError
from sparknet.spark.columns import ColumnSelection, Input, WrongRow, select
from sparknet.spark.fields import find
from sparknet.trainer.source import Prepared, input_names, renamed

# Up to here a frame comes in one piece, by one job; a larger one a partition at a time, by a job for each.
_AT_ONCE_BYTES = 256 << 20

Block = Mapping[str, NDArray[Any]]


def collected(prepared: Prepared, other: Any) -> Shard:
    """All records of ``other``, a validation set like the training data.

    Raises UsageError for what is no data, and DataError for a set without rows, one unlike the training data,
    and one that is too large.
    """
    if isinstance(other, Examples | Records):
        return other
    if isinstance(other, DataFrame):
        blocks = _of_frame(prepared, other)
    elif isinstance(other, RDD):
        blocks = (block.columns for block in other.toLocalIterator())
    elif hasattr(other, "parts") and hasattr(other, "schema"):
        names = input_names(prepared.features)
        blocks = (renamed(block, names) for part in other.parts(1) for block in part.blocks())
    else:
        raise UsageError(
            f"validation is a {type(other).__name__}: a share of the rows, such as 0.2, or data of the kind "
            "that fit takes is needed"
        )
    limit = MemoryLimit(memory_bytes=share_of_memory(1), folder=spill_folder())
    found = collect(blocks, prepared.schema, limit)
    if not len(found):
        raise DataError("the validation set has no rows")
    return found


def _of_frame(prepared: Prepared, frame: DataFrame) -> Iterator[Block]:
    if prepared.selection is None:
        raise UsageError("the validation set is a DataFrame, and the training data are not: give both alike")
    selection = _selection(prepared, frame)
    rows, row_bytes = frame.count(), sum(column.empty(1).nbytes for column in prepared.schema.values())
    _check_size(rows, row_bytes)
    chosen = frame.select(*selection.columns)
    at_once = rows * row_bytes <= _AT_ONCE_BYTES
    return _blocks(chosen.toArrow().to_batches() if at_once else _a_partition_at_a_time(chosen), selection)


def _check_size(rows: int, row_bytes: int) -> None:
    most = share_of_memory(1)
    if rows * row_bytes > most:
        fits = most / (rows * row_bytes)
        raise DataError(
            f"the validation set has {rows:,} rows of {row_bytes:,} bytes, "
            f"{rows * row_bytes / 2**30:.1f} GiB, and {most / 2**30:.1f} GiB have room here: every worker "
            f"tests on a copy of it. Give fewer, such as frame.sample(fraction={fits / 2:.1g}, seed=0)"
        )


def _selection(prepared: Prepared, frame: DataFrame) -> ColumnSelection:
    """How the validation set is read: its columns may lie in another order, and be of other types of numbers.

    Raises DataError for one that is missing, or that is not like the one trained on.
    """
    trained = prepared.selection
    assert trained is not None
    shapes = {part.name: part.shape for each in trained.inputs for part in each.parts if part.shape}
    for name in [part.name for each in trained.all for part in each.parts]:
        find(frame.schema, name, "the validation set")
    features = {each.name: [part.name for part in each.parts] for each in trained.inputs}
    found = select(frame, features=features, shapes=shapes)
    inputs = tuple(_like(old, new) for old, new in zip(trained.inputs, found.inputs, strict=True))
    return replace(trained, inputs=inputs, label=_label(trained.label, frame))


def _like(trained: Input, found: Input) -> Input:
    """``found`` as the net takes it. Raises DataError if it has another shape than what was trained on."""
    parts = found.parts
    if len(parts) == 1 and parts[0].shape == (1,) and trained.parts[0].shape == ():
        parts = (replace(parts[0], shape=()),)
    for old, new in zip(trained.parts, parts, strict=True):
        if old.shape != new.shape:
            raise DataError(
                f"column {new.name} is {new.shape} in the validation set, and {old.shape} in training"
            )
    return replace(trained, parts=parts)


def _label(trained: Input | None, frame: DataFrame) -> Input | None:
    """The labels, read as those trained on; their column may lie elsewhere."""
    if trained is None:
        return None
    part = trained.parts[0]
    found = find(frame.schema, part.name, "the validation set")
    is_text, was_text = isinstance(found.field.dataType, StringType), isinstance(part.reader, Names)
    if is_text != was_text:
        kinds = ("string", "a number") if was_text else ("a number", "string")
        raise DataError(f"column {part.name} is {kinds[1]} in the validation set, and {kinds[0]} in training")
    return replace(trained, parts=(replace(part, reference=found.reference),))


def _blocks(batches: Iterable[pa.RecordBatch], selection: ColumnSelection) -> Iterator[Block]:
    before = 0
    for batch in batches:
        if not batch.num_rows:
            continue
        try:
            yield selection.read(batch.columns)
        except WrongRow as error:
            raise DataError(
                f"the validation set, column {error.column}, row {before + error.row}: {error.found}, but "
                f"{error.wanted} is needed"
            ) from None
        before += batch.num_rows


def _a_partition_at_a_time(frame: DataFrame) -> Iterator[pa.RecordBatch]:
    for row in frame.mapInArrow(_packed, "batch binary").toLocalIterator():
        with pa.ipc.open_stream(bytes(row.batch)) as stream:
            yield from stream


def _packed(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Each batch as the only value of another."""
    for batch in batches:
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, batch.schema) as stream:
            stream.write_batch(batch)
        yield pa.RecordBatch.from_pydict({"batch": [sink.getvalue()]})
