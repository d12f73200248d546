"""Caffe nets as replicas: a net and its solver, and the model they are built from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from sparknet.caffe.blob import Blob
from sparknet.caffe.net import Net
from sparknet.caffe.schema import TEST, TRAIN, NetParameter, SolverParameter
from sparknet.caffe.solver import Solver
from sparknet.data.dataset import Batch
from sparknet.gradients import OnFinal
from sparknet.merge import Statistics


@dataclass(frozen=True, kw_only=True, eq=False)
class CaffeModel:
    """How to build a ``CaffeReplica``; pickles. ``device`` is a GPU if there is one, unless it is given.

    ``net`` is fed: data layers must have been replaced (``sparknet.caffe.schema.replace_data_layers``).
    ``precision`` is that of training: float32, bf16 or fp16 (see ``sparknet.caffe.precision``).
    """

    net: NetParameter
    solver: SolverParameter
    device: str = ""
    precision: str = "float32"

    def __call__(self) -> CaffeReplica:
        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        return CaffeReplica(self.net, self.solver, device, precision=self.precision)


@dataclass(frozen=True)
class InferenceNet:
    """Builds the net of ``model`` in its test phase; pickles."""

    model: CaffeModel

    def __call__(self) -> Net:
        return self.model().test_net


class CaffeReplica:
    """A Caffe net in its two phases and the solver that trains it.

    Inputs of the net are fed by their names, or, where a batch has others, the first takes ``data`` and the
    second, if there is one, ``label``. The solver neither
    tests nor takes snapshots: that is done for all workers together. Raises ModelError for a net or solver
    that cannot be.
    """

    def __init__(
        self,
        net: NetParameter,
        solver: SolverParameter,
        device: str | torch.device = "cpu",
        *,
        precision: str = "float32",
    ) -> None:
        self.net = Net(net, TRAIN, device=device, precision=precision)
        self.test_net = Net(net, TEST, device=device)
        self.test_net.share_with(self.net)
        quiet = SolverParameter()
        quiet.CopyFrom(solver)
        quiet.snapshot = quiet.test_interval = quiet.display = 0
        self.solver = Solver(quiet, self.net)
        self.layout, self.weights = self.net.layout, self.net.weights
        self.gradients = self.net.diffs
        self.statistics: Sequence[Statistics] = _batch_norms(self.net)
        self.trained, self.moving = _places(self.net)
        self.unused: tuple[int, ...] = ()  # Caffe's solver updates every parameter
        self.batches_per_step = quiet.iter_size
        self.lr = self.solver.lr

    @property
    def rate_factor(self) -> float:
        return self.solver.rate_factor

    @rate_factor.setter
    def rate_factor(self, factor: float) -> None:
        self.solver.rate_factor = factor

    @property
    def iteration(self) -> int:
        return self.solver.iter

    @iteration.setter
    def iteration(self, steps: int) -> None:
        self.solver.iter = steps
        self.solver.current_step = sum(value <= steps for value in self.solver.param.stepvalue)

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        self.lr = self.solver.lr
        return self.solver.step(1, lambda: _fed(self.net, next(batches)))

    @property
    def loss_scale(self) -> float | None:
        return self.solver.loss_scale.value if self.solver.loss_scale else None

    def compute(self, batches: Iterator[Batch], on_final: OnFinal) -> torch.Tensor:
        self.lr = self.solver.lr
        return self.solver.sum_gradients(lambda: _fed(self.net, next(batches)), on_final)

    def apply(self, unused: Sequence[int] = ()) -> None:  # noqa: ARG002 - there are none
        self.solver.apply_update(unscaled=True)

    def score(self, batch: Batch) -> dict[str, float]:
        """The net's scalar outputs, each a mean over the batch, times its records.

        Exact where a layer divides by the records, as all do by default unless labels are ignored.
        """
        outputs = self.test_net.forward(_fed(self.test_net, batch))
        count = len(next(iter(batch.values())))
        return {name: float(value) * count for name, value in outputs.items() if value.numel() == 1}

    def history(self) -> torch.Tensor:
        return torch.cat([vector.flatten() for vector in self.solver.history])

    def restore_history(self, history: torch.Tensor) -> None:
        vectors = self.solver.history
        if not history.numel():
            history = torch.zeros(sum(vector.numel() for vector in vectors))
        for vector, saved in zip(vectors, history.chunk(len(vectors)), strict=True):
            vector.copy_(saved)


def _place(net: Net, blob: Blob) -> slice:
    """Where it lies in the weights."""
    start = (blob.data.data_ptr() - net.weights.data_ptr()) // net.weights.element_size()
    return slice(start, start + blob.count)


def _places(net: Net) -> tuple[list[slice], list[slice]]:
    """Where there are gradients, and where a forward pass moves values: statistics, and what a Python layer
    does not learn."""
    trained: dict[int, slice] = {}
    moving: dict[int, slice] = {}
    for layer in net.layers:
        for blob, wanted in zip(layer.blobs, layer.wants_gradient, strict=True):
            place = _place(net, blob)
            if wanted and layer.type != "BatchNorm" and blob.count:
                trained[place.start] = place
            elif layer.type in ("BatchNorm", "Python") and blob.count:
                moving[place.start] = place
    only_moving = sorted(moving.keys() - trained.keys())
    return [trained[start] for start in sorted(trained)], [moving[start] for start in only_moving]


def _batch_norms(net: Net) -> tuple[Statistics, ...]:
    """Caffe's BatchNorm layers keep the mean, the variance, and what both have been multiplied by."""
    found = [[_place(net, blob) for blob in layer.blobs] for layer in net.layers if layer.type == "BatchNorm"]
    return tuple(
        Statistics(mean=mean, variance=variance, scale=scale.start) for mean, variance, scale in found
    )


def _fed(net: Net, batch: Batch) -> dict[str, torch.Tensor]:
    if all(name in batch for name in net.input_names):
        return {name: batch[name] for name in net.input_names}
    ordered = [tensor for name, tensor in batch.items() if name != "label"][:1]
    ordered += [batch["label"]] if "label" in batch else []
    return dict(zip(net.input_names, ordered, strict=False))
