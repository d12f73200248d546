"""Sources become DataFrames, and DataFrames databases, without a change of a bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from sparknet.data import Examples
from sparknet.db import Making, create
from sparknet.errors import DataError
from sparknet.sources import open_source
from sparknet.spark import frame_of
from sparknet.spark.sources import frame_of_source, source_of_frame
from tests.sparknet.sources.test_sources import records, same
from tests.sparknet.sources.writing import drawn, put_folder, put_lmdb

pytestmark = pytest.mark.spark


def test_a_source_becomes_a_frame_and_a_frame_a_database(spark: SparkSession, tmp_path: Path) -> None:
    put_folder(tmp_path / "photos", drawn(60))
    frame = frame_of_source(spark, open_source(str(tmp_path / "photos")), 3)
    assert frame.rdd.getNumPartitions() == 3
    rows = frame.collect()
    images = np.stack([np.frombuffer(row.image, np.uint8).reshape(3, 32, 32) for row in rows])
    assert same(Examples(images, np.array([row.label for row in rows])), drawn(60))
    create(source_of_frame(frame), str(tmp_path / "db"), "lmdb", Making(encoding="keep", seed=4))
    found = records(open_source(str(tmp_path / "db")))
    assert same(found, drawn(60)[np.random.default_rng(4).permutation(60)])


def test_frames_of_every_kind_of_picture_are_written(spark: SparkSession, tmp_path: Path) -> None:
    put_folder(tmp_path / "photos", drawn(12))
    raw = frame_of(spark, drawn(12))
    binary = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(f"{tmp_path}/photos")
    encoded = binary.orderBy("path").selectExpr("content as image", "path as label")
    struct = spark.read.format("image").load(f"{tmp_path}/photos/*").orderBy("image.origin")
    for name, frame in (("raw", raw), ("encoded", encoded), ("struct", struct)):
        created = create(source_of_frame(frame), str(tmp_path / name), "lmdb", Making(order="rgb"))
        assert created.records == 12
        found = next(iter(open_source(str(tmp_path / name)).parts(1)[0].blocks()))
        assert np.array_equal(found["image"], drawn(12).images), name


def test_a_frame_without_pictures_is_refused(spark: SparkSession) -> None:
    with pytest.raises(DataError, match="the DataFrame has the columns a, b: image is needed"):
        source_of_frame(spark.createDataFrame([(1, 2)], "a int, b int"))
    with pytest.raises(DataError, match="the column image is int: binary, or Spark's image struct"):
        source_of_frame(spark.createDataFrame([(1,)], "image int"))


def test_tasks_read_one_database_at_the_same_time(spark: SparkSession, tmp_path: Path) -> None:
    from tests.sparknet.sources.writing import put_leveldb

    put_leveldb(tmp_path / "leveldb", drawn(60), encoded=False)
    put_lmdb(tmp_path / "lmdb", drawn(60), encoded=False)
    for name in ("leveldb", "lmdb"):
        source = open_source(str(tmp_path / name))
        assert frame_of_source(spark, source, 4).count() == 60
