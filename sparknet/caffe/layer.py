"""What a layer is: shapes in, shapes out, forward and backward.

    configure(bottom shapes)            once: read the prototxt, declare parameters, refuse what cannot be
    top_shapes(bottom shapes)           again for every new input shape
    forward(bottoms) -> tops            keeps what backward will need
    backward(top diffs) -> bottom diffs adds to the diffs of the parameters

A layer either gives its own ``forward`` and ``backward``, or, as a ``TapeLayer``, only ``compute``: torch
operations, differentiated by autograd over detached inputs. The tape is as long as one layer, so a net can be
run forward and backward in parts, and an in-place layer needs nothing special.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparknet.caffe.blob import Blob
from sparknet.caffe.precision import Arithmetic
from sparknet.caffe.schema.caffe_pb2 import FillerParameter, LayerParameter
from sparknet.errors import DataError, ModelError
from sparknet.weights import Shape

Shapes = Sequence[Shape]
Tensors = Sequence[Tensor]
Gradients = list[Tensor | None]


@dataclass(frozen=True, kw_only=True)
class Arity:
    """How many bottoms or tops a layer takes; ``most`` None is any number."""

    least: int = 1
    most: int | None = 1

    def __str__(self) -> str:
        if self.least == self.most:
            return str(self.least)
        return f"{self.least} or more" if self.most is None else f"{self.least} to {self.most}"

    def allows(self, count: int) -> bool:
        return count >= self.least and (self.most is None or count <= self.most)


ONE = Arity()
ANY = Arity(most=None)
NONE = Arity(least=0, most=0)
ONE_ENGINE: Mapping[str, str] = {"engine": "there is one implementation"}


@dataclass(frozen=True)
class Declaration:
    """A parameter blob that a layer wants: its shape, and how it is filled, or with what."""

    shape: Shape
    filler: FillerParameter
    values: Tensor | None = None


class Layer:
    """Base of all layers. Subclasses name their ``type``, as in prototxt."""

    type: ClassVar[str]
    messages: ClassVar[tuple[str, ...]] = ()
    """Fields of LayerParameter that this type reads its settings from, its own first."""
    hints: ClassVar[Mapping[str, str]] = {}
    """Settings without influence on any number, and why."""
    refused: ClassVar[Mapping[str, str]] = {}
    """Fields of LayerParameter that are an error in this type, and what to do instead."""
    bottom_arity: ClassVar[Arity] = ONE
    top_arity: ClassVar[Arity] = ONE
    may_be_in_place: ClassVar[bool] = True
    """Whether a top may be a bottom too."""
    same_count: ClassVar[bool] = False
    """As many tops as bottoms."""
    default_loss_weight: ClassVar[float] = 0.0
    index_bottoms: ClassVar[frozenset[int]] = frozenset()
    """Bottoms that hold labels or indices: no gradient goes there."""
    fresh_tops: ClassVar[bool] = False
    """The top is memory of its own that backward does not read: an in-place layer may overwrite it."""

    arithmetic: Arithmetic = Arithmetic.FULL
    """In which numbers it computes in a net of low precision."""

    rereads: ClassVar[bool] = False
    """Backward reads what is in the blobs then, not what forward saw and made: see ``reread``."""

    def __init__(self, param: LayerParameter, *, phase: int, device: torch.device | str = "cpu") -> None:
        self.param, self.phase, self.device = param, phase, torch.device(device)
        self.name = param.name
        self.blobs: list[Blob] = []
        self.declarations: list[Declaration] = []
        self.wants_gradient: list[bool] = []
        self.may_overwrite = self.is_configured = False
        self.saved: Any = None

    def __repr__(self) -> str:
        return f'{self.type}("{self.name}")'

    # ---- what subclasses give

    def configure(self, bottoms: Shapes) -> None:
        """Read the settings and declare parameter blobs. Raises ModelError for what cannot be."""

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        """Shapes of the tops; those of the first bottom unless a subclass says otherwise."""
        return [tuple(bottoms[0])]

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        """The tops for these bottoms. Runs without autograd."""
        raise NotImplementedError

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        """Gradients of the bottoms asked for, None for the rest; parameters' are added to their diffs."""
        raise NotImplementedError

    def reread(self, bottom: Tensor, top: Tensor) -> None:
        """Let backward use these as the first bottom and top: what layers in place have left there.

        Caffe has one memory per blob, so that this is what its gradients are made of.
        """
        raise NotImplementedError

    # ---- for subclasses

    @property
    def is_training(self) -> bool:
        return self.phase == 0

    @property
    def tops_named(self) -> int:
        """Number of tops in the prototxt."""
        return len(self.param.top)

    def declare(
        self, shape: Sequence[int], filler: FillerParameter | None = None, *, values: Tensor | None = None
    ) -> None:
        """Ask for a parameter blob that holds ``values``, or what ``filler`` makes, or 0."""
        self.declarations.append(Declaration(tuple(shape), filler or FillerParameter(), values))

    def gradient(self, index: int, diff: Tensor) -> None:
        """Add ``diff`` to the gradient of parameter ``index``."""
        self.blobs[index].diff.add_(diff)

    def error(self, message: str) -> ModelError:
        """A ModelError that begins with this layer's name and type."""
        return ModelError(self._about(message))

    def data_error(self, message: str) -> DataError:
        """The same for what records hold."""
        return DataError(self._about(message))

    def _about(self, message: str) -> str:
        return f'layer "{self.name}" ({self.type}): {message}'

    def check_indices(self, indices: Tensor, count: int, what: str) -> None:
        """Raises DataError unless all of ``indices`` (int64) lie from 0 to ``count`` - 1.

        ``what`` is the end of the sentence: what there are so many of. They are values of records: the net is
        as it should be.
        """
        if not indices.numel():
            return
        least, most = (int(bound) for bound in indices.aminmax())
        if least == torch.iinfo(torch.int64).min:
            raise self.data_error("a label or index is not a number (NaN), or far beyond all indices")
        if least < 0 or most >= count:
            raise self.data_error(f"labels run from {least} to {most}, and {what} (from 0)")

    def axis(self, axis: int, shape: Sequence[int], *, ends: bool = False) -> int:
        """``axis`` counted from the front. Raises ModelError if ``shape`` has no such axis.

        With ``ends`` the place after the last axis counts too.
        """
        count = len(shape) + ends
        if not -count <= axis < count:
            raise self.error(f"axis {axis} is out of range for a bottom of shape {tuple(shape)}")
        return axis % count if count else 0


class TapeLayer(Layer):
    """A layer given as torch operations; autograd finds its gradients."""

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        """The tops, as differentiable functions of bottoms and parameters."""
        raise NotImplementedError

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        # .data, not .detach(): as in Caffe, what is overwritten between forward and backward is read as it is
        inputs = [self._leaf(tensor, i not in self.index_bottoms) for i, tensor in enumerate(bottoms)]
        parameters = [self._leaf(blob.data) for blob in self.blobs]
        with torch.enable_grad():
            low = self.arithmetic is Arithmetic.LOW
            tops = self.compute(inputs, [p.to(inputs[0].dtype) for p in parameters] if low else parameters)
        self.saved = inputs, parameters, tops
        return [top.data for top in tops]  # nor does autograd count writes to these

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        inputs, parameters, tops = self.saved
        wanted = [x for x, want in zip(inputs, propagate_down, strict=True) if want and x.requires_grad]
        wanted += [w for w, want in zip(parameters, self.wants_gradient, strict=True) if want]
        pairs = [(t, d) for t, d in zip(tops, top_diffs, strict=True) if t.requires_grad]
        if not wanted or not pairs:
            return [None] * len(inputs)
        outputs, diffs = zip(*pairs, strict=True)
        found = torch.autograd.grad(outputs, wanted, diffs, retain_graph=True, allow_unused=True)
        gradients = {id(leaf): g for leaf, g in zip(wanted, found, strict=True)}
        for i, leaf in enumerate(parameters):
            if (g := gradients.get(id(leaf))) is not None:
                self.gradient(i, g)
        return [self._bottom_gradient(x, gradients) for x in inputs]

    @staticmethod
    def _leaf(tensor: Tensor, differentiable: bool = True) -> Tensor:
        return tensor.data.requires_grad_(differentiable)

    @staticmethod
    def _bottom_gradient(leaf: Tensor, gradients: Mapping[int, Tensor | None]) -> Tensor | None:
        if id(leaf) not in gradients:
            return None
        g = gradients[id(leaf)]
        return torch.zeros_like(leaf) if g is None else g
