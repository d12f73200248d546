"""``SparkNetClassifier`` and ``SparkNetRegressor``: DataFrames in, a ``SparkNetModel`` out."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from pyspark.ml import Estimator
from pyspark.ml.util import MLReadable, MLWritable, MLWriter
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from torch import nn

from sparknet.errors import DataError, UsageError
from sparknet.ml.files import EstimatorReader, EstimatorWriter
from sparknet.ml.model import SparkNetModel
from sparknet.ml.params import HasClasses, HasOutputs, HasTraining
from sparknet.spark.columns import Labels, select
from sparknet.spark.fields import find
from sparknet.spark.predict import is_connect
from sparknet.trainer import EarlyStopping, Trainer
from sparknet.trainer.nets import is_caffe


def perceptron(hidden: tuple[int, ...], inputs: int, outputs: int) -> nn.Module:
    """Linear layers of these sizes with ReLU between them, whatever the shape of a row."""
    sizes = [inputs, *hidden, outputs]
    layers: list[nn.Module] = [nn.Flatten()]
    for fed, made in itertools.pairwise(sizes):
        layers += [nn.Linear(fed, made), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class _SparkNetEstimator(HasTraining, HasOutputs, Estimator[SparkNetModel], MLReadable[Any], MLWritable):
    """What the two have in common."""

    _loss = ""
    _kind: Any = "any"
    _defaults: Mapping[str, Any] = MappingProxyType({})

    def __init__(self, **params: Any) -> None:
        super().__init__()
        self._setDefault(
            hiddenLayers=[64],
            loss=self._loss,
            optimizer="adam",
            learningRate=1e-3,
            epochs=10.0,
            batchSize=32,
            tau=10,
            algorithm="average",
            seed=0,
            handleInvalid="error",
            outputCols={},
            trainer={},
            **self._defaults,
        )
        self.setParams(**params)

    def fit(self, dataset: Any, params: Any = None) -> Any:
        """As Spark's. Raises UsageError for a DataFrame of Spark Connect."""
        if is_connect(dataset):
            raise UsageError(
                f"{type(self).__name__} cannot train in a session of Spark Connect, which cannot hold the "
                "long-lived tasks of a training: fit in a session of the cluster itself "
                "(SparkSession.builder.master(...), or spark-submit), save the model, and load it here"
            )
        return super().fit(dataset, params)

    def _fit(self, dataset: DataFrame) -> SparkNetModel:
        train, validation = self._split(dataset)
        width, outputs, names = self._sizes(train)
        trainer = self._trainer(width, outputs)
        trained = trainer.fit(train, validation)
        model = SparkNetModel(trained, outputs if self._kind == "classes" else 0, names)
        return self._copyValues(model.inheriting(self))

    def _trainer(self, width: int, outputs: int) -> Trainer:
        model = self._model(width, outputs)
        of_torch = {
            "loss": self.getOrDefault(self.loss),
            "optimizer": self.getOrDefault(self.optimizer),
            "lr": self.getOrDefault(self.learningRate),
        }
        patience = self.getOrDefault(self.patience) if self.isSet(self.patience) else None
        given = {
            "model": model,
            **({} if is_caffe(model) else of_torch),
            "features": [self.getOrDefault(self.featuresCol)],
            "label": self.getOrDefault(self.labelCol),
            "weight": self.getOrDefault(self.weightCol) if self.isSet(self.weightCol) else None,
            "epochs": self.getOrDefault(self.epochs),
            "batch_size": self.getOrDefault(self.batchSize),
            "tau": self.getOrDefault(self.tau),
            "algorithm": self.getOrDefault(self.algorithm),
            "seed": self.getOrDefault(self.seed),
            "workers": self.getOrDefault(self.numWorkers) if self.isSet(self.numWorkers) else None,
            "early_stopping": EarlyStopping(patience=patience) if patience else None,
            **self.getOrDefault(self.trainer),
        }
        if "rounds" in self.getOrDefault(self.trainer):
            given["epochs"] = None
        return Trainer(**given)

    def _split(self, dataset: DataFrame) -> tuple[DataFrame, DataFrame | None]:
        """Training rows and validation rows."""
        if not self.isSet(self.validationIndicatorCol):
            return dataset, None
        flag = F.col(find(dataset.schema, self.getOrDefault(self.validationIndicatorCol)).reference)
        return dataset.where(~flag), dataset.where(flag)

    def _model(self, width: int, outputs: int) -> Any:
        """The net: the one that is given, or a perceptron."""
        model = self.getOrDefault(self.model) if self.isSet(self.model) else None
        if model is None:
            return partial(perceptron, tuple(self.getOrDefault(self.hiddenLayers)), width, outputs)
        if callable(model) and not isinstance(model, nn.Module) and _takes_sizes(model):
            return partial(model, width, outputs)
        return model

    def _sizes(self, dataset: DataFrame) -> tuple[int, int, tuple[str, ...]]:
        """How many numbers a row has, how many outputs the net needs, and the strings of the classes."""
        label = Labels(column=self.getOrDefault(self.labelCol), kind=self._kind)
        shapes = self.getOrDefault(self.trainer).get("shapes")
        found = select(dataset, features=[self.getOrDefault(self.featuresCol)], label=label, shapes=shapes)
        width = int(np.prod(found.inputs[0].column.shape))
        assert found.label is not None
        if self._kind != "classes":
            return width, int(np.prod(found.label.column.shape)), ()
        return width, len(found.names) or self._classes(dataset, label.column), found.names

    def _classes(self, dataset: DataFrame, label: str) -> int:
        """One more than the highest label, two at least."""
        highest = dataset.agg(F.max(F.col(find(dataset.schema, label).reference).cast("double"))).first()
        if highest is None or highest[0] is None:
            raise DataError(f"column {label} has no values: the DataFrame has no rows, or they are all NULL")
        if not 0 <= highest[0] < 1e6 or highest[0] != int(highest[0]):
            raise DataError(
                f"column {label} has the value {highest[0]:g}: classes are whole numbers from 0 on. Numbers "
                "are for SparkNetRegressor"
            )
        return max(2, int(highest[0]) + 1)

    def write(self) -> MLWriter:
        return EstimatorWriter(self)

    @classmethod
    def read(cls) -> Any:
        return EstimatorReader(cls)


class SparkNetClassifier(_SparkNetEstimator, HasClasses):
    """Trains a net that tells classes apart: whole numbers from 0 on, of any type, or strings.

    Strings become classes in the order of their characters, which is kept with the model. Further arguments
    of ``Trainer`` go into ``trainer={...}``. ``explainParams()`` lists all Params.
    """

    _loss, _kind = "cross_entropy", "classes"
    _defaults = MappingProxyType({"predictedLabelCol": ""})


class SparkNetRegressor(_SparkNetEstimator):
    """Trains a net that gives a number, or as many as the arrays or vectors in ``labelCol`` have."""

    _loss, _kind = "mse", "numbers"


def _takes_sizes(function: Any) -> bool:
    """Whether a function of a module is one of (features, outputs)."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    by_position = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in by_position if p.default is p.empty]
    return len(required) == 2
