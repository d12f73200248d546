"""A replica: one copy of a net with its optimiser, whatever made it.

TorchReplica    any nn.Module, its optimiser and a loss
CaffeReplica    a Caffe net and its solver (``caffe_replica.py``)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Protocol, runtime_checkable

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from sparknet.data.dataset import Batch
from sparknet.data.feed import TARGETS
from sparknet.errors import ModelError, UsageError
from sparknet.flat_gradients import FlatGradients
from sparknet.gradients import OnFinal
from sparknet.merge import Statistics, torch_statistics
from sparknet.modules import call, first_of
from sparknet.moved import moved_name
from sparknet.objectives import Objective
from sparknet.weights import Layout

__getattr__ = partial(
    moved_name,
    __name__,
    {
        "CaffeModel": "sparknet.caffe_replica.CaffeModel",
        "CaffeReplica": "sparknet.caffe_replica.CaffeReplica",
    },
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


@runtime_checkable
class Scalable(Protocol):
    """A replica whose learning rate is that of its schedule times ``rate_factor``, 1 to begin with."""

    rate_factor: float


class TorchReplica:
    """Any module and an optimiser of torch's.

    Columns but ``label`` and ``weight`` go to the module: a single one as its argument, several by name. It
    is judged by ``loss``, an ``Objective``, or a function of (output, label). ``make_optimizer`` is given the
    parameters that are trained, after they have moved into one vector. ``schedule`` maps the number of steps
    made to a factor of the learning rate; ``scheduler`` makes one of torch's schedulers, which takes a step
    with each of ours. Gradients are clipped to the L2 norm ``clip_norm``, and each number to ``clip_value``.
    Parts whose parameters are all frozen (``requires_grad`` false) stay in ``eval``. Floating-point buffers
    (running statistics) lie in the vector behind the parameters and are averaged with them. Raises ModelError
    for parameters that are not float32, UsageError for a scheduler that needs more than steps.
    """

    batches_per_step = 1
    rate_factor = 1.0

    def __init__(
        self,
        module: nn.Module,
        make_optimizer: MakeOptimizer,
        *,
        loss: Loss | Objective = F.cross_entropy,
        schedule: Callable[[int], float] | None = None,
        scheduler: Callable[[torch.optim.Optimizer], LRScheduler] | None = None,
        clip_norm: float | None = None,
        clip_value: float | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        self.module = module.to(device)
        self.objective = loss if isinstance(loss, Objective) else Objective(loss=loss, metrics=["accuracy"])
        self.clip_norm, self.clip_value = clip_norm, clip_value
        self.layout, self.weights = flatten(self.module)
        self.statistics: Sequence[Statistics] = torch_statistics(self.layout)
        self._trained = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self._frozen = [part for part in self.module.modules() if _is_frozen(part)]
        self.optimizer = make_optimizer(self._trained)
        self._make_moments()
        self.schedule, self._make_scheduler = schedule, scheduler
        self._base = [dict(group, params=()) for group in self.optimizer.param_groups]
        self.iteration = 0

    @property
    def lr(self) -> float:
        return self._lr

    @property
    def iteration(self) -> int:
        return self._iteration

    @iteration.setter
    def iteration(self, steps: int) -> None:
        self._iteration = steps
        for group, base in zip(self.optimizer.param_groups, self._base, strict=True):
            group.update({**base, "params": group["params"]})
        self._scheduler = _scheduler_after(steps, self._make_scheduler, self.optimizer)
        self._follow_schedule()

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        loss = self._backward(batches)
        self._take_step()
        return loss

    def compute(self, batches: Iterator[Batch], on_final: OnFinal) -> torch.Tensor:
        """As in ``gradients.py``. Raises ModelError for gradients that are sparse, or not complete at
        once."""
        with self.flat_gradients.collected(on_final):
            return self._backward(batches)

    def apply(self, unused: Sequence[int] = ()) -> None:
        self.flat_gradients.give(unused)
        self._take_step()

    @cached_property
    def flat_gradients(self) -> FlatGradients:
        return FlatGradients(self.module, self.layout, self.weights)

    @property
    def gradients(self) -> torch.Tensor:
        """float32 (P,), as in ``gradients.py``."""
        return self.flat_gradients.vector

    @property
    def trained(self) -> Sequence[slice]:
        return self.flat_gradients.places

    @property
    def moving(self) -> Sequence[slice]:
        parameters = dict(self.module.named_parameters())
        return [
            slice(slot.offset, slot.end) for slot in self.layout if slot.name not in parameters and slot.size
        ]

    @property
    def loss_scale(self) -> None:
        return None

    @property
    def unused(self) -> tuple[int, ...]:
        return self.flat_gradients.unused

    def _backward(self, batches: Iterator[Batch]) -> torch.Tensor:
        batch = next(batches)
        self.module.train()
        for part in self._frozen:
            part.eval()
        self._follow_schedule()
        self._lr *= self.rate_factor
        self.optimizer.zero_grad()
        loss = self.objective(self._output(batch), batch)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _take_step(self) -> None:
        self._clip()
        with self._scaled_rates():
            self.optimizer.step()
        if self._scheduler:
            self._scheduler.step()
        self._iteration += 1

    def score(self, batch: Batch) -> dict[str, float]:
        """``loss`` and the metrics of the objective."""
        self.module.eval()
        return self.objective.scores(self._output(batch), batch)

    def _output(self, batch: Batch) -> torch.Tensor:
        return first_of(call(self.module, {k: v for k, v in batch.items() if k not in TARGETS}))

    def _clip(self) -> None:
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._trained, self.clip_norm)
        if self.clip_value is not None:
            nn.utils.clip_grad_value_(self._trained, self.clip_value)

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
                group["lr"] = base["lr"] * self.schedule(self.iteration)
        self._lr = float(self.optimizer.param_groups[0]["lr"])

    @contextmanager
    def _scaled_rates(self) -> Iterator[None]:
        """Times ``rate_factor`` within; schedulers go by the rates as they are without."""
        groups = self.optimizer.param_groups
        rates = [group["lr"] for group in groups]
        if self.rate_factor != 1:
            for group in groups:
                group["lr"] = self.rate_factor * group["lr"]
        try:
            yield
        finally:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate

    def _moments(self) -> list[torch.Tensor]:
        """The optimiser's tensors, parameter by parameter, by name."""
        states = [self.optimizer.state.get(parameter, {}) for parameter in self.module.parameters()]
        return [state[name] for state in states for name in sorted(state) if torch.is_tensor(state[name])]

    def _make_moments(self) -> None:
        """torch allocates an optimiser's tensors in the first step: take one that goes nowhere."""
        before = self.weights.clone()
        for parameter in self._trained:
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.weights.copy_(before)
        self.restore_history(torch.empty(0))


def _is_frozen(part: nn.Module) -> bool:
    parameters = list(part.parameters())
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)


def _scheduler_after(
    steps: int,
    make: Callable[[torch.optim.Optimizer], LRScheduler] | None,
    optimizer: torch.optim.Optimizer,
) -> LRScheduler | None:
    """A scheduler where so many steps have been taken, the optimiser's rates being those before the first."""
    if make is None:
        return None
    for group in optimizer.param_groups:
        group.pop("initial_lr", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimiser has taken no step
        scheduler = make(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):
            raise UsageError(
                "ReduceLROnPlateau waits for a metric, which no step has: take another scheduler"
            )
        for _ in range(steps):
            scheduler.step()
    return scheduler


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
