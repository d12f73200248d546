"""The learned blobs of a net: which layer owns which, and the two flat vectors they are views of.

Layers that name a blob alike (``param { name: "w" }``) share it: the first is the owner, gradients of all
add up in the owner's, and the solver updates it once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from sparknet.caffe.blob import Blob
from sparknet.caffe.files.blobs import decode_blob
from sparknet.caffe.fillers import fill
from sparknet.caffe.layer import Declaration, Layer
from sparknet.caffe.schema.caffe_pb2 import ParamSpec
from sparknet.caffe.schema.weights_pb2 import Blob as BlobMessage
from sparknet.caffe.size_check import excess
from sparknet.errors import ModelError
from sparknet.weights import Layout


@dataclass
class Parameters:
    """``learnable`` has each blob once, in layer order; ``weights`` and ``diffs`` are float32, (P,)."""

    layout: Layout
    weights: torch.Tensor
    diffs: torch.Tensor
    learnable: list[Blob] = field(default_factory=list)


@dataclass
class _Owned:
    """A blob of the flat vector, and the layers' specs for it."""

    name: str
    layer: Layer
    index: int
    declaration: Declaration
    specs: list[ParamSpec]

    def multiplier(self, which: str, default: float = 1.0) -> float:
        """``lr_mult`` or ``decay_mult``: what any of the sharers says. Raises ModelError if two differ."""
        given = {getattr(spec, which) for spec in self.specs if spec.HasField(which)}
        if len(given) > 1:
            raise self.layer.error(
                f'the sharers of parameter "{self.specs[0].name}" give different {which}: {sorted(given)}'
            )
        return given.pop() if given else default


def allocate(layers: Sequence[Layer], device: torch.device) -> Parameters:
    """Give every layer the blobs it declared, filled. Raises ModelError for sharers that do not fit."""
    owners, owner_of = _owners(layers)
    layout = Layout.of({owned.name: owned.declaration.shape for owned in owners})
    weights, diffs = _vectors(layout.size, owners, device)
    found = Parameters(layout, weights, diffs)
    data, diff = layout.views(weights), layout.views(diffs)
    for layer in layers:
        layer.blobs = []
        for index, declaration in enumerate(layer.declarations):
            owned = owner_of[id(layer), index]
            blob = Blob(owned.name, declaration.shape, device=device)
            blob.data = data[owned.name].view(declaration.shape)
            blob.diff = diff[owned.name].view(declaration.shape)
            blob.lr_mult, blob.decay_mult = owned.multiplier("lr_mult"), owned.multiplier("decay_mult")
            if layer.type == "BatchNorm":
                blob.lr_mult = 0.0  # not its decay, which moves the history of some rules
            layer.blobs.append(blob)
            if owned.layer is layer and owned.index == index:
                found.learnable.append(blob)
                _fill(layer, index, blob, declaration)
    return found


def _vectors(size: int, owners: Sequence[_Owned], device: torch.device) -> list[torch.Tensor]:
    """Weights and gradients, all 0. Raises ModelError if there is no memory for them."""
    too_large = excess([(size,)], device, copies=2)
    if not too_large:
        try:
            return [torch.zeros(size, device=device) for _ in range(2)]
        except RuntimeError as error:
            too_large = f"more memory than is free: {error}"
    largest = max(owners, key=lambda owned: math.prod(owned.declaration.shape))
    raise largest.layer.error(
        f"the parameters of the net and their gradients need {too_large}; the largest are those of this "
        f"layer, of shape {largest.declaration.shape}"
    )


def _fill(layer: Layer, index: int, blob: Blob, declaration: Declaration) -> None:
    """The values in the net's own description, else the layer's, else the filler's."""
    if index < len(layer.param.blobs):
        message = BlobMessage.FromString(layer.param.blobs[index].SerializeToString())
        stored = decode_blob(message, f"{layer}: blobs")
        if not stored.fits(blob.shape):
            raise layer.error(
                f"blobs {index} has shape {tuple(stored.data.shape)}, and the parameter {blob.shape}"
            )
        blob.data.copy_(stored.data.reshape(blob.shape))
        return
    if declaration.values is not None:
        blob.data.copy_(declaration.values)
        return
    try:
        fill(blob.data, declaration.filler)
    except (ModelError, RuntimeError) as error:  # torch's words for a negative std and the like
        raise layer.error(str(error)) from None


def _owners(layers: Sequence[Layer]) -> tuple[list[_Owned], dict[tuple[int, int], _Owned]]:
    owners: list[_Owned] = []
    by_name: dict[str, _Owned] = {}
    owner_of: dict[tuple[int, int], _Owned] = {}
    names: set[str] = set()
    for layer in layers:
        if layer.declarations and layer.name in names:
            raise layer.error("another layer with parameters has this name: rename one of the two")
        names |= {layer.name} if layer.declarations else set()
        if len(layer.param.param) > len(layer.declarations):
            raise layer.error(
                f"has {len(layer.param.param)} param and {len(layer.declarations)} parameter blobs"
            )
        for index, declaration in enumerate(layer.declarations):
            spec = layer.param.param[index] if index < len(layer.param.param) else ParamSpec()
            owned = by_name.get(spec.name) if spec.name else None
            if owned is None:
                owned = _Owned(f"{layer.name}/{index}", layer, index, declaration, [])
                owners.append(owned)
                if spec.name:
                    by_name[spec.name] = owned
            else:
                _check_fit(layer, index, declaration, spec, owned)
            owned.specs.append(spec)
            owner_of[id(layer), index] = owned
    return owners, owner_of


def _check_fit(layer: Layer, index: int, declaration: Declaration, spec: ParamSpec, owned: _Owned) -> None:
    mine, theirs = declaration.shape, owned.declaration.shape
    permissive = spec.share_mode == ParamSpec.PERMISSIVE
    if math.prod(mine) == math.prod(theirs) if permissive else mine == theirs:
        return
    raise layer.error(
        f'parameter {index}, "{spec.name}", of shape {mine} cannot be that of layer "{owned.layer.name}", '
        f"of shape {theirs}: {'the number of elements differs' if permissive else 'the shapes differ'}"
        f"{'' if permissive else ' (share_mode: PERMISSIVE asks for the same number of elements only)'}"
    )
