"""How long each layer of a net takes forward and backward, as the ``caffe time`` command measures it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from sparknet.caffe.net import Net


@dataclass(frozen=True, kw_only=True)
class LayerTime:
    """Mean milliseconds of one layer."""

    name: str
    type: str
    forward_ms: float
    backward_ms: float


def time_layers(net: Net, iterations: int) -> list[LayerTime]:
    """The means over ``iterations`` passes, after one that is not counted; inputs are as they stand."""
    net.forward()
    net.backward()
    count = len(net.nodes)
    forward, backward = [0.0] * count, [0.0] * count
    for _ in range(iterations):
        net.clear_diffs()
        for number in range(count):
            began = _now(net)
            net.forward_range(number, number)
            forward[number] += _now(net) - began
        for number in reversed(range(count)):
            began = _now(net)
            net.backward_range(number, number)
            backward[number] += _now(net) - began
    return [
        LayerTime(
            name=layer.name,
            type=layer.type,
            forward_ms=1e3 * forward[number] / iterations,
            backward_ms=1e3 * backward[number] / iterations,
        )
        for number, layer in enumerate(net.layers)
    ]


def _now(net: Net) -> float:
    if net.device.type == "cuda":
        torch.cuda.synchronize(net.device)
    return time.perf_counter()
