"""What a net is trained for and judged by: losses and metrics, torch callables or names.

    objective = Objective(loss="cross_entropy", metrics=("accuracy", top_3))
    objective(output, batch)            the loss, 0-d, of a batch with ``label`` and perhaps ``weight``
    objective.scores(output, batch)     sums over the records

A loss is called with (output, label), or with (output) where there are no labels. An output (n, 1) is taken
for (n,) where the labels are that. With weights the loss is the weighted mean of the records' losses: the
callable must take ``reduction="none"``, as torch's do, or (output, label, weight).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from sparknet.data.records import IGNORED
from sparknet.errors import UsageError

Loss = Callable[..., Tensor]
Metric = Callable[[Tensor, Tensor], Tensor]
"""(output, label) -> a value for each record, (n,), or their mean, 0-d."""

LabelKind = Literal["classes", "numbers", "any"]
"""Classes are int64 from 0, numbers float32; ``any`` is left as it is."""

Batch = Mapping[str, Tensor]

_LOSSES: dict[str, tuple[Loss, LabelKind]] = {
    "cross_entropy": (F.cross_entropy, "classes"),
    "nll": (F.nll_loss, "classes"),
    "mse": (F.mse_loss, "numbers"),
    "mae": (F.l1_loss, "numbers"),
    "smooth_l1": (F.smooth_l1_loss, "numbers"),
    "huber": (F.huber_loss, "numbers"),
    "binary_cross_entropy": (F.binary_cross_entropy_with_logits, "numbers"),
}
_MODULES: dict[type[nn.Module], LabelKind] = {
    nn.CrossEntropyLoss: "classes",
    nn.NLLLoss: "classes",
    nn.MSELoss: "numbers",
    nn.L1Loss: "numbers",
    nn.SmoothL1Loss: "numbers",
    nn.HuberLoss: "numbers",
    nn.BCEWithLogitsLoss: "numbers",
    nn.BCELoss: "numbers",
}


def accuracy(output: Tensor, label: Tensor) -> Tensor:
    """Of the likeliest class, along axis 1; of the sign where labels are numbers. A value for each record."""
    if label.is_floating_point():
        return _each(((output > 0) == (label > 0.5)).float())
    counted = label != IGNORED
    right = (output.argmax(1) == label) & counted
    return _each(right.float()) / _each(counted.float()).clamp(min=1e-9)


def top(count: int, output: Tensor, label: Tensor) -> Tensor:
    """Whether the class is among the ``count`` likeliest: (n,)."""
    best = output.topk(min(count, output.shape[1]), dim=1).indices
    return (best == label[:, None]).any(1).float()


def squared_error(output: Tensor, label: Tensor) -> Tensor:
    return _each((output - label) ** 2)


def absolute_error(output: Tensor, label: Tensor) -> Tensor:
    return _each((output - label).abs())


METRICS: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "top5": partial(top, 5),
    "mse": squared_error,
    "mae": absolute_error,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Objective:
    """``loss`` and ``metrics`` by name or as callables; pickles if they do. ``labels`` is what a loss of the
    caller's own wants of them. Raises UsageError for names that there are not."""

    loss: str | Loss = "cross_entropy"
    metrics: Sequence[str | Metric] = ()
    labels: LabelKind | None = None
    _named: dict[str, Metric] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.loss, str) and self.loss not in _LOSSES:
            raise UsageError(f"there is no loss {self.loss!r}: {', '.join(_LOSSES)}, or a callable")
        for metric in self.metrics:
            if isinstance(metric, str) and metric not in METRICS:
                raise UsageError(f"there is no metric {metric!r}: {', '.join(METRICS)}, or a callable")
            name, function = (metric, METRICS[metric]) if isinstance(metric, str) else (_name(metric), metric)
            self._named[name] = function

    @property
    def label_kind(self) -> LabelKind:
        """What labels have to be."""
        if self.labels:
            return self.labels
        if isinstance(self.loss, str):
            return _LOSSES[self.loss][1]
        if isinstance(self.loss, nn.Module):
            return _MODULES.get(type(self.loss), "any")
        return dict(_LOSSES.values()).get(self.loss, "any")

    def __call__(self, output: Tensor, batch: Batch) -> Tensor:
        """The loss of a batch, 0-d."""
        label, weight = batch.get("label"), batch.get("weight")
        loss = _LOSSES[self.loss][0] if isinstance(self.loss, str) else self.loss
        if label is None:
            return _mean(loss(output))
        output = aligned(output, label)
        if weight is None:
            return _mean(loss(output, label))
        return _weighted(loss, output, label, weight)

    def scores(self, output: Tensor, batch: Batch) -> dict[str, float]:
        """``loss`` and each metric, summed over the records of the batch."""
        records = len(next(iter(batch.values())))
        sums = {"loss": float(self(output, batch)) * records}
        label = batch.get("label")
        if label is not None:
            output = aligned(output, label)
            for name, metric in self._named.items():
                value = metric(output, label)
                sums[name] = float(value.sum()) if value.ndim else float(value) * records
        return sums


def aligned(output: Tensor, label: Tensor) -> Tensor:
    """(n, 1) as (n,) where the labels, numbers, are that: their difference would be (n, n) otherwise."""
    if label.is_floating_point() and output.ndim == label.ndim + 1 and output.shape[-1] == 1:
        return output.squeeze(-1)
    return output


def check_weighted(loss: str | Loss) -> None:
    """Raise UsageError unless ``loss`` can be told how much each record counts."""
    if isinstance(loss, str) or _reduces(loss) or _takes_weight(loss):
        return
    raise UsageError(
        f"the loss {_name(loss)} cannot weigh records: give it a parameter reduction, as torch's losses "
        "have, or a third one, weight"
    )


def _weighted(loss: Loss, output: Tensor, label: Tensor, weight: Tensor) -> Tensor:
    if isinstance(loss, nn.Module) and hasattr(loss, "reduction"):
        unreduced: Any = copy.copy(loss)
        unreduced.reduction = "none"
        each = unreduced(output, label)
    elif _reduces(loss):
        each = loss(output, label, reduction="none")
    else:
        return _mean(loss(output, label, weight))
    return (_each(each) * weight).sum() / weight.sum().clamp(min=1e-12)


def _reduces(loss: Any) -> bool:
    if isinstance(loss, nn.Module):
        return hasattr(loss, "reduction")
    return "reduction" in _parameters(loss)


def _takes_weight(loss: Any) -> bool:
    return len(_parameters(loss.forward if isinstance(loss, nn.Module) else loss)) >= 3


def _parameters(function: Any) -> list[str]:
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # of a builtin
        return []


def _each(values: Tensor) -> Tensor:
    """The mean of each record: (n, ...) to (n,)."""
    return values if values.ndim <= 1 else values.flatten(1).mean(1)


def _mean(loss: Tensor) -> Tensor:
    return loss.mean() if loss.ndim else loss


def _name(function: Any) -> str:
    if isinstance(function, partial):
        return _name(function.func)
    return str(getattr(function, "__name__", type(function).__name__))
