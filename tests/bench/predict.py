"""Predictions over DataFrames: against plain torch without Spark, and against pyspark's predict_batch_udf.

    python -m tests.bench.predict                          two cores; about 4 minutes
    python -m tests.bench.predict --pictures 20000 --rows 200000 --many 0

    cifar10_quick    pictures in memory of Spark; plain: one process a core, channels last, one thread each
    perceptron       three layers on 100 columns of doubles
    memory           resident memory of Python's workers over --many rows

Taken in turns, ``--repeats`` times each; the best of each counts: other programs only take away from it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import pyarrow as pa
import torch
from pyspark.ml.functions import predict_batch_udf
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, FloatType
from torch import nn

from apps.solvers import load
from sparknet.caffe_replica import InferenceNet
from sparknet.data import Examples, Transform
from sparknet.inference import BATCH_SIZE, Inference
from sparknet.spark import frame_of, session
from sparknet.spark.columns import select
from sparknet.spark.predict import Lists, Output, predicted
from tests.bench.plain_nets import cifar10_quick

CORES, COLUMNS, MEAN = 2, 100, 120.0
ROOT = Path(__file__).resolve().parent.parent.parent
SCORES = [Output("scores", "", Lists())]
GOALS = {"plain": 0.9, "pictures": 2.5, "table": 1.5}


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(COLUMNS, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )


def pixels(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), np.uint8)


def plain_child(count: int, repeats: int) -> None:
    """One process of the comparison without Spark: says how long each pass took, when told to begin."""
    torch.set_num_threads(1)
    rows, net = pixels(count), cifar10_quick().eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def once() -> None:
        with torch.inference_mode():
            for start in range(0, count, BATCH_SIZE):
                batch = torch.from_numpy(rows[start : start + BATCH_SIZE]).float() - MEAN
                net(batch.contiguous(memory_format=torch.channels_last)).numpy()

    once()
    for _ in range(repeats):
        click.echo("ready")
        sys.stdin.readline()
        once()
        click.echo("done")


class Plain:
    """Plain torch, one process a core."""

    def __init__(self, count: int, repeats: int) -> None:
        self.count = count
        command = [sys.executable, "-m", "tests.bench.predict", "--child", str(count // CORES)]
        self.processes = [
            subprocess.Popen(
                [*command, "--repeats", str(repeats)],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(CORES)
        ]

    def __call__(self) -> float:
        for process in self.processes:
            assert process.stdout is not None
            process.stdout.readline()
        started = time.perf_counter()
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        for process in self.processes:
            assert process.stdout is not None
            process.stdout.readline()
        return self.count / (time.perf_counter() - started)


def written(frame: DataFrame, count: int) -> float:
    """Rows/s of making all of ``frame``, and keeping none."""
    started = time.perf_counter()
    frame.write.format("noop").mode("overwrite").save()
    return count / (time.perf_counter() - started)


def in_turns(ways: dict[str, Callable[[], float]], repeats: int) -> dict[str, float]:
    """The best rate of each way."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            rates[name].append(way())
    return {name: max(each) for name, each in rates.items()}


def udf_of_pictures() -> Any:
    def make() -> Callable[..., Any]:
        torch.set_num_threads(1)
        net = cifar10_quick().eval()

        def predict(inputs: Any) -> Any:
            with torch.inference_mode():
                return net(torch.from_numpy(inputs.astype(np.float32)) - MEAN).numpy()

        return predict

    kind = ArrayType(FloatType())
    return predict_batch_udf(make, return_type=kind, batch_size=BATCH_SIZE, input_tensor_shapes=[[3, 32, 32]])


def udf_of_columns() -> Any:
    def make() -> Callable[..., Any]:
        torch.set_num_threads(1)
        net = perceptron().eval()

        def predict(inputs: Any) -> Any:
            with torch.inference_mode():
                return net(torch.from_numpy(inputs.astype(np.float32))).numpy()

        return predict

    return predict_batch_udf(make, return_type=ArrayType(FloatType()), batch_size=1000)


def of_pictures(spark: SparkSession, count: int, repeats: int) -> None:
    plain = Plain(count, repeats)
    frame = frame_of(spark, Examples(pixels(count), np.zeros(count, np.int64))).repartition(CORES).cache()
    frame.count()
    model = load("cifar10_quick_solver.prototxt", (3, 32, 32), batch_size=100, test_batch_size=100)
    weights = np.array(model().weights.numpy())
    inference = Inference(build=InferenceNet(model), transforms=Transform(mean=np.full(1, MEAN, np.float32)))
    ours = predicted(frame, inference, weights, select(frame, features="image"), SCORES)
    # predict_batch_udf takes arrays of numbers: it is given them as they are
    numbers = numbers_of(frame).cache()
    numbers.count()
    udf = numbers.withColumn("scores", udf_of_pictures()("numbers"))
    ways: dict[str, Callable[[], float]] = {
        "plain torch": plain,
        "sparknet": lambda: written(ours, count),
        "predict_batch_udf": lambda: written(udf, count),
    }
    written(ours, count)
    written(udf, count)
    rates = in_turns(ways, repeats)
    numbers.unpersist()
    frame.unpersist()
    click.echo(f"cifar10_quick, {count:,} pictures, {CORES} cores")
    for name, rate in rates.items():
        click.echo(f"    {name:<20} {rate:>12,.0f} pictures/s")
    _judge("of plain torch", rates["sparknet"] / rates["plain torch"], GOALS["plain"])
    _judge("times predict_batch_udf", rates["sparknet"] / rates["predict_batch_udf"], GOALS["pictures"])


def numbers_of(frame: DataFrame) -> DataFrame:
    """The bytes of ``image`` as an array<float>."""

    def served(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            rows = np.frombuffer(b"".join(batch.column(0).to_pylist()), np.uint8).astype(np.float32)
            offsets = pa.array(np.arange(batch.num_rows + 1, dtype=np.int32) * (len(rows) // batch.num_rows))
            yield pa.RecordBatch.from_arrays([pa.ListArray.from_arrays(offsets, pa.array(rows))], ["numbers"])

    return frame.select("image").mapInArrow(served, "numbers array<float>")


def of_columns(spark: SparkSession, count: int, repeats: int) -> None:
    names = [f"x{k}" for k in range(COLUMNS)]
    frame = spark.range(0, count, 1, CORES).select(*(F.rand(k).alias(name) for k, name in enumerate(names)))
    frame = frame.cache()
    frame.count()
    inference = Inference(build=perceptron, batch_size=1000)
    weights = torch.cat([p.detach().flatten() for p in perceptron().parameters()]).numpy()
    ours = predicted(frame, inference, weights, select(frame, features=names), SCORES)
    udf = frame.withColumn("scores", udf_of_columns()(F.struct(*names)))
    ways: dict[str, Callable[[], float]] = {
        "sparknet": lambda: written(ours, count),
        "predict_batch_udf": lambda: written(udf, count),
    }
    for way in ways.values():
        way()
    rates = in_turns(ways, repeats)
    frame.unpersist()
    click.echo(f"three layers on {COLUMNS} columns, {count:,} rows, {CORES} cores")
    for name, rate in rates.items():
        click.echo(f"    {name:<20} {rate:>12,.0f} rows/s")
    _judge("times predict_batch_udf", rates["sparknet"] / rates["predict_batch_udf"], GOALS["table"])


def of_memory(spark: SparkSession, count: int) -> None:
    frame = spark.range(0, count, 1, 8).select(F.array(*(F.rand(k) for k in range(4))).alias("x"))
    inference = Inference(build=lambda: nn.Linear(4, 2), batch_size=10_000)
    weights = np.zeros(10, np.float32)
    ours = predicted(frame, inference, weights, select(frame, features="x", shapes={"x": (4,)}), SCORES)
    with resident() as sizes:
        rate = written(ours, count)
    half = len(sizes) // 2
    early, late = max(sizes[half // 2 : half]), max(sizes[half:])
    click.echo(f"memory of Python's workers over {count:,} rows, {rate:,.0f} rows/s")
    click.echo(f"    {early / 2**20:,.0f} MiB before half of the time, {late / 2**20:,.0f} MiB after it")
    _judge("of the memory before", early / late, 0.95)


@contextmanager
def resident() -> Iterator[list[int]]:
    """The resident memory of all Python below this process, every tenth of a second."""
    sizes: list[int] = []
    over = threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not over.wait(0.1):
            total = 0
            for process in me.children(recursive=True):
                try:
                    total += process.memory_info().rss if "python" in process.name() else 0
                except psutil.Error:
                    continue
            sizes.append(total)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield sizes
    finally:
        over.set()
        thread.join()


def _judge(what: str, found: float, goal: float) -> None:
    click.echo(f"    {found:.2f} {what}, goal {goal:g}: {'met' if found >= goal else 'MISSED'}")


@click.command()
@click.option("--pictures", default=50_000, show_default=True)
@click.option("--rows", default=500_000, show_default=True)
@click.option("--many", default=10_000_000, show_default=True, help="Rows for the memory; 0: leave it out.")
@click.option("--repeats", default=3, show_default=True)
@click.option("--child", default=0, hidden=True)
def main(pictures: int, rows: int, many: int, repeats: int, child: int) -> None:
    """Measure predictions over DataFrames."""
    if child:
        plain_child(child, repeats)
        return
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    warnings.filterwarnings("ignore", message="PySpark does not yet fully support pandas")
    options = {
        "spark.ui.enabled": "false",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "4g",
        "spark.log.level": "OFF",
        "spark.sql.execution.arrow.maxRecordsPerBatch": "2000",
    }
    spark = session("predict", f"local[{CORES}]", options)
    click.echo(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if pictures:
        of_pictures(spark, pictures, repeats)
    if rows:
        of_columns(spark, rows, repeats)
    if many:
        of_memory(spark, many)
    click.echo(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    spark.stop()


if __name__ == "__main__":
    main()
