"""Any columns and any net through ``Trainer``, on a real Spark of two slots."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pytest
import torch
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from torch import nn

from sparknet.data import Examples, Records, Transform
from sparknet.errors import DataError, ModelError, UsageError
from sparknet.reporting.metrics import Record
from sparknet.spark import frame_of
from sparknet.trainer import EarlyStopping, Trained, Trainer, load, save
from sparknet.training import Round
from tests.sparknet.small import pictures

pytestmark = [
    pytest.mark.slow,
    pytest.mark.spark,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
]

ROWS = 400
NAMES = ["a", "b", "c"]
SOLVER = """
net_param {
  name: "small"
  layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "db" batch_size: 4 } }
  layer { name: "ip1" type: "InnerProduct" bottom: "data" top: "ip1"
          inner_product_param { num_output: 12 weight_filler { type: "xavier" } } }
  layer { name: "relu" type: "ReLU" bottom: "ip1" top: "ip1" }
  layer { name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2"
          inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
  layer { name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy"
          include { phase: TEST } }
  layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }
}
base_lr: 0.1 momentum: 0.9 lr_policy: "fixed"
"""


@pytest.fixture(scope="module")
def table(spark: SparkSession) -> DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 3))
    rows = pd.DataFrame(x, columns=NAMES)
    rows["y"] = x[:, 0] - 2 * x[:, 1]
    rows["kind"] = np.where(rows.y > 0, "warm", "cold")
    rows["vector"] = [x.tolist() for x in x]
    frame = spark.createDataFrame(rows).withColumn("label", (F.col("y") > 0).cast("int")).cache()
    frame.count()
    return frame


def regression() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 1))


def two_classes() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 2))


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(1, 8), nn.Linear(2, 8)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        return (self.first(first) + self.second(second)).sum(1)


def trainer(**options: Any) -> Trainer:
    settings = {
        "model": regression,
        "loss": "mse",
        "lr": 0.02,
        "features": NAMES,
        "label": "y",
        "epochs": 8,
        "batch_size": 20,
        **options,
    }
    return Trainer(**settings)


def classes(**options: Any) -> Trainer:
    return trainer(**{"model": two_classes, "loss": "cross_entropy", "label": "label", **options})


def test_a_table_of_numbers_is_learned_and_predicted(table: DataFrame) -> None:
    trained = trainer(metrics=["mae"]).fit(table, validation=0.2)
    assert set(trained.history[-1].scores) == {"loss", "mae"}
    assert trained.history[-1].loss < 0.2 * trained.history[0].loss
    found = trained.predict(table).select("y", "prediction").toPandas()
    assert ((found.y - found.prediction) ** 2).mean() < 0.1 * found.y.var()


def test_twelve_columns_are_learned_as_well_as_by_scikit_learn(spark: SparkSession) -> None:
    """The same net by its MLPRegressor, for as many epochs: R2 on rows that were held out."""
    networks = pytest.importorskip("sklearn.neural_network", reason="needs scikit-learn")
    rng = np.random.default_rng(1)
    x, names = rng.normal(size=(1500, 12)), [f"x{k}" for k in range(12)]
    y = x[:, 0] * x[:, 1] + np.sin(2 * x[:, 2]) + x[:, 3:] @ rng.normal(size=9)
    table = pd.DataFrame(x, columns=names).assign(y=y)
    train, test = table[:1200], table[1200:]

    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 1))

    settings = {"learning_rate_init": 0.003, "batch_size": 32, "max_iter": 40, "tol": 0, "random_state": 0}
    theirs = networks.MLPRegressor(hidden_layer_sizes=(32,), **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it could train for longer
        theirs.fit(train[names], train.y)
    options = {"model": net, "features": names, "lr": 0.006, "epochs": 40, "batch_size": 16}
    ours = trainer(**options).fit(spark.createDataFrame(train))
    found = ours.predict(spark.createDataFrame(test)).toPandas()
    r2 = 1 - ((found.y - found.prediction) ** 2).sum() / ((found.y - found.y.mean()) ** 2).sum()
    assert r2 > theirs.score(test[names], test.y) - 0.02


@pytest.mark.parametrize("kind", ["boolean", "byte", "double", "decimal(3,1)", "string"])
def test_classes_may_be_of_any_type_and_strings_come_back_as_strings(table: DataFrame, kind: str) -> None:
    label = F.col("kind") if kind == "string" else F.col("label").cast(kind)
    frame = table.withColumn("target", label)
    trained = classes(label="target").fit(frame)
    found = trained.predict(frame).select("target", "prediction").toPandas()
    right = found.target.astype(str if kind == "string" else float) == found.prediction
    assert right.mean() > 0.9
    assert trained.names == (("cold", "warm") if kind == "string" else ())


def test_features_may_be_arrays_vectors_and_numbers_side_by_side(table: DataFrame) -> None:
    trained = trainer(features="vector").fit(table)
    assert trained.schema["data"].shape == (3,)
    assert trainer(features=["a", "vector"], model=lambda: nn.Linear(4, 1)).fit(table).weights.size == 5


def test_columns_go_to_inputs_by_their_names(table: DataFrame) -> None:
    trained = trainer(model=Two, features={"second": ["b", "c"], "first": "scaled"}, shapes={})
    frame = table.withColumn("scaled", F.array(F.col("a")))
    fitted = trained.fit(frame)
    assert fitted.history[-1].loss < fitted.history[0].loss
    assert fitted.predict(frame).where("prediction IS NULL").count() == 0


def test_whole_numbers_are_indices_for_a_net_that_wants_them_so(table: DataFrame) -> None:
    def embedded() -> nn.Module:
        return nn.Sequential(nn.Embedding(5, 4), nn.Flatten(), nn.Linear(8, 1))

    frame = table.withColumn("tokens", F.array(F.col("label"), F.lit(3)))
    trained = trainer(model=embedded, features="tokens").fit(frame)
    assert trained.schema["data"].dtype == np.int64
    assert trainer(model=lambda: nn.Linear(2, 1), features="tokens").fit(frame).schema["data"].dtype == "f4"


def test_weights_of_zero_leave_rows_out(table: DataFrame) -> None:
    spoiled = table.withColumn("y", F.when(F.col("label") == 1, 1e4).otherwise(F.col("y")))
    weighed = spoiled.withColumn("weight", (F.col("label") == 0).cast("float"))
    trained = trainer(weight="weight").fit(weighed)
    found = trained.predict(table.where("label = 0")).select("y", "prediction").toPandas()
    assert ((found.y - found.prediction) ** 2).mean() < 1


def jobs(spark: SparkSession) -> int:
    """How many jobs there have been."""
    return len(spark.sparkContext.statusTracker().getJobIdsForGroup(None))


CANNOT_BE = {
    "a string": (
        {"features": ["a", "kind"]},
        DataError,
        "column kind is string: a number, an array or vector",
    ),
    "no feature": ({"features": ["a", "d"]}, DataError, "there is no column d in the DataFrame, which has a"),
    "a width": ({"features": ["a"]}, ModelError, r"the net does not take its input \(data: float32 \(1\)\)"),
    "no label": ({"label": "z"}, DataError, "there is no column z in the DataFrame"),
    "a label": ({"label": "kind"}, DataError, "column kind is string: a number or an array"),
    "a weight": ({"weight": "kind"}, DataError, "column kind is string: a weight is a number"),
    "a loss": ({"loss": "cross entropy"}, UsageError, "there is no loss 'cross entropy'"),
    "a model": ({"model": 3}, UsageError, "the model is int: the path of a Caffe solver"),
    "an algorithm": ({"algorithm": "sgd"}, UsageError, "there is no algorithm 'sgd': average, slowmo"),
    "frozen": ({"freeze": ["conv*"]}, UsageError, "freeze: no parameter is named"),
    "how long": ({"rounds": 3}, UsageError, "epochs and rounds both say how long"),
    "no validation": ({"early_stopping": EarlyStopping()}, UsageError, "go by a validation set"),
}


@pytest.mark.parametrize("case", CANNOT_BE)
def test_what_cannot_be_is_said_before_a_job_starts(spark: SparkSession, table: DataFrame, case: str) -> None:
    options, error, says = CANNOT_BE[case]
    before = jobs(spark)
    with pytest.raises(error, match=says):
        trainer(**options).fit(table)
    assert jobs(spark) == before


BAD_ROWS = {
    "NULL": ("CAST(NULL AS double)", r"column b, partition \d, row \d+: NULL, but a value is needed"),
    "NaN": ("double('NaN')", r"column b, partition \d, row \d+: nan, but a finite number is needed"),
    "too large": ("1e300D", r"column b, partition \d, row \d+: inf, but a finite number is needed"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_value_that_cannot_be_is_named_once_while_it_is_read(table: DataFrame, case: str) -> None:
    value, says = BAD_ROWS[case]
    frame = table.withColumn("b", F.expr(f"IF(a > 2, {value}, b)"))
    with pytest.raises(DataError, match=says):
        trainer().fit(frame)


def test_a_class_that_the_net_has_no_output_for_is_named(table: DataFrame) -> None:
    frame = table.withColumn("label", F.when(F.col("a") > 2, 7).otherwise(0))
    with pytest.raises(DataError, match=r"column label, partition \d, row \d+: 7, but a class, 0 to 1, is"):
        classes().fit(frame)
    with pytest.raises(
        DataError, match="column kind has 3 different strings, and the net has 2 outputs: a, b"
    ):
        classes(label="kind").fit(
            table.withColumn(
                "kind",
                F.element_at(F.array(*map(F.lit, "abc")), 1 + F.col("label") + (F.col("a") > 1).cast("int")),
            )
        )


def test_one_row_is_enough_and_no_row_is_not(table: DataFrame) -> None:
    assert trainer(epochs=2).fit(table.limit(1)).history[-1].images > 0
    with pytest.raises(DataError, match="there are no rows to train on"):
        trainer().fit(table.limit(0))


def test_empty_and_skewed_partitions_are_evened_out(table: DataFrame) -> None:
    skewed = table.repartition(7, F.col("label"))
    assert 0 in skewed.rdd.glom().map(len).collect()
    trained = trainer(epochs=2).fit(skewed)
    assert set(trained.history[-1].members) == {0, 1}


def test_training_stops_early_and_keeps_the_best_weights(table: DataFrame) -> None:
    train, held_out = table.randomSplit([0.7, 0.3], seed=1)
    trained = trainer(lr=0.5, epochs=100, early_stopping=EarlyStopping(patience=3)).fit(train, held_out)
    losses = [record.scores["loss"] for record in trained.history]
    assert trained.best_round == 1 + int(np.argmin(losses))
    assert len(losses) == trained.best_round + 3
    found = trained.predict(held_out).select("y", "prediction").toPandas()
    assert ((found.y - found.prediction) ** 2).mean() == pytest.approx(min(losses), rel=1e-3)


class Counting:
    def __init__(self) -> None:
        self.rounds: list[int] = []
        self.ended: list[Trained] = []

    def on_round(self, record: Record, done: Round) -> bool:
        assert np.isfinite(done.weights).all()
        self.rounds.append(record.round)
        return record.round == 3

    def on_end(self, trained: Trained) -> None:
        self.ended.append(trained)


def test_callbacks_are_told_of_every_round_and_may_end_the_run(table: DataFrame) -> None:
    counting = Counting()
    trained = trainer(callbacks=[counting]).fit(table)
    assert counting.rounds == [1, 2, 3]
    assert counting.ended == [trained]
    assert len(trained.history) == 3


class Looking:
    """Looks at the live page, once, after the third round."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        self._caplog = caplog
        self.seen = ""

    def on_round(self, record: Record, done: Round) -> None:
        if record.round != 3:
            return
        deadline = time.monotonic() + 60
        while not self.seen and time.monotonic() < deadline:
            for text in self._caplog.messages:
                if found := re.search(r"live page: (http://127\.0\.0\.1:\d+/\S+/)", text):
                    self.seen = urlopen(found[1], timeout=60).read().decode()
            time.sleep(0.05)


def test_a_run_is_shown_while_it_trains_and_its_report_is_left_where_it_was_asked_for(
    table: DataFrame, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("SPARKNET_PAGE", raising=False)
    caplog.set_level("INFO", "sparknet.trainer")
    looking = Looking(caplog)
    trained = trainer(report=tmp_path / "run.html", callbacks=[looking]).fit(table)
    assert ">Training</span>" in looking.seen
    assert "new EventSource" not in looking.seen  # its script lies beside it
    report = (tmp_path / "run.html").read_text()
    assert ">Ended</span>" in report
    assert report.count('data-round="') >= len(trained.history)
    assert re.search(r"worker 0 \(attempt \d+, .*\) with \d+ records", report)


def test_a_caffe_solver_is_trained_from_published_weights_with_layers_frozen(
    spark: SparkSession, tmp_path: Path
) -> None:
    solver = tmp_path / "solver.prototxt"
    solver.write_text(SOLVER)
    frame, scale = frame_of(spark, pictures(300)), Transform(scale=1 / 256)
    options = {"model": solver, "transform": scale, "rounds": 10, "batch_size": 20}
    first = Trainer(**options, output=tmp_path / "first").fit(frame, frame_of(spark, pictures(60, seed=1)))
    assert first.history[-1].accuracy is not None
    left = {path.name for path in (tmp_path / "first").iterdir()}
    assert left == {"model.caffemodel", "metrics.jsonl", "report.html", "curve.png", "tensorboard"}
    weights = tmp_path / "first" / "model.caffemodel"
    second = Trainer(**options, weights=weights, freeze=["ip1"]).fit(frame)
    before, after = first.state_dict(), second.state_dict()
    assert {name for name in before if torch.equal(before[name], after[name])} == {"ip1/0", "ip1/1"}
    assert second.predict(frame).where("prediction = label").count() > 200
    with pytest.raises(UsageError, match="loss, lr: a Caffe solver says that itself"):
        Trainer(**options, loss="mse", lr=0.1)


def test_rdds_of_examples_and_of_records_are_trained_on(spark: SparkSession) -> None:
    examples = pictures(240)
    parts = spark.sparkContext.parallelize([examples[:100], examples[100:]], 2)

    def flat() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))

    trained = Trainer(model=flat, transform=Transform(scale=1 / 256), epochs=3, lr=0.05).fit(parts)
    assert trained.history[-1].loss < trained.history[0].loss
    rng = np.random.default_rng(0)
    blocks = [
        Records({"data": (x := rng.normal(size=(50, 3)).astype("f4")), "label": x.sum(1)}) for _ in range(4)
    ]
    fitted = trainer(features=None).fit(spark.sparkContext.parallelize(blocks, 4))
    assert fitted.history[-1].loss < fitted.history[0].loss
    assert isinstance(examples, Examples)


LOADED = """
import sys, numpy as np
from sparknet.inference import Inference
from sparknet.trainer import load
trained = load(sys.argv[1])
rows = np.random.default_rng(3).normal(size=(50, 3)).astype(np.float32)
(found,) = trained.inference(trained.outputs()).open(trained.weights)({"data": rows})
sys.stdout.buffer.write(found.tobytes())
"""


def test_a_saved_net_predicts_the_same_bits_in_another_process(table: DataFrame, tmp_path: Path) -> None:
    trained = trainer(epochs=1, model=lambda: nn.Linear(3, 1)).fit(table)
    save(trained, str(tmp_path / "saved"))
    rows = np.random.default_rng(3).normal(size=(50, 3)).astype(np.float32)
    (found,) = trained.inference(trained.outputs()).open(trained.weights)({"data": rows})
    ran = subprocess.run(
        [sys.executable, "-c", LOADED, str(tmp_path / "saved")], capture_output=True, timeout=120
    )
    assert ran.stdout == found.tobytes(), ran.stderr
    again = load(str(tmp_path / "saved"))
    assert again.predict(table).collect() == trained.predict(table).collect()
    with pytest.raises(ModelError, match="holds no trained net"):
        load(str(tmp_path / "elsewhere"))


def test_a_share_that_is_held_out_is_the_same_at_every_call(table: DataFrame) -> None:
    halves = [trainer()._held_out(table, 0.25)[1].select("y").collect() for _ in range(2)]
    assert halves[0] == halves[1]
    assert 0.15 * ROWS < len(halves[0]) < 0.35 * ROWS
