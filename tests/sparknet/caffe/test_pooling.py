"""Pooling of many geometries against Caffe's own loops, written out plainly."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from sparknet.caffe import schema
from sparknet.caffe.net import Net

Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """A picture and a window."""

    picture: Pair
    size: Pair
    stride: Pair
    pad: Pair
    is_floor: bool

    @property
    def outputs(self) -> Pair:
        counts = []
        for axis in (0, 1):
            span = self.picture[axis] + 2 * self.pad[axis] - self.size[axis]
            count = (span // self.stride[axis] if self.is_floor else -(-span // self.stride[axis])) + 1
            is_beyond = (count - 1) * self.stride[axis] >= self.picture[axis] + self.pad[axis]
            counts.append(count - is_beyond)
        return counts[0], counts[1]

    def window(self, axis: int, i: int) -> tuple[int, int, int]:
        """First and last-but-one pixel inside the picture, and the length inside the padded picture."""
        start = i * self.stride[axis] - self.pad[axis]
        end = min(start + self.size[axis], self.picture[axis] + self.pad[axis])
        return max(start, 0), min(end, self.picture[axis]), end - start


def _reference(x: np.ndarray, top_diff: np.ndarray, g: Geometry, pool: str) -> tuple[np.ndarray, np.ndarray]:
    """Top and bottom gradient of one picture (H, W)."""
    top, diff = np.zeros(g.outputs), np.zeros(g.picture)
    for i, j in np.ndindex(*g.outputs):
        (top_row, end_row, height), (left, end_column, width) = g.window(0, i), g.window(1, j)
        inside = x[top_row:end_row, left:end_column]
        if pool == "AVE":
            top[i, j] = inside.sum() / (height * width)
            diff[top_row:end_row, left:end_column] += top_diff[i, j] / (height * width)
        else:
            row, column = np.unravel_index(inside.argmax(), inside.shape)
            top[i, j] = inside[row, column]
            diff[top_row + row, left + column] += top_diff[i, j]
    return top, diff


def _geometries(count: int) -> list[Geometry]:
    draw = random.Random(5)
    found: list[Geometry] = []
    while len(found) < count:
        size = draw.randint(1, 5), draw.randint(1, 5)
        pad = draw.randint(0, size[0] - 1), draw.randint(0, size[1] - 1)
        picture = draw.randint(3, 9), draw.randint(3, 9)
        stride = draw.randint(1, 4), draw.randint(1, 4)
        if all(p + 2 * b >= k for p, b, k in zip(picture, pad, size, strict=True)):
            found.append(Geometry(picture, size, stride, pad, draw.random() < 0.4))
    return found


@pytest.mark.parametrize("pool", ["MAX", "AVE"])
def test_pooling_of_any_geometry_is_what_caffes_loops_compute(pool: str) -> None:
    for g in _geometries(60):
        setting = (
            f"pool: {pool} kernel_h: {g.size[0]} kernel_w: {g.size[1]} stride_h: {g.stride[0]} "
            f"stride_w: {g.stride[1]} pad_h: {g.pad[0]} pad_w: {g.pad[1]} "
            f"round_mode: {'FLOOR' if g.is_floor else 'CEIL'}"
        )
        shape = f"dim: [1, 1, {g.picture[0]}, {g.picture[1]}]"
        net = Net(
            schema.parse_net(
                f'force_backward: true input: "x" input_shape {{ {shape} }}'
                f' layer {{ name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param {{ {setting} }} }}'
            ),
            schema.TEST,
        )
        x, top_diff = torch.randn(1, 1, *g.picture), torch.randn(1, 1, *g.outputs)
        assert net.blobs["y"].shape == (1, 1, *g.outputs), g
        top, diff = _reference(x[0, 0].numpy(), top_diff[0, 0].numpy(), g, pool)
        np.testing.assert_allclose(net.forward({"x": x})["y"][0, 0].numpy(), top, atol=1e-6, err_msg=str(g))
        net.blobs["y"].diff = top_diff
        net.backward()
        np.testing.assert_allclose(net.blobs["x"].diff[0, 0].numpy(), diff, atol=1e-5, err_msg=str(g))
