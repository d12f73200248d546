"""A replica: one copy of a net with its optimiser, whatever made it.

CaffeReplica    a Caffe net and its solver
TorchReplica    any nn.Module, its optimiser and a loss
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F

from sparknet.caffe.blob import Blob
from sparknet.caffe.net import Net
from sparknet.caffe.schema import TEST, TRAIN, NetParameter, SolverParameter
from sparknet.caffe.solver import Solver
from sparknet.errors import ModelError
from sparknet.merge import Statistics, torch_statistics
from sparknet.weights import Layout

Batch = Mapping[str, torch.Tensor]
"""``data`` float32 (n, c, h, w) and ``label`` int64 (n,), both on the replica's device."""

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Replica(Protocol):
    """Anything that can be trained: weights in one flat vector, and a way to take a step.

    ``weights`` float32 (P,) is the memory the net computes with: writing to it changes the net.
    ``statistics`` says where in it running means and variances lie.
    ``batches_per_step`` batches are taken from the iterator in each step.
    ``iteration`` counts the steps made; setting it moves the learning rate's schedule.
    """

    layout: Layout
    weights: torch.Tensor
    statistics: Sequence[Statistics]
    batches_per_step: int
    iteration: int

    @property
    def lr(self) -> float:
        """The learning rate of the last step; that of the first before it."""
        ...

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        """One step of SGD; returns its loss, a 0-d tensor on any device."""
        ...

    def score(self, batch: Batch) -> dict[str, float]:
        """Every score of the net in its test phase, summed over the records of the batch."""
        ...

    def history(self) -> torch.Tensor:
        """A copy of the optimiser's memory, momentum and the like: float32 (H,); H never changes."""
        ...

    def restore_history(self, history: torch.Tensor) -> None:
        """Go on from ``history``; one of no elements stands for zeros."""
        ...


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


class CaffeReplica:
    """A Caffe net in its two phases and the solver that trains it.

    The first input of the net takes the images, the second, if there is one, the labels. The solver neither
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
        self.statistics: Sequence[Statistics] = _batch_norms(self.net)
        self.batches_per_step = quiet.iter_size
        self.lr = self.solver.lr

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

    def score(self, batch: Batch) -> dict[str, float]:
        """The net's scalar outputs, each a mean over the batch, times its records.

        Exact where a layer divides by the records, as all do by default unless labels are ignored.
        """
        outputs = self.test_net.forward(_fed(self.test_net, batch))
        count = len(batch["data"])
        return {name: float(value) * count for name, value in outputs.items() if value.numel() == 1}

    def history(self) -> torch.Tensor:
        return torch.cat([vector.flatten() for vector in self.solver.history])

    def restore_history(self, history: torch.Tensor) -> None:
        vectors = self.solver.history
        if not history.numel():
            history = torch.zeros(sum(vector.numel() for vector in vectors))
        for vector, saved in zip(vectors, history.chunk(len(vectors)), strict=True):
            vector.copy_(saved)


def _batch_norms(net: Net) -> tuple[Statistics, ...]:
    """Caffe's BatchNorm layers keep the mean, the variance, and what both have been multiplied by."""

    def place(blob: Blob) -> slice:
        start = (blob.data.data_ptr() - net.weights.data_ptr()) // net.weights.element_size()
        return slice(start, start + blob.count)

    found = [[place(blob) for blob in layer.blobs] for layer in net.layers if layer.type == "BatchNorm"]
    return tuple(
        Statistics(mean=mean, variance=variance, scale=scale.start) for mean, variance, scale in found
    )


def _fed(net: Net, batch: Batch) -> dict[str, torch.Tensor]:
    return dict(zip(net.input_names, (batch["data"], batch["label"]), strict=False))


class TorchReplica:
    """Any module that maps ``data`` to scores (n, classes), with an optimiser of torch's.

    ``make_optimizer`` is given the parameters after they have moved into one vector; ``loss`` maps (output,
    label) to the mean over the batch; ``schedule`` maps the number of steps made to a factor of the
    learning rate. Floating-point buffers (running statistics) lie in the vector behind the parameters and
    are averaged with them. Raises ModelError for parameters that are not float32.
    """

    batches_per_step = 1

    def __init__(
        self,
        module: nn.Module,
        make_optimizer: MakeOptimizer,
        *,
        loss: Loss = F.cross_entropy,
        schedule: Callable[[int], float] | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.module, self.loss = module.to(device), loss
        self.layout, self.weights = flatten(self.module)
        self.statistics: Sequence[Statistics] = torch_statistics(self.layout)
        self.optimizer = make_optimizer(self.module.parameters())
        self._make_moments()
        self.schedule = schedule
        self.iteration = 0
        self._base = [group["lr"] for group in self.optimizer.param_groups]

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        batch = next(batches)
        self.module.train()
        self._follow_schedule()
        self.optimizer.zero_grad()
        loss = self.loss(self.module(batch["data"]), batch["label"])
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.iteration += 1
        return loss.detach()

    def score(self, batch: Batch) -> dict[str, float]:
        """``loss`` and ``accuracy``."""
        self.module.eval()
        output, label = self.module(batch["data"]), batch["label"]
        return {
            "loss": float(self.loss(output, label)) * len(label),
            "accuracy": float((output.argmax(1) == label).sum()),
        }

    def history(self) -> torch.Tensor:
        # some optimisers count steps on the CPU
        moments = [moment.detach().to(self.weights.device).float().flatten() for moment in self._moments()]
        return torch.cat(moments) if moments else torch.empty(0)

    def restore_history(self, history: torch.Tensor) -> None:
        if not history.numel():
            history = torch.zeros(sum(moment.numel() for moment in self._moments()))
        start = 0
        for moment in self._moments():
            moment.copy_(history[start : start + moment.numel()].view_as(moment))
            start += moment.numel()

    def _follow_schedule(self) -> None:
        if self.schedule:
            for group, base in zip(self.optimizer.param_groups, self._base, strict=True):
                group["lr"] = base * self.schedule(self.iteration)

    def _moments(self) -> list[torch.Tensor]:
        """The optimiser's tensors, parameter by parameter, by name."""
        states = [self.optimizer.state.get(parameter, {}) for parameter in self.module.parameters()]
        return [state[name] for state in states for name in sorted(state) if torch.is_tensor(state[name])]

    def _make_moments(self) -> None:
        """torch allocates an optimiser's tensors in the first step: take one that goes nowhere."""
        before = self.weights.clone()
        for parameter in self.module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.weights.copy_(before)
        self.restore_history(torch.empty(0))


def flatten(module: nn.Module) -> tuple[Layout, torch.Tensor]:
    """Move parameters and floating-point buffers into one float32 vector; views of it take their place."""
    parameters = dict(module.named_parameters())
    buffers = {name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()}
    tensors: dict[str, torch.Tensor] = {**parameters, **buffers}
    wrong = [f"{name} ({tensor.dtype})" for name, tensor in tensors.items() if tensor.dtype != torch.float32]
    if wrong:
        raise ModelError(f"only float32 can be averaged, but these are not: {', '.join(wrong)}")
    layout = Layout.of({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    vector = torch.cat([tensor.detach().flatten() for tensor in tensors.values()] or [torch.empty(0)])
    for name, view in layout.views(vector).items():
        tensors[name].data = view
    return layout, vector
