"""Nets as stages of Spark ML: what fits and transforms in a ``Pipeline``, and is searched and saved with it.

classifier = SparkNetClassifier(featuresCol="scaled", hiddenLayers=[64], epochs=20)
model = Pipeline(stages=[scaler, classifier]).fit(train)
model.transform(test).select("prediction", "probability")
"""

from sparknet.ml.estimators import SparkNetClassifier, SparkNetRegressor
from sparknet.ml.model import SparkNetModel

__all__ = ["SparkNetClassifier", "SparkNetModel", "SparkNetRegressor"]
