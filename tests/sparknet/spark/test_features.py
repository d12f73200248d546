"""Features from a net in the executors, against the same sums made with numpy here."""

from __future__ import annotations

import numpy as np
import pytest
from pyspark.sql import SparkSession

from sparknet.caffe.schema import parse_net, parse_solver, replace_data_layers
from sparknet.caffe_replica import CaffeModel
from sparknet.data import Transform
from sparknet.errors import ModelError, UsageError
from sparknet.spark import frame_of
from sparknet.spark.features import with_features
from tests.sparknet.small import pictures

pytestmark = [pytest.mark.spark, pytest.mark.slow]

NET = """
name: "two sums"
layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "db" batch_size: 4 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
MODEL = CaffeModel(
    net=replace_data_layers(parse_net(NET), 4, 4, 1, 4, 4),
    solver=parse_solver('base_lr: 0.1 lr_policy: "fixed"'),
    device="cpu",
)
WEIGHTS = np.random.default_rng(0).normal(size=3 * 16 + 3).astype(np.float32)


def test_every_picture_gets_its_own_features_and_keeps_its_columns(spark: SparkSession) -> None:
    examples = pictures(50)
    frame = frame_of(spark, examples).repartition(3)
    mean = np.array([9], np.float32)
    rows = with_features(frame, MODEL, WEIGHTS, Transform(mean=mean, scale=0.5), "ip", batch_size=7).collect()
    assert len(rows) == 50
    by_pixels = {image.tobytes(): i for i, image in enumerate(examples.images)}
    inputs = (examples.images.reshape(50, 16).astype(np.float64) - 9) * 0.5
    expected = inputs @ WEIGHTS[:48].reshape(3, 16).T.astype(np.float64) + WEIGHTS[48:]
    for row in rows:
        record = by_pixels[bytes(row.image)]
        assert row.label == examples.labels[record]
        np.testing.assert_allclose(row.features, expected[record], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("blob", "says"),
    [("fc7", 'no blob "fc7": it has data, label, ip, loss'), ("loss", "not one row for each")],
)
def test_a_blob_that_gives_no_features_is_refused_before_the_job(
    spark: SparkSession, blob: str, says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        with_features(frame_of(spark, pictures(5)), MODEL, WEIGHTS, Transform(), blob)


def test_a_column_is_never_replaced(spark: SparkSession) -> None:
    with pytest.raises(UsageError, match="has a column label already"):
        with_features(frame_of(spark, pictures(5)), MODEL, WEIGHTS, Transform(), "ip", column="label")


def test_weights_of_another_net_are_refused(spark: SparkSession) -> None:
    with pytest.raises(ModelError, match="belong to another net"):
        with_features(frame_of(spark, pictures(5)), MODEL, WEIGHTS[:-1], Transform(), "ip")
