"""Layers that only move elements: Reshape, Concat, Slice, Split, Tile, Crop, Filter and their like.

Source: the ``*_layer.cpp`` of the same names in BVLC Caffe.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from sparknet.caffe.layer import ANY, NONE, Arity, Gradients, Layer, Shapes, TapeLayer, Tensors
from sparknet.caffe.precision import Arithmetic
from sparknet.weights import Shape


class _Reshaping(Layer):
    """The top is the bottom's elements, in the same order, under another shape."""

    may_be_in_place = False

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        self.saved = bottoms[0].shape
        return [bottoms[0].reshape(self.top_shapes([tuple(bottoms[0].shape)])[0])]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        return [top_diffs[0].reshape(self.saved) if propagate_down[0] else None]


class Flatten(_Reshaping):
    """Axes ``axis`` to ``end_axis`` become one."""

    type = "Flatten"
    arithmetic = Arithmetic.ANY
    messages = ("flatten_param",)

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        p, shape = self.param.flatten_param, tuple(bottoms[0])
        first, last = self.axis(p.axis, shape), self.axis(p.end_axis, shape)
        if first > last:
            raise self.error(f"end_axis {p.end_axis} lies before axis {p.axis} of a bottom of shape {shape}")
        return [(*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])]


class Reshape(_Reshaping):
    """``num_axes`` axes from ``axis`` on get the dims of ``shape``: 0 keeps, one -1 is worked out."""

    type = "Reshape"
    arithmetic = Arithmetic.ANY
    messages = ("reshape_param",)

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        p, shape = self.param.reshape_param, tuple(bottoms[0])
        # here, and in no other layer, axis -1 is the place after the last axis
        first = p.axis if p.axis >= 0 else len(shape) + p.axis + 1
        end = len(shape) if p.num_axes == -1 else first + p.num_axes
        if not 0 <= first <= len(shape) or not first <= end <= len(shape):
            raise self.error(f"axis {p.axis} and num_axes {p.num_axes} exceed the shape {shape}")
        return [(*shape[:first], *self._dims(shape, first, end), *shape[end:])]

    def _dims(self, shape: Shape, first: int, end: int) -> Shape:
        asked = list(self.param.reshape_param.shape.dim)
        if asked.count(-1) > 1:
            raise self.error(f"only one dim can be -1, not those of {asked}")
        for i, dim in enumerate(asked):
            if dim == 0:
                if first + i >= len(shape):
                    raise self.error(f"dim 0 number {i} copies axis {first + i}, which {shape} does not have")
                asked[i] = shape[first + i]
        replaced, known = math.prod(shape[first:end]), math.prod(dim for dim in asked if dim != -1)
        if -1 in asked and known and replaced % known == 0:
            asked[asked.index(-1)] = replaced // known
        if math.prod(asked) != replaced:
            raise self.error(f"the dims {asked} do not hold the {replaced} elements of {shape[first:end]}")
        return tuple(asked)


class Concat(TapeLayer):
    """The bottoms one after the other along ``axis``."""

    type = "Concat"
    arithmetic = Arithmetic.ANY
    messages = ("concat_param",)
    bottom_arity = ANY

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.concat_param
        if p.HasField("axis") and p.HasField("concat_dim"):
            raise self.error("axis and concat_dim (its old name) are both given: keep axis")
        self.along = self.axis(p.concat_dim if p.HasField("concat_dim") else p.axis, bottoms[0])

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        first, a = tuple(bottoms[0]), self.along
        for shape in bottoms:
            if (*shape[:a], *shape[a + 1 :]) != (*first[:a], *first[a + 1 :]) or len(shape) != len(first):
                raise self.error(f"bottoms of shapes {[tuple(s) for s in bottoms]} differ beside axis {a}")
        return [(*first[:a], sum(shape[a] for shape in bottoms), *first[a + 1 :])]

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        return [torch.cat(list(bottoms), self.along)]


class Slice(TapeLayer):
    """The bottom cut along ``axis`` at the ``slice_point``s, or in equal parts."""

    type = "Slice"
    arithmetic = Arithmetic.ANY
    messages = ("slice_param",)
    top_arity = ANY

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.slice_param
        if p.HasField("axis") and p.HasField("slice_dim"):
            raise self.error("axis and slice_dim (its old name) are both given: keep axis")
        self.along = self.axis(p.slice_dim if p.HasField("slice_dim") else p.axis, bottoms[0])

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        shape, a = tuple(bottoms[0]), self.along
        return [(*shape[:a], part, *shape[a + 1 :]) for part in self._parts(shape[a])]

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        parts = torch.split(bottoms[0], self._parts(bottoms[0].shape[self.along]), self.along)
        # of one top Caffe shares the memory; several have their own, as each may be written to by hand
        return [part.clone() for part in parts] if len(parts) > 1 else list(parts)

    def _parts(self, length: int) -> list[int]:
        points, tops = list(self.param.slice_param.slice_point), self.tops_named
        if not points:
            if length % tops:
                raise self.error(f"an axis of {length} cannot be cut in {tops} equal parts: give slice_point")
            return [length // tops] * tops
        if len(points) != tops - 1:
            raise self.error(f"{tops} tops need {tops - 1} slice_point, and there are {len(points)}")
        edges = [0, *points, length]
        parts = [end - start for start, end in pairwise(edges)]
        if min(parts) < 1:
            raise self.error(f"slice_point {points} do not rise between 0 and {length}")
        return parts


class Split(Layer):
    """The bottom, given to several readers; their gradients are added."""

    type = "Split"
    may_be_in_place = False
    arithmetic = Arithmetic.ANY
    top_arity = ANY

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        return [tuple(bottoms[0])] * self.tops_named

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        return [bottoms[0]] * self.tops_named

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        if not propagate_down[0]:
            return [None]
        if len(top_diffs) == 1:
            return [top_diffs[0]]
        total = torch.add(top_diffs[0], top_diffs[1])
        for diff in top_diffs[2:]:
            total.add_(diff)
        return [total]


class Tile(TapeLayer):
    """The bottom ``tiles`` times one after the other along ``axis``."""

    type = "Tile"
    arithmetic = Arithmetic.ANY
    messages = ("tile_param",)

    def configure(self, bottoms: Shapes) -> None:
        if self.param.tile_param.tiles < 1:
            raise self.error("tiles must be given and positive")

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        shape = list(bottoms[0])
        shape[self.axis(self.param.tile_param.axis, shape)] *= self.param.tile_param.tiles
        return [tuple(shape)]

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        p = self.param.tile_param
        return [torch.cat([bottoms[0]] * p.tiles, self.axis(p.axis, bottoms[0].shape))]


class Crop(TapeLayer):
    """The first bottom cut to the size of the second, from ``axis`` on, at the ``offset``s."""

    type = "Crop"
    arithmetic = Arithmetic.ANY
    messages = ("crop_param",)
    bottom_arity = Arity(least=2, most=2)

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        first = self.axis(self.param.crop_param.axis, bottoms[0])
        if len(bottoms[0]) != len(bottoms[1]):
            raise self.error(f"bottoms of shapes {tuple(bottoms[0])} and {tuple(bottoms[1])} differ in axes")
        for axis, start in self._offsets(first, len(bottoms[0])).items():
            if start + bottoms[1][axis] > bottoms[0][axis]:
                raise self.error(
                    f"axis {axis} has {bottoms[0][axis]} elements, not {bottoms[1][axis]} from {start} on"
                )
        return [(*bottoms[0][:first], *bottoms[1][first:])]

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        x, reference = bottoms
        offsets = self._offsets(self.axis(self.param.crop_param.axis, x.shape), x.dim())
        for axis, start in offsets.items():
            x = x.narrow(axis, start, reference.shape[axis])
        return [x.clone()]

    def _offsets(self, first: int, axes: int) -> dict[int, int]:
        offsets, count = list(self.param.crop_param.offset), axes - first
        if len(offsets) not in (0, 1, count):
            raise self.error(
                f"offset is given {len(offsets)} times; it takes 1, or {count}: one per cropped axis"
            )
        offsets = offsets * count if len(offsets) == 1 else offsets or [0] * count
        return dict(zip(range(first, axes), offsets, strict=True))


class Silence(Layer):
    """Takes blobs that no other layer reads, so that they are no outputs of the net."""

    type = "Silence"
    arithmetic = Arithmetic.ANY
    bottom_arity = ANY
    top_arity = NONE

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        return []

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        self.saved = bottoms
        return []

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        wanted = zip(self.saved, propagate_down, strict=True)
        return [torch.zeros_like(bottom) if want else None for bottom, want in wanted]


class BatchReindex(TapeLayer):
    """Rows of the first bottom, in the order and as often as the second says."""

    type = "BatchReindex"
    arithmetic = Arithmetic.ANY
    bottom_arity = Arity(least=2, most=2)
    index_bottoms = frozenset({1})

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        if len(bottoms[1]) != 1:
            raise self.error(f"the second bottom is a list of rows, not of shape {tuple(bottoms[1])}")
        return [(*bottoms[1], *bottoms[0][1:])]

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        rows = bottoms[1].long()
        self.check_indices(rows, bottoms[0].shape[0], f"the bottom has {bottoms[0].shape[0]} rows")
        return [bottoms[0].index_select(0, rows)]


class Filter(TapeLayer):
    """Of each bottom but the last, the rows where the last (the selector) is not 0."""

    type = "Filter"
    arithmetic = Arithmetic.ANY
    bottom_arity = Arity(least=2, most=None)
    top_arity = ANY

    def configure(self, bottoms: Shapes) -> None:
        self.index_bottoms = frozenset({len(bottoms) - 1})  # type: ignore[misc]  # as the net has it
        if self.tops_named != len(bottoms) - 1:
            raise self.error(f"{len(bottoms)} bottoms, the last the selector, make {len(bottoms) - 1} tops")

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        *filtered, selector = bottoms
        if math.prod(selector) != selector[0]:
            raise self.error(f"the selector holds one number per row, not shape {tuple(selector)}")
        for shape in filtered:
            if shape[:1] != selector[:1]:
                raise self.error(f"a bottom of shape {tuple(shape)} and a selector of {selector[0]} rows")
        return [tuple(shape) for shape in filtered]

    def compute(self, bottoms: Tensors, parameters: Tensors) -> list[Tensor]:
        *filtered, selector = bottoms
        rows = selector.flatten().nonzero().flatten()
        return [bottom.index_select(0, rows) for bottom in filtered]
