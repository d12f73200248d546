"""A session of Spark Connect: predictions work, and training says where it does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from sparknet.data.records import Column
from sparknet.torch_model import TorchModel
from sparknet.trainer import Trained, save

pytest.importorskip("grpc_status", reason="needs the packages of pyspark[connect]")
pytestmark = [pytest.mark.slow, pytest.mark.spark]

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import sys
from pyspark.sql import SparkSession
from torch import nn
from sparknet.errors import UsageError
from sparknet.ml import SparkNetClassifier
from sparknet.trainer import Trainer, load

spark = SparkSession.builder.remote("local[1]").getOrCreate()
rows = [(float(k), -float(k), k % 2) for k in range(10)]
frame = spark.createDataFrame(rows, "a double, b double, label int")
assert type(frame).__module__.startswith("pyspark.sql.connect")
trained = load(sys.argv[1])
rows = trained.predict(frame).select("a", "prediction").collect()
print("predicted", [round(row.prediction, 3) for row in rows])
for name, fit in {
    "trainer": lambda: Trainer(model=nn.Linear(2, 2), features=["a", "b"]).fit(frame),
    "estimator": lambda: SparkNetClassifier(featuresCol="a").fit(frame),
}.items():
    try:
        fit()
    except UsageError as error:
        print(name, "refused:", error)
spark.stop()
"""


def test_what_works_over_connect_does_and_the_rest_says_what_to_do(tmp_path: Path) -> None:
    trained = Trained(
        model=TorchModel(module=nn.Linear(2, 1)),
        weights=np.array([1, 2, 0.5], np.float32),
        features=["a", "b"],
        schema={"data": Column(np.dtype(np.float32), (2,))},
        kind="numbers",
    )
    save(trained, str(tmp_path / "net"))
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path / "net")],
        cwd=ROOT,
        env={**os.environ, "SPARK_LOCAL_IP": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert f"predicted {[0.5 - k for k in range(10)]}" in ran.stdout
    assert "trainer refused: this DataFrame is of Spark Connect" in ran.stdout
    assert "estimator refused: SparkNetClassifier cannot train in a session of Spark Connect" in ran.stdout
    assert "AttributeError" not in ran.stdout
