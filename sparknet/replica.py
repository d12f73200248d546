"""A replica: one copy of a net with its optimiser, whatever made it.

TorchReplica    any nn.Module, its optimiser and a loss
CaffeReplica    a Caffe net and its solver (``caffe_replica.py``)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F

from sparknet.data.dataset import Batch
from sparknet.errors import ModelError
from sparknet.merge import Statistics, torch_statistics
from sparknet.moved import moved_name
from sparknet.weights import Layout

__getattr__ = partial(
    moved_name,
    __name__,
    {"CaffeModel": "sparknet.caffe_replica", "CaffeReplica": "sparknet.caffe_replica"},
)

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
