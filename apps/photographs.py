"""Photographs to train on, which the workers read themselves; see ``sparknet.data.imagenet``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD
from pyspark.sql import SparkSession

from apps.training import TrainingData
from sparknet.caffe.io import blobproto_to_array
from sparknet.caffe.schema.caffe_pb2 import BlobProto
from sparknet.data import Examples, Transform, imagenet
from sparknet.data.imagenet import Labels
from sparknet.db.imagenet import MEAN as MEAN_FILE
from sparknet.errors import DataError
from sparknet.sources import files, manifest

# blue, green and red over the training set of ILSVRC-2012: the mean of Caffe's imagenet_mean.binaryproto
MEAN = np.array([104.0069, 116.6688, 122.6789], np.float32)


def training_data(
    folder: Path, labels: Labels, transform: Transform, *, test_images: int, seed: int
) -> TrainingData:
    """Train on ``folder``'s train/ and test on its val/, or else on nine tenths and one tenth of it.

    The driver holds the pictures that are tested with, at most ``test_images``. Raises DataError without any.
    """
    split = (folder / "train").is_dir() and (folder / "val").is_dir()
    train, val = (imagenet.sources(folder / part if split else folder) for part in ("train", "val"))
    halves = ("all", "all") if split else ("train", "test")

    def shards(spark: SparkSession, count: int) -> RDD[Examples]:
        parts = spark.sparkContext.parallelize(imagenet.slices(train, count, halves[0]), count)
        return parts.flatMap(lambda part: part.examples(labels, seed=seed))

    test = imagenet.first(imagenet.slices(val, 1, halves[1])[0].examples(labels, seed=seed), test_images)
    return TrainingData(
        shards=shards,
        test=test,
        origin=f"photographs in {len(train)} archives or folders of {folder}, {len(test):,} to test on",
        transform=transform,
        test_batch_size=50,
    )


def is_source(data: str) -> bool:
    """Whether it is read as a source: made by ``sparknet imagenet prepare``, or lies elsewhere."""
    if not files.is_remote(data) and not Path(data).is_dir():
        return False
    return files.is_remote(data) or manifest.read(data) is not None


def prepared_mean(data: str | None) -> Path | None:
    """The mean image that lies with prepared data, copied here if need be."""
    url = files.joined(data, MEAN_FILE) if data else ""
    return files.local_copy(url) if url and files.exists(url) else None


def mean_of(file: Path | None) -> NDArray[np.float32]:
    """The mean image (3, 256, 256) in a ``.binaryproto``, or ImageNet's three values without one."""
    if file is None:
        return MEAN
    try:
        blob = BlobProto.FromString(file.read_bytes())
        return blobproto_to_array(blob).reshape(3, imagenet.SIDE, imagenet.SIDE).astype(np.float32)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is no mean image of 3 x 256 x 256: {error}") from error
