"""A layer in its place in a net."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor

from sparknet.caffe.backward_plan import Flow
from sparknet.caffe.blob import Blob
from sparknet.caffe.layer import Layer
from sparknet.caffe.layers import TYPES
from sparknet.caffe.layers.python import Python
from sparknet.caffe.layers.source import SourceLayer
from sparknet.caffe.precision import cast
from sparknet.caffe.schema import type_refusal
from sparknet.caffe.schema.caffe_pb2 import LayerParameter
from sparknet.caffe.schema.unused import UnusedSetting
from sparknet.caffe.size_check import excess
from sparknet.weights import Shape

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger("sparknet.caffe")

MOST_AXES, MOST_ELEMENTS = 32, (1 << 31) - 1  # of blob.hpp: kMaxBlobAxes, INT_MAX


class Node:
    """A layer in its place in a net: between which blobs, with which losses, and whether it runs backward."""

    def __init__(self, layer: Layer, bottoms: list[Blob], tops: list[Blob], shapes: list[Shape]) -> None:
        self.layer, self.bottoms, self.tops = layer, bottoms, tops
        self.loss_weights = _loss_weights(layer, len(tops))
        self.weighted_tops = [(top, w) for top, w in zip(tops, self.loss_weights, strict=True) if w]
        self.shapes = shapes
        self.loss_scale = 1.0
        self.low: torch.dtype | None = None
        """What a low precision computes in; None is float32 throughout."""
        self._made: list[torch.dtype] = []
        self._is_in_place = bool(tops) and tops[0] in bottoms
        self._top: Tensor | None = None
        self.is_fed = isinstance(layer, SourceLayer) and layer.is_fed
        self.set_flow(Flow(False, [False] * len(bottoms), []))

    def forward(self) -> None:
        if self.is_fed:
            return
        data = [blob.data for blob in self.bottoms]
        if [tensor.shape for tensor in data] != self.shapes:
            self.reshape([tuple(tensor.shape) for tensor in data])
        if self.low:
            data = cast(data, self.layer.arithmetic, self.low, self.layer.index_bottoms)
        tops = self._computed(self.layer.forward, data)
        for blob, tensor in zip(self.tops, tops, strict=True):
            blob.data = tensor
        if self.low:
            self._made = [tensor.dtype for tensor in tops]
        if self.layer.rereads:
            self._top = tops[0]
        for top, weight in self.weighted_tops:
            top.default_diff = weight * self.loss_scale
            top.forget_diff()

    def reshape(self, shapes: list[Shape]) -> None:
        """Take bottoms of other shapes, if the layer can."""
        if self.is_fed or shapes == self.shapes:
            return
        self.shapes = shapes
        tops = top_shapes(self.layer, shapes)
        check_counts(self.layer, tops)
        for blob, shape in zip(self.tops, tops, strict=True):
            blob.reshape(*shape)

    def backward(self) -> None:
        if self.impossible:
            raise self.layer.error(
                f"no gradient is possible for bottom {self.impossible[0]} (labels or indices)"
            )
        diffs = [top.diff for top in self.tops]
        if self._made:  # a layer above may have computed in other numbers
            diffs = [diff.to(made) for diff, made in zip(diffs, self._made, strict=True)]
        if self.layer.rereads and (self._is_in_place or self.tops[0].data is not self._top):
            self._reread()
        gradients = self._computed(self.layer.backward, diffs, self.flow.bottoms)
        for blob, want, gradient in zip(self.bottoms, self.flow.bottoms, gradients, strict=True):
            if want:
                blob.diff = torch.zeros_like(blob.data) if gradient is None else gradient

    def _reread(self) -> None:
        if self._top is not None:
            bottom, top = (blob.data.to(self._top.dtype) for blob in (self.bottoms[0], self.tops[0]))
            self.layer.reread(bottom, top)

    def _computed(self, run: Callable[P, list[T]], *args: P.args, **kwargs: P.kwargs) -> list[T]:
        """What ``run`` gives; what torch refuses is said with the layer's name. A user's own errors pass."""
        try:
            return run(*args, **kwargs)
        except (RuntimeError, IndexError) as error:
            if isinstance(self.layer, Python):
                raise
            shapes = ", ".join(f'"{blob.name}" {blob.shape}' for blob in self.bottoms)
            raise self.layer.error(f"cannot be computed for bottoms {shapes}: {error}") from error

    def set_flow(self, flow: Flow) -> None:
        self.flow = flow
        self.layer.wants_gradient = flow.parameters
        self.impossible = [i for i in self.layer.index_bottoms if i < len(flow.bottoms) and flow.bottoms[i]]

    def log_forward(self) -> None:
        for top in self.tops:
            log.info(
                "[Forward] Layer %s, top blob %s data: %g", self.layer.name, top.name, _mean_size(top.data)
            )
        for i, blob in enumerate(self.layer.blobs):
            log.info("[Forward] Layer %s, param blob %d data: %g", self.layer.name, i, _mean_size(blob.data))

    def log_backward(self) -> None:
        for blob, want in zip(self.bottoms, self.flow.bottoms, strict=True):
            if want:
                log.info(
                    "[Backward] Layer %s, bottom blob %s diff: %g",
                    self.layer.name,
                    blob.name,
                    _mean_size(blob.diff),
                )
        for i, blob in enumerate(self.layer.blobs):
            log.info("[Backward] Layer %s, param blob %d diff: %g", self.layer.name, i, _mean_size(blob.diff))


def make_layer(param: LayerParameter, device: torch.device) -> Layer:
    """The layer that ``param`` (with its phase) describes, not yet configured.

    Raises ModelError for a type there is not, or the wrong number of bottoms or tops; warns of settings that
    belong to another type.
    """
    layer = _layer_class(param)(param, phase=param.phase, device=device)
    _check_settings(layer)
    _check_arity(layer)
    return layer


def top_shapes(layer: Layer, bottoms: list[Shape]) -> list[Shape]:
    """Shapes of the tops for bottoms of these; configures the layer if it is new. Raises ModelError."""
    try:
        if not layer.is_configured:
            layer.configure(bottoms)
            layer.is_configured = True
        tops = layer.top_shapes(bottoms)
    except IndexError:
        if isinstance(layer, Python):
            raise
        raise layer.error(f"bottoms of shapes {bottoms} have too few axes") from None
    for shape in tops:
        if min(shape, default=0) < 0:
            raise layer.error(f"a top cannot have shape {shape}: a dim is negative")
        if len(shape) > MOST_AXES:
            raise layer.error(f"a top of {len(shape)} axes: Caffe's blobs have {MOST_AXES} at most")
        if too_large := excess([shape], layer.device):
            raise layer.error(f"a top of shape {shape} needs {too_large}")
    return tops


def check_counts(layer: Layer, tops: Iterable[Shape]) -> None:
    """Raises ModelError for a top of more elements than a blob of Caffe's can have."""
    for shape in tops:
        if math.prod(shape) > MOST_ELEMENTS:
            raise layer.error(
                f"a top of shape {shape} has {math.prod(shape):,} elements: "
                f"Caffe's blobs have {MOST_ELEMENTS:,} at most: take smaller batches"
            )


def _layer_class(param: LayerParameter) -> type[Layer]:
    try:
        return TYPES[param.type]
    except KeyError:
        raise type_refusal([(param.name, param.type)], TYPES) from None


def _check_settings(layer: Layer) -> None:
    """Refuse settings that would have to be ignored, and name those that belong to another type."""
    for descriptor, _ in layer.param.ListFields():
        if descriptor.name in layer.refused:
            raise layer.error(f"{descriptor.name} is not possible here; {layer.refused[descriptor.name]}")
        if descriptor.name.endswith("_param") and descriptor.name not in layer.messages:
            warnings.warn(
                f'layer "{layer.name}" ({layer.type}) does not read {descriptor.name}',
                UnusedSetting,
                stacklevel=2,
            )


def _loss_weights(layer: Layer, tops: int) -> list[float]:
    weights = list(layer.param.loss_weight)
    if not weights:
        return [layer.default_loss_weight] + [0.0] * (tops - 1) if tops else []
    if len(weights) == 1 and layer.default_loss_weight:
        weights += [0.0] * (tops - 1)
    if len(weights) != tops:
        raise layer.error(f"loss_weight is given {len(weights)} times for {tops} tops")
    return weights


def _check_arity(layer: Layer) -> None:
    bottoms, tops = list(layer.param.bottom), list(layer.param.top)
    if not layer.bottom_arity.allows(len(bottoms)):
        raise layer.error(f"takes {layer.bottom_arity} bottoms and has {len(bottoms)}: {bottoms}")
    may_be_unnamed = layer.default_loss_weight and not tops
    if not layer.top_arity.allows(len(tops)) and not may_be_unnamed:
        raise layer.error(f"takes {layer.top_arity} tops and has {len(tops)}: {tops}")
    if not layer.may_be_in_place and set(tops) & set(bottoms):
        raise layer.error(f"cannot work in place: give it a top that is not its bottom, {tops[0]}")
    if layer.same_count and len(bottoms) != len(tops):
        raise layer.error(f"takes as many tops as bottoms, and has {len(tops)} and {len(bottoms)}")


def _mean_size(tensor: Tensor) -> float:
    return float(tensor.abs().mean()) if tensor.numel() else 0.0
