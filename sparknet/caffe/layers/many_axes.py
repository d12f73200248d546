"""Convolution over any number of spatial axes, as Caffe does it: windows as columns, then a matrix product.

    positions[n, g, o, p]    = sum over c, k of  weight[g, o, c, k] * canvas window[n, g, c, p, k]
    canvas window[n, g, c, p, k] += sum over o of  weight[g, o, c, k] * positions[n, g, o, p]

A convolution reads the canvas and writes positions (p counts windows, k elements of one, g groups); a
deconvolution goes the other way with the same layout of weights, and so do the gradients of both. torch has
kernels of its own for one to three axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from sparknet.caffe.layers.kernel import Kernel


def windows(canvas: Tensor, kernel: Kernel, first: int) -> Tensor:
    """(.., *spatial) from axis ``first`` on -> (.., *positions, *kernel), a view of the padded canvas."""
    view = F.pad(canvas, [margin for pad in reversed(kernel.pad) for margin in (pad, pad)])
    geometry = zip(kernel.extent, kernel.stride, kernel.dilation, strict=True)
    for i, (extent, stride, dilation) in enumerate(geometry):
        view = view.unfold(first + i, extent, stride)[..., ::dilation]
    return view


def gather(canvas: Tensor, weight: Tensor, kernel: Kernel, group: int) -> Tensor:
    """(N, C, *spatial) -> (N, O, *positions)."""
    columns = _columns(canvas, kernel, group)
    found = torch.einsum("gock,ngcpk->ngop", _by_group(weight, group), columns)
    return found.reshape(len(canvas), len(weight), *kernel.outputs(canvas.shape[2:]))


def scatter(positions: Tensor, weight: Tensor, kernel: Kernel, group: int, spatial: Sequence[int]) -> Tensor:
    """(N, O, *positions) -> (N, C, *spatial): what ``gather`` does, transposed."""
    rows = positions.reshape(len(positions), group, -1, math.prod(positions.shape[2:]))
    columns = torch.einsum("gock,ngop->ngcpk", _by_group(weight, group), rows)
    with torch.enable_grad():  # the gradient of a window's view adds up where windows overlap
        canvas = columns.new_zeros(len(positions), weight.shape[1] * group, *spatial).requires_grad_()
        view = _columns(canvas, kernel, group)
    return torch.autograd.grad(view, canvas, columns)[0]


def weight_gradient(positions: Tensor, canvas: Tensor, weight: Tensor, kernel: Kernel, group: int) -> Tensor:
    """What the weights get of the gradient on one side and the values on the other."""
    rows = positions.reshape(len(positions), group, -1, math.prod(positions.shape[2:]))
    found = torch.einsum("ngop,ngcpk->gock", rows, _columns(canvas, kernel, group))
    return found.reshape(weight.shape)


def _columns(canvas: Tensor, kernel: Kernel, group: int) -> Tensor:
    count, channels = canvas.shape[:2]
    return windows(canvas, kernel, 2).reshape(count, group, channels // group, -1, math.prod(kernel.size))


def _by_group(weight: Tensor, group: int) -> Tensor:
    return weight.reshape(group, len(weight) // group, weight.shape[1], -1)
