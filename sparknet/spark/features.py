"""What a net makes of the pictures of a DataFrame: any blob of it, as a further column.

frame = with_features(frame_of(spark, examples), model, weights, transform, "ip1")
frame.select("label", "features")
"""

from __future__ import annotations

from pyspark.sql import DataFrame

from sparknet.caffe_replica import CaffeModel, InferenceNet
from sparknet.data import Transform
from sparknet.inference import BATCH_SIZE, Inference
from sparknet.spark.columns import select
from sparknet.spark.frames import Shape, shape_of
from sparknet.spark.predict import Lists, Output, predicted
from sparknet.weights import Vector


def with_features(
    frame: DataFrame,
    model: CaffeModel,
    weights: Vector,
    transform: Transform,
    blob: str,
    *,
    column: str = "features",
    batch_size: int = BATCH_SIZE,
    shape: Shape | None = None,
) -> DataFrame:
    """``frame`` and a column of array<float>: ``blob`` of the net in its test phase, flattened.

    ``frame`` has ``image``, as ``frame_of`` makes it; its other columns stay. ``weights`` float32 (P,) go to
    every executor once. Raises ModelError for a blob that the net does not have or that is not one row for
    each picture, UsageError if ``column`` is there already.
    """
    selection = select(frame, features="image", shapes={"image": shape or shape_of(frame)})
    inference = Inference(
        build=InferenceNet(model), outputs=(blob,), transforms=transform, batch_size=batch_size
    )
    return predicted(frame, inference, weights, selection, [Output(column, blob, Lists())])
