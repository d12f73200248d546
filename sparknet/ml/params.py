"""The Params that estimators and models share, and those that say how a net is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pyspark.ml.param import Param, Params, TypeConverters
from pyspark.ml.param.shared import (
    HasFeaturesCol,
    HasLabelCol,
    HasPredictionCol,
    HasProbabilityCol,
    HasRawPredictionCol,
    HasSeed,
    HasValidationIndicatorCol,
    HasWeightCol,
)

from sparknet.errors import UsageError


def _plain(value: Any) -> Any:
    """A number of numpy's as one of Python's: Params refuse numpy's float32."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value


def _float(value: Any) -> float:
    return float(TypeConverters.toFloat(_plain(value)))


def _int(value: Any) -> int:
    return int(TypeConverters.toInt(_plain(value)))


def _ints(values: Any) -> list[int]:
    return [_int(value) for value in values]


def _mapping(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise TypeError(f"a dict of columns to blobs or submodules is needed, not {type(value).__name__}")
    return {str(column): str(name) for column, name in value.items()}


class Settable(Params):
    """Params that are given by name, when the stage is made or later."""

    def setParams(self, **values: Any) -> Self:  # noqa: N802 - Spark's own name
        """Set Params by name. Raises UsageError for one that there is not, or a value that cannot be."""
        known = {param.name for param in self.params}
        for name, value in values.items():
            if name not in known:
                raise UsageError(
                    f"{type(self).__name__} has no Param {name}: it has {', '.join(sorted(known))}"
                )
            try:
                self._set(**{name: _plain(value)})
            except TypeError as error:
                raise UsageError(f"{type(self).__name__}: {error}") from error
        return self

    def setFeaturesCol(self, value: str) -> Self:  # noqa: N802
        return self.setParams(featuresCol=value)

    def setLabelCol(self, value: str) -> Self:  # noqa: N802
        return self.setParams(labelCol=value)

    def setPredictionCol(self, value: str) -> Self:  # noqa: N802
        return self.setParams(predictionCol=value)

    def setWeightCol(self, value: str) -> Self:  # noqa: N802
        return self.setParams(weightCol=value)

    def setSeed(self, value: int) -> Self:  # noqa: N802
        return self.setParams(seed=value)


def _invalid(value: Any) -> str:
    if value not in ("error", "keep", "skip"):
        raise TypeError(f"handleInvalid is {value!r}: error, keep or skip")
    return str(value)


class HasOutputs(HasFeaturesCol, HasPredictionCol, Settable):
    """What a model reads and writes, whatever it tells."""

    handleInvalid: Param[str] = Param(  # noqa: N815
        Params._dummy(),
        "handleInvalid",
        "what becomes of a row with a NULL, a NaN or another size: error; keep, which predicts NULL; skip, "
        "which leaves it out",
        typeConverter=_invalid,
    )

    outputCols: Param[dict[str, str]] = Param(  # noqa: N815
        Params._dummy(),
        "outputCols",
        "further columns, array<float>: {column: blob or submodule}",
        typeConverter=_mapping,
    )

    def getOutputCols(self) -> dict[str, str]:  # noqa: N802
        return self.getOrDefault(self.outputCols)


class HasClasses(HasProbabilityCol, HasRawPredictionCol, Settable):
    """What a model of classes writes besides."""

    predictedLabelCol: Param[str] = Param(  # noqa: N815
        Params._dummy(),
        "predictedLabelCol",
        "column of the predicted class by its string, where labels were strings; none if empty",
        typeConverter=TypeConverters.toString,
    )

    def setProbabilityCol(self, value: str) -> Self:  # noqa: N802
        return self.setParams(probabilityCol=value)

    def setRawPredictionCol(self, value: str) -> Self:  # noqa: N802
        return self.setParams(rawPredictionCol=value)


class HasTraining(HasLabelCol, HasWeightCol, HasSeed, HasValidationIndicatorCol, Settable):
    """How a net is trained."""

    model: Param[Any] = Param(
        Params._dummy(),
        "model",
        "a torch.nn.Module, a function that makes one, which may take the number of features and of outputs, "
        "or the path of a Caffe solver; a perceptron of hiddenLayers if it is not given",
    )
    hiddenLayers: Param[Any] = Param(  # noqa: N815
        Params._dummy(),
        "hiddenLayers",
        "sizes of the hidden layers where no model is given; none: a linear model",
        typeConverter=_ints,
    )
    loss: Param[Any] = Param(Params._dummy(), "loss", "a name or a torch callable")
    optimizer: Param[Any] = Param(Params._dummy(), "optimizer", "a name, a class or a function of torch's")
    learningRate: Param[float] = Param(  # noqa: N815
        Params._dummy(), "learningRate", "of the optimizer (> 0)", typeConverter=_float
    )
    epochs: Param[float] = Param(
        Params._dummy(), "epochs", "how often every row is trained on (> 0)", typeConverter=_float
    )
    batchSize: Param[int] = Param(  # noqa: N815
        Params._dummy(), "batchSize", "rows a step and worker (> 0)", typeConverter=_int
    )
    tau: Param[int] = Param(Params._dummy(), "tau", "steps between two averagings (> 0)", typeConverter=_int)
    algorithm: Param[str] = Param(
        Params._dummy(),
        "algorithm",
        "what becomes of the workers' weights",
        typeConverter=TypeConverters.toString,
    )
    numWorkers: Param[int] = Param(  # noqa: N815
        Params._dummy(), "numWorkers", "replicas of the net; all slots if it is not set", typeConverter=_int
    )
    patience: Param[int] = Param(
        Params._dummy(),
        "patience",
        "end when the loss of the validation rows (validationIndicatorCol) has not fallen for so many tests",
        typeConverter=_int,
    )
    trainer: Param[Any] = Param(
        Params._dummy(), "trainer", "a dict of further arguments of sparknet.trainer.Trainer"
    )
