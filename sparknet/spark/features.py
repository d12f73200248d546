"""What a net makes of the pictures of a DataFrame: any blob of it, as a further column.

frame = with_features(frame_of(spark, examples), model, weights, transform, "ip1")
frame.select("label", "features")
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pyspark import Broadcast
from pyspark.sql import DataFrame
from pyspark.sql.types import ArrayType, FloatType, StructField, StructType

from sparknet.caffe.net import Net
from sparknet.caffe_replica import CaffeModel
from sparknet.data import Transform
from sparknet.data.dataset import Pixels
from sparknet.errors import ModelError, UsageError
from sparknet.spark.frames import Shape, pixels_of, shape_of
from sparknet.weights import Vector


def with_features(
    frame: DataFrame,
    model: CaffeModel,
    weights: Vector,
    transform: Transform,
    blob: str,
    *,
    column: str = "features",
    batch_size: int = 100,
    shape: Shape | None = None,
) -> DataFrame:
    """``frame`` and a column of array<float>: ``blob`` of the net in its test phase, flattened.

    ``frame`` has ``image``, as ``frame_of`` makes it; its other columns stay. ``weights`` float32 (P,) go to
    every executor once. Raises ModelError for a blob that the net does not have or that is not one row for
    each picture, UsageError if ``column`` is there already.
    """
    if column in frame.columns:
        raise UsageError(f"the DataFrame has a column {column} already: choose another name for the features")
    size = shape or shape_of(frame)
    # one picture through the net here: what is wrong with net, weights or blob shows before the job starts
    _features(_net(model, weights), transform, np.zeros((1, *size), np.uint8), blob)
    sent: Broadcast[Vector] = frame.sparkSession.sparkContext.broadcast(weights)

    def serve(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        net = _net(model, sent.value)
        for batch in batches:
            pictures = pixels_of(batch.column("image"), size)
            parts = range(0, len(pictures), batch_size)
            rows = [_features(net, transform, pictures[i : i + batch_size], blob) for i in parts]
            yield batch.append_column(column, _lists(np.concatenate(rows)))

    return frame.mapInArrow(serve, StructType([*frame.schema, StructField(column, ArrayType(FloatType()))]))


def _net(model: CaffeModel, weights: Vector) -> Net:
    replica = model()
    replica.layout.check(weights.size)
    replica.weights.copy_(torch.from_numpy(np.array(weights)))
    return replica.test_net


def _features(net: Net, transform: Transform, pictures: Pixels, blob: str) -> NDArray[np.float32]:
    """float32 (n, f)."""
    if blob not in net.blobs:
        raise ModelError(f'the net has no blob "{blob}": it has {", ".join(net.blobs)}')
    data = transform(torch.from_numpy(pictures.copy()).to(net.device), train=False)
    labels = torch.zeros(len(data), device=net.device)  # for losses and scores that nobody looks at
    net.forward(dict(zip(net.input_names, (data, labels), strict=False)))
    found = net.blobs[blob].data
    if found.ndim == 0 or len(found) != len(data):
        raise ModelError(
            f'blob "{blob}" is {tuple(found.shape)} for {len(data)} pictures: not one row for each'
        )
    rows: NDArray[np.float32] = found.reshape(len(data), -1).cpu().numpy().copy()
    return rows


def _lists(rows: NDArray[np.float32]) -> pa.Array:
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * rows.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(rows.reshape(-1)))
