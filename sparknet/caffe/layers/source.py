"""Layers without bottoms that read no file: Input, DummyData, MemoryData, Parameter.

Source: the ``*_layer.cpp`` of the same names in BVLC Caffe.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from sparknet.caffe.fillers import fill
from sparknet.caffe.layer import ANY, NONE, Arity, Gradients, Layer, Shapes, Tensors
from sparknet.caffe.schema.caffe_pb2 import FillerParameter
from sparknet.weights import Shape


class SourceLayer(Layer):
    """A layer whose tops come from outside the net."""

    bottom_arity = NONE
    top_arity = ANY
    is_fed: ClassVar[bool] = False
    """Whether forward leaves the tops as the caller has set them."""

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        return []


class Input(SourceLayer):
    """Blobs that the caller sets; ``shape`` is theirs until then."""

    type = "Input"
    messages = ("input_param",)
    is_fed = True

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        shapes = [tuple(shape.dim) for shape in self.param.input_param.shape]
        if len(shapes) not in (0, 1, self.tops_named):
            raise self.error(f"{self.tops_named} tops and {len(shapes)} shape: give 1, or one for each")
        return shapes * self.tops_named if len(shapes) == 1 else shapes or [()] * self.tops_named

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        raise AssertionError("an Input layer's tops are set from outside")


class MemoryData(SourceLayer):
    """Images (batch_size, channels, height, width) and labels (batch_size), from arrays given beforehand."""

    type = "MemoryData"
    messages = ("memory_data_param",)
    top_arity = Arity(least=2, most=2)

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.memory_data_param
        if min(p.batch_size, p.channels, p.height, p.width) < 1:
            raise self.error("batch_size, channels, height and width must be given and positive")
        self.images = torch.zeros(0)
        self.labels = torch.zeros(0)
        self.position = 0

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        p = self.param.memory_data_param
        return [(p.batch_size, p.channels, p.height, p.width), (p.batch_size,)]

    def reset(self, images: Tensor, labels: Tensor) -> None:
        """Read from these from now on: float32 (n, C, H, W) and (n,); n is a multiple of batch_size."""
        p = self.param.memory_data_param
        if images.shape[1:] != (p.channels, p.height, p.width) or labels.numel() != len(images):
            raise self.error(
                f"images of shape {tuple(images.shape)} with {labels.numel()} labels do not fit "
                f"{(p.channels, p.height, p.width)}"
            )
        if len(images) == 0 or len(images) % p.batch_size:
            raise self.error(f"{len(images)} images are no multiple of batch_size {p.batch_size}")
        self.images, self.labels, self.position = images.float(), labels.flatten().float(), 0

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        if not len(self.images):
            raise self.error("has no images yet: give it some with reset (pycaffe: set_input_arrays)")
        size = self.param.memory_data_param.batch_size
        rows = slice(self.position, self.position + size)
        self.position = (self.position + size) % len(self.images)
        return [self.images[rows].to(self.device), self.labels[rows].to(self.device)]


class DummyData(SourceLayer):
    """Blobs filled by fillers: those of constants once, random ones before every forward."""

    type = "DummyData"
    messages = ("dummy_data_param",)

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.dummy_data_param
        fillers = list(p.data_filler) or [FillerParameter(type="constant")]
        if len(fillers) not in (1, self.tops_named):
            raise self.error(
                f"{self.tops_named} tops and {len(fillers)} data_filler: give 1, or one for each"
            )
        self.fillers = fillers * self.tops_named if len(fillers) == 1 else fillers
        self.filled: dict[int, Tensor] = {}

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        p = self.param.dummy_data_param
        legacy = [list(field) for field in (p.num, p.channels, p.height, p.width)]
        if p.shape and any(legacy):
            raise self.error("shape and num, channels, height, width are both given: keep shape")
        if p.shape:
            shapes = [tuple(shape.dim) for shape in p.shape]
        else:
            shapes = self._legacy_shapes(legacy)
        if len(shapes) not in (1, self.tops_named):
            raise self.error(f"{self.tops_named} tops and {len(shapes)} shapes: give 1, or one for each")
        return shapes * self.tops_named if len(shapes) == 1 else shapes

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        return [self._top(i, shape) for i, shape in enumerate(self.top_shapes([]))]

    def _top(self, i: int, shape: Shape) -> Tensor:
        if i in self.filled and self.fillers[i].type == "constant":
            return self.filled[i]
        top = torch.empty(shape, device=self.device)
        fill(top, self.fillers[i])
        self.filled[i] = top
        return top

    def _legacy_shapes(self, dims: list[list[int]]) -> list[Shape]:
        counts = {len(values) for values in dims}
        if not counts <= {1, self.tops_named} or 0 in counts:
            raise self.error("needs shape, or num, channels, height and width, once or once per top")
        columns = [values * self.tops_named if len(values) == 1 else values for values in dims]
        return list(zip(*columns, strict=True))


class Parameter(Layer):
    """A learned blob as a top."""

    type = "Parameter"
    messages = ("parameter_param",)
    bottom_arity = NONE

    def configure(self, bottoms: Shapes) -> None:
        self.declare(tuple(self.param.parameter_param.shape.dim))

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        return [self.declarations[0].shape]

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        return [self.blobs[0].data]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        if self.wants_gradient[0]:
            self.gradient(0, top_diffs[0])
        return []
