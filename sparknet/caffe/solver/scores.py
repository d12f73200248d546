"""The means of a net's outputs over some batches, element by element, as Caffe's tests report them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from sparknet.caffe.net import Net

Feed = Callable[[], Mapping[str, torch.Tensor]]


@dataclass(frozen=True, kw_only=True)
class Score:
    """One element of an output blob, or its mean over batches."""

    output: str
    value: float
    loss_weight: float = 0.0

    def __str__(self) -> str:
        weighted = f" (* {self.loss_weight:g} = {self.loss_weight * self.value:g} loss)"
        return f"{self.output} = {self.value:g}" + (weighted if self.loss_weight else "")


def scores_of(net: Net, outputs: Mapping[str, torch.Tensor]) -> Iterator[Score]:
    """Every element of every output, in order, with what it counts in the loss of ``net``."""
    weights = {top.name: weight for node in net.nodes for top, weight in node.weighted_tops}
    for name, values in outputs.items():
        for value in values.detach().flatten().tolist():
            yield Score(output=name, value=value, loss_weight=weights.get(name, 0.0))


def mean_outputs(
    net: Net, batches: int, feed: Feed | None = None, *, is_stopped: Callable[[], bool] = lambda: False
) -> tuple[list[Score], float]:
    """The plain means over ``batches`` forward passes of each element of each output, and of the loss.

    ``is_stopped`` is asked before each pass; nothing is scored, and the loss is 0, if it says so. Of no
    passes (``test_iter: 0``) there are no scores, and the loss is not a number.
    """
    if batches < 1:
        return [], math.nan
    sums: dict[str, torch.Tensor] = {}
    loss = torch.zeros((), device=net.device)
    for _ in range(batches):
        if is_stopped():
            return [], 0.0
        for name, output in net.forward(feed() if feed else None).items():
            sums[name] = sums[name] + output if name in sums else output.clone()
        loss = loss + net.loss
    means = {name: total / batches for name, total in sums.items()}
    return list(scores_of(net, means)), float(loss) / batches
