"""What a run gives: the net with its weights, how records become its input, and what happened on the way.

trained = Trainer(...).fit(frame)
trained.history[-1].loss
trained.predict(other).select("id", "prediction")
trained.save("model"); load("model")               # in another process, the same predictions bit for bit
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from sparknet.caffe.files import weights as weight_files
from sparknet.caffe.net import Net
from sparknet.caffe_replica import CaffeModel, InferenceNet
from sparknet.data.feed import Transforms
from sparknet.data.records import Column
from sparknet.errors import DataError, ModelError
from sparknet.inference import BATCH_SIZE, Inference
from sparknet.modules import fill
from sparknet.objectives import LabelKind
from sparknet.reporting.metrics import Record
from sparknet.spark.columns import ColumnSelection, Features, select
from sparknet.spark.fields import some
from sparknet.spark.predict import Form, Likeliest, LikeliestOfEach, Lists, Number, Output, predicted
from sparknet.torch_model import TorchModel
from sparknet.weights import Vector

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


@dataclass(frozen=True)
class Built:
    """Builds the module of a ``TorchModel``; pickles."""

    model: TorchModel

    def __call__(self) -> nn.Module:
        return self.model.build()


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """``weights`` float32 (P,) are the last, or those of the best test (``best_round``) if one was asked for.

    ``features`` are the columns that became the inputs of ``schema``; ``names`` the strings that classes 0,
    1, 2, ... stand for. ``history`` has a record a round; ``output`` is the folder of report and metrics.
    """

    model: CaffeModel | TorchModel
    weights: Vector
    features: Features
    schema: Mapping[str, Column]
    transforms: Transforms | None = None
    kind: LabelKind = "any"
    names: tuple[str, ...] = ()
    history: Sequence[Record] = field(default_factory=list)
    best_round: int | None = None
    output: Path | None = None

    @property
    def classes(self) -> int:
        """How many classes the net tells apart; 0 if it does not tell classes."""
        return self._scores_shape[0] if self.kind == "classes" else 0

    def module(self) -> nn.Module:
        """The trained module, on the CPU, in ``eval``. Raises ModelError for a Caffe net."""
        if not isinstance(self.model, TorchModel):
            raise ModelError("a Caffe net is no torch module: take net(), or save_weights(path)")
        module = self.model.build()
        fill(module, self.weights)
        return module.eval()

    def net(self) -> Net:
        """The trained Caffe net in its test phase. Raises ModelError for a torch module."""
        if not isinstance(self.model, CaffeModel):
            raise ModelError("a torch module is no Caffe net: take module(), or state_dict()")
        replica = replace(self.model, device="cpu")()
        np.copyto(replica.weights.numpy(), self.weights)
        return replica.test_net

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The tensors by name: of a Caffe net by layer and number, ``conv1/0``."""
        if isinstance(self.model, TorchModel):
            return dict(self.module().state_dict())
        layout = replace(self.model, device="cpu")().layout
        return {name: view.clone() for name, view in layout.views(torch.tensor(self.weights)).items()}

    def save_weights(self, path: str | Path) -> None:
        """Write a ``.caffemodel`` (or ``.h5``) of a Caffe net, and what ``torch.load`` reads of a module."""
        if isinstance(self.model, TorchModel):
            torch.save(self.state_dict(), path)
            return
        replica = replace(self.model, device="cpu")()
        np.copyto(replica.weights.numpy(), self.weights)
        weight_files.save(replica.net, path)

    def save_weights_in(self, folder: Path) -> None:
        """``model.caffemodel``, or ``model.pt`` of a torch module."""
        self.save_weights(folder / f"model.{'pt' if isinstance(self.model, TorchModel) else 'caffemodel'}")

    def predict(
        self,
        frame: DataFrame,
        *,
        column: str = "prediction",
        outputs: Mapping[str, str] | None = None,
        features: Features | None = None,
        batch_size: int = BATCH_SIZE,
        keep_invalid: bool = False,
    ) -> DataFrame:
        """``frame`` and the column ``column``: the class (by name, if it had one) or an array of classes, a
        number or array<float>.

        ``outputs`` adds further ones: names of columns to blobs or submodules ("" is what the net gives in
        the end), as array<float>. ``features`` are the columns to read if not those trained on. A row with a
        value that cannot be (NULL, NaN, another size) fails the job, or gets NULL if ``keep_invalid``.
        """
        forms = self.outputs(column, outputs or {})
        selection = self.selection(frame, features)
        return predicted(
            frame,
            self.inference(forms, batch_size),
            self.weights,
            selection,
            forms,
            keep_invalid=keep_invalid,
        )

    def outputs(self, column: str = "prediction", further: Mapping[str, str] | None = None) -> list[Output]:
        """What ``predict`` adds: the column ``column``, and further ones as array<float>."""
        features = [Output(name, blob, Lists()) for name, blob in (further or {}).items()]
        return [Output(column, "", self.form()), *features]

    def form(self) -> Form:
        """How what the net gives is put into a column."""
        shape = self._scores_shape
        if self.kind == "classes":
            return Likeliest(self.names) if len(shape) == 1 else LikeliestOfEach()
        return Number() if shape in ((), (1,)) else Lists()

    def inference(self, outputs: Sequence[Output], batch_size: int = BATCH_SIZE) -> Inference:
        """The net at work, for these outputs."""
        model = self.model
        build: Any = InferenceNet(model) if isinstance(model, CaffeModel) else Built(without_training(model))
        names = tuple(dict.fromkeys(output.name for output in outputs))
        return Inference(build=build, outputs=names, transforms=self.transforms, batch_size=batch_size)

    def selection(self, frame: Any, features: Features | None = None) -> ColumnSelection:
        """How ``frame`` is read: as the training data was. Raises DataError where it differs."""
        wanted = features or self.features
        found = select(frame, features=wanted, shapes=self._shapes(wanted), first=next(iter(self.schema)))
        for each in found.inputs:
            due = self.schema.get(each.name)
            if due is None or due.shape != each.column.shape:
                raise DataError(
                    f"{some([p.name for p in each.parts], 5)}: {each.column} for the input {each.name}; "
                    "the net was trained on " + (str(due) if due else f"the inputs {', '.join(self.schema)}")
                )
        floats = {name for name, column in self.schema.items() if column.dtype == np.float32}
        return found.as_floats() if floats == set(self.schema) else found

    def _shapes(self, features: Features) -> dict[str, tuple[int, ...]]:
        """The shapes of columns that are an input each."""
        named = features if isinstance(features, Mapping) else {next(iter(self.schema)): features}
        single = {name: [c] if isinstance(c, str) else list(c) for name, c in named.items()}
        return {
            columns[0]: self.schema[name].shape
            for name, columns in single.items()
            if len(columns) == 1 and name in self.schema
        }

    @property
    def _scores_shape(self) -> tuple[int, ...]:
        """What the net gives for each record."""
        one = Output("prediction", "", Lists())
        opened = self.inference([one]).open(self.weights)
        (rows,) = opened({name: column.empty(1) for name, column in self.schema.items()})
        return rows.shape[1:]


def without_training(model: TorchModel) -> TorchModel:
    """Only what it takes to build the module: weights come by themselves, and nothing of the loss travels."""
    return TorchModel(module=model.module, freeze=())
