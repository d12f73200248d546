"""How any ``nn.Module`` is called, whatever it takes and gives: shared by training and inference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from sparknet.errors import ModelError
from sparknet.weights import Vector

Tensors = dict[str, torch.Tensor]


@contextmanager
def outputs_of(module: nn.Module, names: tuple[str, ...]) -> Iterator[Tensors]:
    """What the submodules of these names give, from now on, by name."""
    found: Tensors = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            found[name] = first_of(output)

        return hook

    handles = [module.get_submodule(name).register_forward_hook(keep(name)) for name in names if name]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def call(module: nn.Module, inputs: Mapping[str, torch.Tensor]) -> Any:
    """A single input is the only argument, whatever its name; several go by their names."""
    return module(*inputs.values()) if len(inputs) == 1 else module(**inputs)


def first_of(output: Any) -> torch.Tensor:
    """A net that gives several tensors (an RNN: outputs and state) is meant by the first."""
    while isinstance(output, tuple | list):
        output = output[0]
    return output  # type: ignore[no-any-return]


def fill(module: nn.Module, weights: Vector) -> None:
    """Give a module the weights of a flat vector: parameters, then floating-point buffers.

    Raises ModelError if it is another module's.
    """
    buffers = [buffer for buffer in module.buffers() if buffer.is_floating_point()]
    tensors = [*module.parameters(), *buffers]
    due = sum(each.numel() for each in tensors)
    if due != weights.size:
        raise ModelError(
            f"a weight vector of {weights.size:,} numbers does not fit a net of {due:,}: "
            "the weights belong to another net"
        )
    start = 0
    with torch.no_grad():
        for each in tensors:
            each.copy_(torch.from_numpy(np.array(weights[start : start + each.numel()])).view(each.shape))
            start += each.numel()
