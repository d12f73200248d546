"""``SparkNetModel``: a trained net as a Transformer.

It never reads the label column: rows with labels that training has not seen, or without any, are transformed
as all others are.
"""

from __future__ import annotations

from typing import Any, Self

from pyspark.ml import Model
from pyspark.ml.param import Params
from pyspark.ml.util import MLReadable, MLWritable, MLWriter
from pyspark.sql import DataFrame

from sparknet.errors import UsageError
from sparknet.ml.files import ModelReader, ModelWriter
from sparknet.ml.params import HasClasses, HasOutputs
from sparknet.spark.predict import Likeliest, Lists, Output, Probabilities, Scores, predicted
from sparknet.trainer import Trained


class SparkNetModel(HasClasses, HasOutputs, Model, MLReadable[Any], MLWritable):
    """Adds ``predictionCol`` to DataFrames, and of classes ``probabilityCol`` and ``rawPredictionCol``.

    A prediction is a double: a number, or the class. What strings the classes are is in the metadata of the
    column, where ``IndexToString`` finds them, in ``labels`` and, if it is set, in ``predictedLabelCol``. Set
    a column to "" to leave it out. ``trained`` is the net; ``numClasses`` is 0 where there are none.
    """

    def __init__(
        self, trained: Trained | None = None, num_classes: int = 0, labels: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self._setDefault(
            handleInvalid="error",
            outputCols={},
            predictedLabelCol="",
        )
        self._trained, self._classes, self._labels = trained, num_classes, labels

    @property
    def trained(self) -> Trained:
        if self._trained is None:
            raise UsageError("this model holds no net: fit an estimator, or load one")
        return self._trained

    @property
    def numClasses(self) -> int:  # noqa: N802 - Spark's own name
        return self._classes

    @property
    def labels(self) -> list[str]:
        """The strings of classes 0, 1, 2, ..., if labels were strings."""
        return list(self._labels)

    def inheriting(self, estimator: Params) -> Self:
        """The same stage as the estimator it comes from: its uid."""
        self._resetUid(estimator.uid)
        return self

    def _transform(self, dataset: DataFrame) -> DataFrame:
        outputs = self._outputs()
        if not outputs:
            return dataset
        invalid = self.getOrDefault(self.handleInvalid)
        made = predicted(
            dataset,
            self.trained.inference(outputs),
            self.trained.weights,
            self.trained.selection(dataset, [self.getOrDefault(self.featuresCol)]),
            outputs,
            keep_invalid=invalid != "error",
        )
        return made.where(made[f"`{outputs[0].column}`"].isNotNull()) if invalid == "skip" else made

    def _outputs(self) -> list[Output]:
        """The columns that are asked for."""
        named = self.getOrDefault(self.outputCols)
        outputs = [Output(column, name, Lists()) for column, name in named.items()]
        if not self._classes:
            return [*self._named(self.predictionCol, self.trained.form()), *outputs]
        return [
            *self._named(self.rawPredictionCol, Scores()),
            *self._named(self.probabilityCol, Probabilities()),
            *self._named(self.predictionCol, Likeliest(), self._metadata()),
            *(self._named(self.predictedLabelCol, Likeliest(self._labels)) if self._labels else ()),
            *outputs,
        ]

    def _named(self, param: Any, form: Any, metadata: Any = None) -> list[Output]:
        column = self.getOrDefault(param)
        return [Output(column, "", form, metadata)] if column else []

    def _metadata(self) -> dict[str, Any]:
        """A nominal attribute of Spark ML."""
        values: dict[str, Any] = {"type": "nominal", "num_vals": self._classes}
        if self._labels:
            values = {"type": "nominal", "vals": list(self._labels)}
        return {"ml_attr": values}

    def write(self) -> MLWriter:
        return ModelWriter(self)

    @classmethod
    def read(cls) -> Any:
        return ModelReader(cls)
