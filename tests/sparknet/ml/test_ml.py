"""Nets as stages of Spark ML: Params, pipelines, searches, evaluators and files."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pyspark.ml import Pipeline
from pyspark.ml.evaluation import (
    BinaryClassificationEvaluator,
    MulticlassClassificationEvaluator,
    RegressionEvaluator,
)
from pyspark.ml.feature import HashingTF, IndexToString, StandardScaler, Tokenizer, VectorAssembler
from pyspark.ml.linalg import SparseVector, Vectors
from pyspark.ml.tuning import CrossValidator, CrossValidatorModel, ParamGridBuilder, TrainValidationSplit
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from torch import nn

from sparknet.errors import DataError, UsageError
from sparknet.ml import SparkNetClassifier, SparkNetModel, SparkNetRegressor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.spark,
    pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning"),
    # pyspark's searches leave their pools of threads to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed running multiprocessing pool:ResourceWarning"),
]


@pytest.fixture(scope="module")
def table(spark: SparkSession) -> DataFrame:
    x = np.random.default_rng(0).normal(size=(300, 2))
    rows = pd.DataFrame(x, columns=["a", "b"])
    rows["y"] = x[:, 0] - 2 * x[:, 1]
    frame = VectorAssembler(inputCols=["a", "b"], outputCol="features").transform(spark.createDataFrame(rows))
    frame = frame.withColumn("label", (F.col("y") > 0).cast("double"))
    frame = frame.withColumn("kind", F.when(F.col("y") > 0, "warm").otherwise("cold")).cache()
    frame.count()
    return frame


def classifier(**params: Any) -> SparkNetClassifier:
    return SparkNetClassifier(**{"learningRate": 0.05, "epochs": 5, "hiddenLayers": [], **params})


def test_a_classifier_gives_the_columns_of_mllibs_and_its_evaluators_read_them(table: DataFrame) -> None:
    model = classifier().fit(table)
    found = model.transform(table)
    rows = found.select("rawPrediction", "probability", "prediction").collect()
    for row in rows[:20]:
        assert row.prediction == np.argmax(row.probability)
        assert row.probability.toArray().sum() == pytest.approx(1)
        scores = row.rawPrediction.toArray()
        np.testing.assert_allclose(np.exp(scores) / np.exp(scores).sum(), row.probability, rtol=1e-6)
    assert MulticlassClassificationEvaluator(metricName="accuracy").evaluate(found) > 0.95
    assert BinaryClassificationEvaluator().evaluate(found) > 0.98
    assert model.numClasses == 2


def test_predictions_can_be_evaluated_after_a_tag_of_the_session(
    spark: SparkSession, table: DataFrame
) -> None:
    spark.addTag("somebodys")
    try:
        found = classifier(epochs=1).fit(table).transform(table)
        assert MulticlassClassificationEvaluator().evaluate(found) > 0
    finally:
        spark.removeTag("somebodys")


def test_a_regressor_is_evaluated_by_mllib(table: DataFrame) -> None:
    regressor = SparkNetRegressor(labelCol="y", learningRate=0.05, epochs=10, hiddenLayers=[])
    found = regressor.fit(table).transform(table)
    assert RegressionEvaluator(labelCol="y", metricName="r2").evaluate(found) > 0.95


def test_strings_are_classes_whose_order_is_kept_with_the_model(table: DataFrame) -> None:
    model = classifier(labelCol="kind", predictedLabelCol="said").fit(table)
    assert model.labels == ["cold", "warm"]
    found = model.transform(table.withColumn("kind", F.lit("never seen")))  # the label is not looked at
    named = IndexToString(inputCol="prediction", outputCol="named").transform(found)
    assert named.where("named != said").count() == 0
    assert named.where("(said = 'warm') = (y > 0)").count() > 280


def test_sparse_vectors_are_as_good_as_dense_ones(spark: SparkSession, table: DataFrame) -> None:
    rows = [
        (Vectors.sparse(3, [0, 2], [float(r.a), float(r.b)]), Vectors.dense([r.a, 0.0, r.b]), r.label)
        for r in table.collect()
    ]
    frame = spark.createDataFrame(rows, ["sparse", "dense", "label"])
    assert isinstance(frame.first().sparse, SparseVector)  # type: ignore[union-attr]
    model = classifier(featuresCol="sparse").fit(frame)
    from_dense = model.copy({model.featuresCol: "dense"}).transform(frame)
    assert (
        model.transform(frame).select("probability").collect() == from_dense.select("probability").collect()
    )


def test_rows_that_cannot_be_fail_by_name_or_get_null(table: DataFrame) -> None:
    model = classifier(epochs=1).fit(table)
    broken = table.withColumn("features", F.when(F.col("a") < 1.5, F.col("features")))
    kept = model.copy({model.handleInvalid: "keep"}).transform(broken)
    assert kept.where("prediction IS NULL").count() == table.where("a >= 1.5").count() > 0
    assert kept.where("probability IS NULL").count() == table.where("a >= 1.5").count()
    skipped = model.copy({model.handleInvalid: "skip"}).transform(broken)
    assert skipped.count() == table.where("a < 1.5").count()


def test_columns_that_are_named_nothing_are_left_out_and_others_added(table: DataFrame) -> None:
    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2))

    model = classifier(model=net, outputCols={"hidden": "1"}, rawPredictionCol="", probabilityCol="").fit(
        table
    )
    found = model.transform(table)
    assert found.columns == [*table.columns, "prediction", "hidden"]
    assert len(found.first().hidden) == 5  # type: ignore[union-attr]


def test_params_are_explained_copied_and_refused() -> None:
    stage = classifier(seed=3)
    assert "learningRate: of the optimizer (> 0) (default: 0.001, current: 0.05)" in stage.explainParams()
    other = stage.copy({stage.epochs: 9.0})
    assert (other.getOrDefault("epochs"), stage.getOrDefault("epochs")) == (9.0, 5.0)
    assert classifier(learningRate=np.float32(0.5)).getOrDefault("learningRate") == 0.5
    with pytest.raises(
        UsageError, match="SparkNetClassifier has no Param epoch: it has algorithm, batchSize"
    ):
        classifier(epoch=3)
    with pytest.raises(UsageError, match="Could not convert"):
        classifier(batchSize="many")


@pytest.mark.parametrize(
    ("label", "says"),
    [
        ("y", "column y has the value .*: classes are whole numbers"),
        ("features", "column features is vector"),
    ],
)
def test_labels_that_are_no_classes_are_refused(table: DataFrame, label: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        classifier(labelCol=label).fit(table)


def test_one_class_can_be_learned(table: DataFrame) -> None:
    model = classifier(epochs=1).fit(table.withColumn("label", F.lit(0)))
    assert model.numClasses == 2
    assert model.transform(table).where("prediction = 0").count() > 0


def test_the_pipeline_of_sparks_guide_works_with_a_net_in_it(spark: SparkSession) -> None:
    training = spark.createDataFrame(
        [(0, "a b c d e spark", 1.0), (1, "b d", 0.0), (2, "spark f g h", 1.0), (3, "hadoop mapreduce", 0.0)],
        ["id", "text", "label"],
    )
    tokenizer = Tokenizer(inputCol="text", outputCol="words")
    hashing = HashingTF(inputCol="words", outputCol="features", numFeatures=1000)
    model = Pipeline(stages=[tokenizer, hashing, classifier(epochs=60, batchSize=2)]).fit(training)
    test = spark.createDataFrame(
        [(4, "spark i j k"), (6, "hadoop spark mapreduce"), (7, "b d")], ["id", "text"]
    )
    found = {row.id: row.prediction for row in model.transform(test).select("id", "prediction").collect()}
    assert found[4] == 1
    assert found[7] == 0


@pytest.mark.parametrize("parallelism", [1, 2])
def test_settings_are_searched_with_fits_that_wait_for_their_turn(
    table: DataFrame, parallelism: int, caplog: pytest.LogCaptureFixture
) -> None:
    stage = classifier(epochs=4)
    pipeline = Pipeline(stages=[StandardScaler(inputCol="features", outputCol="scaled"), stage])
    grid = ParamGridBuilder().addGrid(stage.learningRate, [1e-6, 0.1]).baseOn([stage.featuresCol, "scaled"])
    search = CrossValidator(
        estimator=pipeline,
        estimatorParamMaps=grid.build(),
        evaluator=MulticlassClassificationEvaluator(metricName="accuracy"),
        numFolds=2,
        parallelism=parallelism,
    )
    with caplog.at_level(logging.WARNING, "sparknet.spark.turns"):
        model = search.fit(table)
    assert model.avgMetrics[1] > max(0.9, model.avgMetrics[0])
    waited = [record for record in caplog.records if "waits for its turn" in record.message]
    assert bool(waited) == (parallelism == 2)


def test_a_split_is_searched_and_validation_rows_may_be_marked(table: DataFrame) -> None:
    stage = classifier(epochs=1)
    grid = ParamGridBuilder().addGrid(stage.hiddenLayers, [[], [4]]).build()
    search = TrainValidationSplit(
        estimator=stage, estimatorParamMaps=grid, evaluator=MulticlassClassificationEvaluator()
    )
    assert len(search.fit(table).validationMetrics) == 2
    marked = table.withColumn("held", F.col("a") > 1)
    model = classifier(epochs=50, patience=2, validationIndicatorCol="held").fit(marked)
    assert model.trained.best_round is not None


LOADED = """
import sys
from pyspark.ml import PipelineModel
from sparknet.spark import session
spark = session("loaded", "local[1]", {"spark.ui.enabled": "false", "spark.log.level": "OFF"})
frame = spark.read.parquet(sys.argv[2])
found = PipelineModel.load(sys.argv[1]).transform(frame).orderBy("a").select("probability").collect()
print("".join(row.probability.toArray().tobytes().hex() for row in found))
"""


def test_what_is_saved_is_loaded_in_another_process_bit_for_bit(table: DataFrame, tmp_path: Path) -> None:
    def net(features: int, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(features, 7), nn.Tanh(), nn.Linear(7, outputs))

    scaler = StandardScaler(inputCol="features", outputCol="scaled")
    stage = classifier(model=net, featuresCol="scaled", epochs=1)
    model = Pipeline(stages=[scaler, stage]).fit(table)
    model.write().save(str(tmp_path / "model"))
    rows = table.select("a", "features").repartition(1).sortWithinPartitions("a")
    rows.write.parquet(str(tmp_path / "rows"))
    found = model.transform(rows).orderBy("a").select("probability").collect()
    expected = "".join(row.probability.toArray().tobytes().hex() for row in found)
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADED, str(tmp_path / "model"), str(tmp_path / "rows")],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.stdout.strip() == expected, ran.stderr[-2000:]


def test_an_estimator_is_saved_with_its_python_objects(table: DataFrame, tmp_path: Path) -> None:
    stage = classifier(model=lambda: nn.Linear(2, 2), optimizer="sgd", trainer={"sampling": "window"})
    Pipeline(stages=[stage]).write().save(str(tmp_path / "pipeline"))
    (again,) = Pipeline.load(str(tmp_path / "pipeline")).getStages()
    assert again.uid == stage.uid
    assert again.getOrDefault("trainer") == {"sampling": "window"}
    assert isinstance(again.fit(table), SparkNetModel)


def test_a_search_is_saved_and_loaded(table: DataFrame, tmp_path: Path) -> None:
    stage = classifier(epochs=1)
    search = CrossValidator(
        estimator=stage,
        estimatorParamMaps=ParamGridBuilder().addGrid(stage.epochs, [0.5, 1.0]).build(),
        evaluator=MulticlassClassificationEvaluator(),
        numFolds=2,
    )
    search.fit(table).write().save(str(tmp_path / "search"))
    again = CrossValidatorModel.load(str(tmp_path / "search"))
    assert again.transform(table).where("prediction IS NULL").count() == 0
    assert isinstance(again, CrossValidatorModel)
