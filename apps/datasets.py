"""Training on records that lie anywhere: what ``--images`` and ``--dataset`` name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pyspark import RDD
from pyspark.sql import SparkSession

from apps.options import Options
from apps.training import TrainingData
from sparknet.data import Examples, Transform
from sparknet.errors import DataError
from sparknet.sources import open_source
from sparknet.sources.choosing import held_out, limited, shuffled
from sparknet.sources.pictures import PictureSource
from sparknet.sources.source import Part, Source

TEST_PICTURES, MEAN_PICTURES = 10_000, 10_000
"""At most so many are tested with, in every test, and make the mean image."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """How an app's net wants them: all of one size, channels in this order."""

    size: tuple[int, int]
    channels: Literal[1, 3] = 3
    order: Literal["rgb", "bgr"] = "rgb"


def training_data(
    options: Options,
    url: str,
    pictures: Pictures,
    transform: Callable[[Source], Transform],
    *,
    most_tested: int = TEST_PICTURES,
    test_batch_size: int = 100,
) -> TrainingData:
    """Train on the source at ``url``, or its half for training; test on the other, or on a tenth held out.

    What is tested with, at most ``most_tested`` pictures, is in the driver; the rest is read by the workers.
    Raises DataError for what is no source of labelled pictures.
    """
    train, test = _halves(options, url, pictures)
    if "label" not in train.schema:
        raise DataError(f"{train.name}: there are no labels, by which it could be trained")
    train = shuffled(train, options.seed)

    def shards(spark: SparkSession, count: int) -> RDD[Examples]:
        return spark.sparkContext.parallelize(list(train.parts(count)), count).flatMap(examples_of)

    tested = _examples(limited(test, most_tested))
    return TrainingData(
        shards=shards,
        test=tested,
        origin=f"{train.name}, {len(train.samples):,} to train on and {len(tested):,} to test on",
        transform=transform(train),
        test_batch_size=min(test_batch_size, len(tested)),
        classes=train.classes or (),
    )


def examples_of(part: Part) -> Iterator[Examples]:
    """The blocks of a part. Raises DataError for labels that are no classes."""
    for block in part.blocks():
        if block["label"].dtype != np.int64:
            raise DataError(f"labels are {block['label'].dtype}: the apps train on classes, whole numbers")
        yield Examples(block["image"], block["label"])


def mean_image(source: Source) -> NDArray[np.float32]:
    """The mean of its pictures, or of some from all over it, float32 (c, h, w)."""
    return _examples(limited(source, MEAN_PICTURES)).mean_image()


def _halves(options: Options, url: str, pictures: Pictures) -> tuple[PictureSource, PictureSource]:
    train = _opened(options, url, pictures, "train")
    return (train, _opened(options, url, pictures, "test")) if train.half else held_out(train)


def _opened(options: Options, url: str, pictures: Pictures, split: Literal["train", "test"]) -> PictureSource:
    source = open_source(
        url,
        kind="folder" if options.images else None,
        split=split,
        size=pictures.size,
        channels=pictures.channels,
        order=pictures.order,
    )
    if not isinstance(source, PictureSource):
        raise DataError(f"{source.name}: these are no labelled pictures")
    return source


def _examples(source: Source) -> Examples:
    blocks = [block for part in source.parts(1) for block in examples_of(part)]
    if not blocks:
        raise DataError(f"{source.name}: there is not one picture")
    images = np.concatenate([block.images for block in blocks])
    return Examples(images, np.concatenate([block.labels for block in blocks]))
