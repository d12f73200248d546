"""A net as a stage of Spark ML: scaled columns, a search for the best settings, a pipeline in a file.

python docs/examples/pipeline.py
"""

import tempfile

import numpy as np
import pandas as pd
from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.ml.feature import StandardScaler, VectorAssembler
from pyspark.ml.tuning import CrossValidator, ParamGridBuilder

from sparknet.ml import SparkNetClassifier
from sparknet.spark import session


def table(rows: int = 600) -> pd.DataFrame:
    x = np.random.default_rng(0).normal(size=(rows, 3)) * [1, 100, 0.01]
    made = pd.DataFrame(x, columns=["a", "b", "c"])
    made["label"] = (x[:, 0] + x[:, 1] / 100 + x[:, 2] / 0.01 > 0).astype(float)
    return made


if __name__ == "__main__":
    spark = session("pipeline")
    frame = spark.createDataFrame(table()).cache()
    classifier = SparkNetClassifier(featuresCol="scaled", learningRate=0.01, epochs=5)
    pipeline = Pipeline(
        stages=[
            VectorAssembler(inputCols=["a", "b", "c"], outputCol="raw"),
            StandardScaler(inputCol="raw", outputCol="scaled", withMean=True),
            classifier,
        ]
    )
    grid = ParamGridBuilder().addGrid(classifier.hiddenLayers, [[], [16]]).build()
    evaluator = MulticlassClassificationEvaluator(metricName="accuracy")
    search = CrossValidator(
        estimator=pipeline, estimatorParamMaps=grid, evaluator=evaluator, numFolds=2, parallelism=2
    )
    best = search.fit(frame).bestModel
    print(f"accuracy {evaluator.evaluate(best.transform(frame)):.2f}")

    folder = tempfile.mkdtemp() + "/pipeline"
    best.write().save(folder)
    PipelineModel.load(folder).transform(frame).select("label", "prediction", "probability").show(3)
    spark.stop()
