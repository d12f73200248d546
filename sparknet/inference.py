"""A trained net at work: columns of records in, its outputs for them out.

    opened = Inference(build=module, outputs=("", "fc1")).open()
    scores, features = opened({"data": pixels})     # float32 (n, ...), a row for each record

A Caffe net is run in its test phase and up to the last blob that is asked for; a module is put into ``eval``,
and convolutions on a CPU compute in channels-last order, which takes half of the time. A name of an output is
a blob of the one and a submodule of the other ("" is what the net gives in the end).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sparknet.caffe.net import Net
from sparknet.data.feed import Transforms, as_tensor, by_column, for_net
from sparknet.errors import ModelError
from sparknet.modules import call, fill, first_of, outputs_of
from sparknet.weights import Vector

Columns = Mapping[str, NDArray[Any]]
Tensors = dict[str, torch.Tensor]

# Records computed at a time: more leave the cache of a core. cifar10_quick on one core, images/s by batch:
# 50: 3,400, 100: 3,650, 250: 3,900, 1000: 2,800.
BATCH_SIZE = 250


class Opened(Protocol):
    """A net that is ready to compute: ``names`` are its outputs, in order."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def __call__(self, columns: Columns) -> list[NDArray[Any]]:
        """An array (n, ...) for each output that was asked for."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Inference:
    """What it takes to compute with a net elsewhere; pickles.

    ``build`` makes the net: a ``Net`` or an ``nn.Module``, its weights in it. ``transforms`` are applied to
    inputs by name. Raises ModelError for outputs that the net does not have.
    """

    build: Callable[[], Net | nn.Module]
    outputs: tuple[str, ...] = ("",)
    transforms: Transforms | None = None
    batch_size: int = BATCH_SIZE

    def open(self, weights: Vector | None = None) -> Opened:
        """The net, with ``weights`` float32 (P,) if they are given."""
        net = self.build()
        kind = _CaffeNet if isinstance(net, Net) else _Module
        return kind(net, weights, self)  # type: ignore[arg-type]

    def inputs_of(self, columns: Columns, device: torch.device) -> Tensors:
        """The records as tensors on ``device``; pictures and what has a transform are float32."""
        transforms = by_column(self.transforms)
        return {
            name: for_net(transforms.get(name), as_tensor(array).to(device), train=False)
            for name, array in columns.items()
        }


class _Batched:
    """Cuts records into batches, and joins what comes of them."""

    def __init__(self, inference: Inference) -> None:
        self.inference = inference

    @property
    def names(self) -> tuple[str, ...]:
        return self.inference.outputs

    def __call__(self, columns: Columns) -> list[NDArray[Any]]:
        count, size = len(next(iter(columns.values()))), self.inference.batch_size
        starts = range(0, max(count, 1), size)
        parts = [
            self._checked({name: array[start : start + size] for name, array in columns.items()})
            for start in starts
        ]
        return [np.concatenate(each) if len(parts) > 1 else each[0] for each in zip(*parts, strict=True)]

    def _checked(self, columns: Columns) -> list[NDArray[Any]]:
        count, found = len(next(iter(columns.values()))), self._run(columns)
        for name, rows in zip(self.inference.outputs, found, strict=True):
            if rows.ndim == 0 or len(rows) != count:
                raise ModelError(
                    f"{_called(name)} is {tuple(rows.shape)} for {count} records: not one row for each"
                )
        return found

    def _run(self, columns: Columns) -> list[NDArray[Any]]:
        raise NotImplementedError


class _CaffeNet(_Batched):
    def __init__(self, net: Net, weights: Vector | None, inference: Inference) -> None:
        super().__init__(inference)
        self.net = net
        if weights is not None:
            net.layout.check(weights.size)
            net.weights.copy_(torch.from_numpy(np.array(weights)))
        self.blobs = [name or scores_of(net) for name in inference.outputs]
        for blob in self.blobs:
            if blob not in net.blobs:
                raise ModelError(f'the net has no blob "{blob}": it has {", ".join(net.blobs)}')
        makers = [k for k, node in enumerate(net.nodes) if {t.name for t in node.tops} & set(self.blobs)]
        self.last = max(makers)

    def _run(self, columns: Columns) -> list[NDArray[Any]]:
        tensors = self.inference.inputs_of(columns, self.net.device)
        count = len(next(iter(tensors.values())))
        missing = [name for name in self.net.input_names if name not in tensors]
        idle = torch.zeros(count, device=self.net.device)  # for losses and scores that nobody looks at
        self.net.feed({**tensors, **dict.fromkeys(missing, idle)})
        self.net.forward_range(0, self.last)
        return [self.net.blobs[name].data.cpu().numpy().copy() for name in self.blobs]


class _Module(_Batched):
    def __init__(self, module: nn.Module, weights: Vector | None, inference: Inference) -> None:
        super().__init__(inference)
        self.module = module.eval()
        if weights is not None:
            fill(module, weights)
        self.device = next((p.device for p in module.parameters()), torch.device("cpu"))
        self.wide = self.device.type == "cpu" and any(isinstance(m, nn.Conv2d) for m in module.modules())
        if self.wide:
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        parts = dict(module.named_modules())
        unknown = [name for name in inference.outputs if name not in parts]
        if unknown:
            there = ", ".join(name for name in parts if name)
            raise ModelError(f'the module has no part "{unknown[0]}": it has {there or "none"}')

    def _run(self, columns: Columns) -> list[NDArray[Any]]:
        tensors = self.inference.inputs_of(columns, self.device)
        if self.wide:
            tensors = {name: _channels_last(value) for name, value in tensors.items()}
        with torch.inference_mode(), outputs_of(self.module, self.inference.outputs) as found:
            found[""] = first_of(call(self.module, tensors))
            return [found[name].cpu().numpy() for name in self.inference.outputs]


def scores_of(net: Net) -> str:
    """The blob that the last loss of a Caffe net judges; its last blob if there is no loss."""
    judged = [node.bottoms[0].name for node in net.nodes if node.weighted_tops and node.bottoms]
    if not judged:
        return list(net.blobs)[-1]
    # a Split stands before a blob that is read twice
    whole = {t.name: n.bottoms[0].name for n in net.nodes if n.layer.type == "Split" for t in n.tops}
    return whole.get(judged[-1], judged[-1])


def _channels_last(batch: torch.Tensor) -> torch.Tensor:
    return batch.contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch


def _called(name: str) -> str:
    return f'output "{name}"' if name else "the net's output"
