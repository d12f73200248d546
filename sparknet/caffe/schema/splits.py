"""Split layers: a blob that several layers read gets a copy for each, so that their gradients are added.

The names are Caffe's, because users see them: ``data_input_0_split``, its tops ``data_input_0_split_0``...
Source: ``InsertSplits`` of BVLC Caffe's ``src/caffe/util/insert_splits.cpp``.
"""

from __future__ import annotations

from collections import Counter

from sparknet.caffe.schema.caffe_pb2 import LayerParameter, NetParameter
from sparknet.errors import ModelError

Top = tuple[int, int]  # layer, index among its tops


def with_splits(net: NetParameter) -> NetParameter:
    """Insert the Split layers ``net`` needs, in place, and return it.

    Raises ModelError for a bottom that no layer before it makes.
    """
    sources = _sources(net)
    uses = Counter(source for bottoms in sources for source in bottoms)
    weights = _weighted_tops(net, uses)
    layers: list[LayerParameter] = []
    next_copy: Counter[Top] = Counter()
    for i, layer in enumerate(net.layer):
        own = LayerParameter()
        own.CopyFrom(layer)
        for j, top in enumerate(sources[i]):
            if uses[top] > 1:
                own.bottom[j] = _copy_name(net, top, next_copy[top] + (top in weights))
                next_copy[top] += 1
        layers.append(own)
        for j in range(len(layer.top)):
            if uses[i, j] > 1:
                layers.append(_split(net, (i, j), uses[i, j], weights.get((i, j), 0.0)))
                if (i, j) in weights:
                    own.loss_weight[j] = 0.0
    net.ClearField("layer")
    net.layer.extend(layers)
    return net


def _sources(net: NetParameter) -> list[list[Top]]:
    """For each layer, which layer's top each of its bottoms is."""
    writer: dict[str, Top] = {}
    sources: list[list[Top]] = []
    for i, layer in enumerate(net.layer):
        for blob in layer.bottom:
            if blob not in writer:
                raise ModelError(
                    f'layer "{layer.name}" ({layer.type}): bottom "{blob}" is the top of no layer before it'
                    f"; there is {', '.join(writer) or 'none'}"
                )
        sources.append([writer[blob] for blob in layer.bottom])
        writer.update({blob: (i, j) for j, blob in enumerate(layer.top)})
    return sources


def _weighted_tops(net: NetParameter, uses: Counter[Top]) -> dict[Top, float]:
    """Tops that are read and also part of the loss: the loss counts as one reader more."""
    weights = {
        (i, j): layer.loss_weight[j]
        for i, layer in enumerate(net.layer)
        for j in range(min(len(layer.top), len(layer.loss_weight)))
        if layer.loss_weight[j] and uses[i, j]
    }
    uses.update(weights.keys())
    return weights


def _copy_name(net: NetParameter, top: Top, copy: int) -> str:
    layer = net.layer[top[0]]
    return f"{layer.top[top[1]]}_{layer.name}_{top[1]}_split_{copy}"


def _split(net: NetParameter, top: Top, count: int, loss_weight: float) -> LayerParameter:
    layer = net.layer[top[0]]
    blob = layer.top[top[1]]
    split = LayerParameter(name=f"{blob}_{layer.name}_{top[1]}_split", type="Split", bottom=[blob])
    split.top.extend(_copy_name(net, top, copy) for copy in range(count))
    if loss_weight:
        split.loss_weight.extend([loss_weight] + [0.0] * (count - 1))
    return split
