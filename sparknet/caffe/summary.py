"""What a net is made of, in numbers: shapes, parameters, memory and multiply-adds, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparknet.caffe.layer import Layer
from sparknet.caffe.net import Net
from sparknet.weights import Shape

FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class LayerSummary:
    """One layer: ``parameters`` that it owns, ``multiply_adds`` of one forward pass."""

    name: str
    type: str
    tops: tuple[Shape, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True, kw_only=True)
class NetSummary:
    """A net; ``blob_bytes`` is the data of all blobs once, without gradients."""

    name: str
    layers: tuple[LayerSummary, ...]
    blob_bytes: int

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def parameter_bytes(self) -> int:
        return FLOAT_BYTES * self.parameters

    @property
    def multiply_adds(self) -> int:
        return sum(layer.multiply_adds for layer in self.layers)


def summarise(net: Net) -> NetSummary:
    """The summary of a net at its present batch size; Split layers, which Caffe adds itself, are left out."""
    rows = []
    for node in net.nodes:
        if node.layer.type != "Split":
            bottoms, tops = ([blob.shape for blob in blobs] for blobs in (node.bottoms, node.tops))
            rows.append(
                LayerSummary(
                    name=node.layer.name,
                    type=node.layer.type,
                    tops=tuple(tops),
                    parameters=_own_parameters(net, node.layer),
                    multiply_adds=multiply_adds(node.layer, bottoms, tops),
                )
            )
    unique = {name: blob for name, blob in net.blobs.items() if "_split_" not in name}
    return NetSummary(
        name=net.name,
        layers=tuple(rows),
        blob_bytes=FLOAT_BYTES * sum(math.prod(blob.shape) for blob in unique.values()),
    )


def multiply_adds(layer: Layer, bottoms: Sequence[Shape], tops: Sequence[Shape]) -> int:
    """Multiplications of inputs with weights in one forward pass; 0 for layers that have no such product."""
    if not layer.blobs:
        return 0
    weight = layer.blobs[0].shape
    if layer.type == "Convolution":
        return sum(math.prod(top) for top in tops) * math.prod(weight[1:])
    if layer.type == "Deconvolution":
        return sum(math.prod(bottom) for bottom in bottoms) * math.prod(weight[1:])
    if layer.type == "InnerProduct":
        outputs = layer.param.inner_product_param.num_output
        return math.prod(tops[0]) * (math.prod(weight) // outputs)
    if layer.type in ("LSTM", "RNN"):
        steps, streams = bottoms[0][:2]
        return steps * streams * sum(math.prod(blob.shape) for blob in layer.blobs if len(blob.shape) == 2)
    return 0


def _own_parameters(net: Net, layer: Layer) -> int:
    owned = {id(blob) for blob in net.learnable}
    return sum(math.prod(blob.shape) for blob in layer.blobs if id(blob) in owned)
