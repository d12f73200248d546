"""LeNet on MNIST against pyspark's ``MultilayerPerceptronClassifier``, in one session, one after the other.

    python -m tests.bench.mllib_mnist                      two cores; about 3 minutes
    python -m tests.bench.mllib_mnist --epochs 1 --iterations 50

    MLlib       layers 784, --hidden, 10; --iterations of L-BFGS at most; pixels 0 to 1 in ML vectors
    sparknet    Caffe's LeNet and its solver, --epochs; pixels as bytes

Both read what Spark has in memory before the clock starts, and both clocks run from ``fit`` to its end: the
start of workers counts. Accuracy is that on the 10,000 pictures of the test set, outside of the clock. Goals:
a better accuracy, in half of the time at most.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
from pyspark.ml.classification import MultilayerPerceptronClassifier
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.functions import array_to_vector
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparknet.data import Examples, Transform
from sparknet.data.locate import AUTO, locate
from sparknet.spark import frame_of, session
from sparknet.trainer import Trainer

CORES, GOAL = 2, 0.5
SOLVER = Path(__file__).resolve().parents[2] / "apps" / "models" / "lenet_solver.prototxt"


def in_memory(frame: DataFrame) -> DataFrame:
    cached = frame.repartition(CORES).cache()
    cached.count()
    return cached


def vectors(spark: SparkSession, examples: Examples) -> DataFrame:
    """``features``, an ML vector of 784 numbers from 0 to 1, and ``label``, a double."""
    pixels = (examples.images.reshape(len(examples), -1) / np.float32(256)).astype(np.float32)
    offsets = pa.array(np.arange(len(pixels) + 1, dtype=np.int32) * pixels.shape[1])
    rows = pa.ListArray.from_arrays(offsets, pa.array(pixels.reshape(-1)))
    table = pa.table({"pixels": rows, "label": examples.labels.astype(np.float64)})
    made = spark.createDataFrame(table)
    return in_memory(made.select(array_to_vector(F.col("pixels")).alias("features"), "label"))


def timed(fit: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    return fit(), time.perf_counter() - started


def of_mllib(
    train: DataFrame, test: DataFrame, hidden: tuple[int, ...], iterations: int
) -> tuple[float, float]:
    classifier = MultilayerPerceptronClassifier(layers=[784, *hidden, 10], maxIter=iterations, seed=0)
    model, seconds = timed(lambda: classifier.fit(train))
    accuracy = MulticlassClassificationEvaluator(metricName="accuracy").evaluate(model.transform(test))
    return accuracy, seconds


def of_sparknet(train: DataFrame, test: DataFrame, epochs: float) -> tuple[float, float]:
    trainer = Trainer(model=SOLVER, transform=Transform(scale=1 / 256), epochs=epochs, batch_size=64)
    trained, seconds = timed(lambda: trainer.fit(train))
    right = trained.predict(test).agg(F.avg((F.col("label") == F.col("prediction")).cast("double"))).first()
    assert right is not None
    return right[0], seconds


@click.command()
@click.option("--data", default=AUTO, show_default=True, help="The folder that holds MNIST.")
@click.option("--hidden", default=(128,), multiple=True, show_default=True, help="MLlib's hidden layers.")
@click.option("--iterations", default=100, show_default=True, help="MLlib's, its default.")
@click.option("--epochs", default=2.0, show_default=True, help="Ours.")
@click.option("--pictures", default=60_000, show_default=True, help="Trained on.")
def main(data: str, hidden: tuple[int, ...], iterations: int, epochs: float, pictures: int) -> None:
    """Compare accuracy and wall time with MLlib's."""
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
    located = locate("mnist", data)
    mnist = located.dataset
    options = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "4g",
        "spark.log.level": "OFF",
    }
    spark = session("MNIST", f"local[{CORES}]", options)
    click.echo(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    train = mnist.train[:pictures]
    theirs, their_seconds = of_mllib(vectors(spark, train), vectors(spark, mnist.test), hidden, iterations)
    spark.catalog.clearCache()
    ours, our_seconds = of_sparknet(
        in_memory(frame_of(spark, train)), in_memory(frame_of(spark, mnist.test)), epochs
    )
    spark.stop()
    click.echo(f"{located.origin}: {len(train):,} pictures, {CORES} cores")
    click.echo(f"    MLlib       {their_seconds:>7.1f} s    accuracy {theirs:.2%}")
    click.echo(f"    sparknet    {our_seconds:>7.1f} s    accuracy {ours:.2%}")
    click.echo(f"    accuracy better: {'met' if ours > theirs else 'MISSED'}")
    share = our_seconds / their_seconds
    click.echo(f"    {share:.2f} of MLlib's time, goal {GOAL:g}: {'met' if share <= GOAL else 'MISSED'}")
    click.echo(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
