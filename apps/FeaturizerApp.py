"""Add to pictures what a trained net makes of them: a column of features, for any other learner.

    python apps/FeaturizerApp.py --weights model.caffemodel --blob ip1 --output features
    spark-submit --master spark://host:7077 --py-files trainer.zip apps/FeaturizerApp.py ...

The pictures are the test set of CIFAR-10, less the mean image, or a Parquet folder with ``image`` (binary,
c * h * w bytes, fed as they are) and any other columns, as ``sparknet.spark.frame_of`` makes it.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from pyspark.sql import DataFrame, SparkSession

from apps.options import launch
from apps.progress import Downloading
from apps.session import open_session
from apps.solvers import load
from sparknet.data import Transform
from sparknet.data.locate import locate
from sparknet.spark import frame_of
from sparknet.spark.features import with_features
from sparknet.spark.frames import shape_of

SOLVER = "cifar10_quick_solver.prototxt"


@click.command()
@click.option("--weights", type=click.Path(exists=True, dir_okay=False), required=True, help="A .caffemodel.")
@click.option(
    "--solver", default=SOLVER, show_default=True, help="Whose net it is: a path, or one of the apps'."
)
@click.option("--blob", default="ip1", show_default=True, help="What of the net becomes the features.")
@click.option("--data", default="auto", show_default=True, metavar="DIR|auto|synthetic", help="The pictures.")
@click.option(
    "--output", required=True, help="Where the Parquet goes: a folder, s3a://...; replaced if there."
)
def main(weights: str, solver: str, blob: str, data: str, output: str) -> None:
    """Add a column of features to pictures: what a net has in one of its blobs when it sees them."""
    with open_session("SparkNet features") as spark:
        frame, transform = _pictures(spark, data)
        model = load(solver, shape_of(frame), batch_size=100, test_batch_size=100)
        replica = model()
        replica.net.copy_from(weights)
        vector = np.array(replica.weights.cpu().numpy())
        featured = with_features(frame, model, vector, transform, blob)
        featured.write.mode("overwrite").parquet(output)
        click.echo(f"{frame.count():,} pictures with {blob} of {model.net.name} are in {output}")


def _pictures(spark: SparkSession, data: str) -> tuple[DataFrame, Transform]:
    if Path(data).is_dir() and any(Path(data).glob("*.parquet")):
        return spark.read.parquet(data), Transform()
    located = locate("cifar10", data, progress=Downloading())
    click.echo(f"data: {located.origin}")
    return frame_of(spark, located.dataset.test), Transform(mean=located.dataset.train.mean_image())


if __name__ == "__main__":
    launch(main)
