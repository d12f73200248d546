"""The initial values of a parameter blob: Caffe's seven fillers.

A filler sees nothing but the blob's shape, so "fan in" is Caffe's: the number of elements divided by the
first dimension, whatever the layer. For a transposed InnerProduct and for a Deconvolution the first
dimension is the input side, and the fan in is not the true one; nets that were trained with Caffe were
trained so.

Source: ``include/caffe/filler.hpp`` of BVLC Caffe.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import torch

from sparknet.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

FAN_IN, FAN_OUT, AVERAGE = 0, 1, 2


class FillerLike(Protocol):
    """What is read of a ``FillerParameter``."""

    @property
    def type(self) -> str: ...
    @property
    def value(self) -> float: ...
    @property
    def min(self) -> float: ...
    @property
    def max(self) -> float: ...
    @property
    def mean(self) -> float: ...
    @property
    def std(self) -> float: ...
    @property
    def sparse(self) -> int: ...
    @property
    def variance_norm(self) -> int: ...


Draw = Callable[[torch.Tensor, FillerLike, "torch.Generator | None"], object]


def fill(blob: torch.Tensor, filler: FillerLike, generator: torch.Generator | None = None) -> None:
    """Fill a float32 tensor of any shape in place, as ``filler`` says.

    The numbers are drawn on the CPU, so that a seed gives the same net on every device. Without
    ``generator`` they come from torch's default one. Raises ModelError for a filler that is not known or
    does not fit the shape.
    """
    try:
        draw = FILLERS[filler.type]
    except KeyError:
        raise ModelError(f'unknown filler "{filler.type}"; the fillers are {", ".join(FILLERS)}') from None
    if not blob.numel():
        raise ModelError(f"a blob of shape {tuple(blob.shape)} has no elements to be filled")
    if filler.type != "gaussian" and filler.sparse != -1:
        raise ModelError(f"sparse is for the gaussian filler, not for {filler.type}")
    if blob.device.type == "cpu" and blob.is_contiguous():
        draw(blob, filler, generator)
        return
    values = torch.empty(blob.shape)
    draw(values, filler, generator)
    blob.copy_(values)


def fan(shape: Sequence[int], variance_norm: int) -> float:
    """The ``n`` of xavier and msra for a blob of ``shape`` (at least one axis)."""
    count = math.prod(shape)
    fan_in = count / shape[0] if shape else 1.0
    fan_out = count / shape[1] if len(shape) > 1 else float(count)
    return {FAN_IN: fan_in, FAN_OUT: fan_out, AVERAGE: (fan_in + fan_out) / 2}[variance_norm]


def _constant(blob: torch.Tensor, filler: FillerLike, _: torch.Generator | None) -> None:
    blob.fill_(filler.value)


def _uniform(blob: torch.Tensor, filler: FillerLike, generator: torch.Generator | None) -> None:
    if not filler.min <= filler.max:
        raise ModelError(f"the uniform filler needs min <= max, not {filler.min:g} and {filler.max:g}")
    blob.uniform_(filler.min, filler.max, generator=generator)


def _gaussian(blob: torch.Tensor, filler: FillerLike, generator: torch.Generator | None) -> None:
    if not filler.std > 0:
        raise ModelError(f"the gaussian filler needs a std above 0, not {filler.std:g}")
    if not -1 <= filler.sparse <= blob.shape[0]:
        raise ModelError(f"sparse is {filler.sparse}: it is -1 for all, or up to the {blob.shape[0]} outputs")
    blob.normal_(filler.mean, filler.std, generator=generator)
    if filler.sparse >= 0:  # -1, the default, means dense; otherwise so many inputs per output are expected
        kept = filler.sparse / blob.shape[0]
        blob.mul_(torch.empty_like(blob).bernoulli_(kept, generator=generator))


def _positive_unitball(blob: torch.Tensor, _: FillerLike, generator: torch.Generator | None) -> None:
    blob.uniform_(0, 1, generator=generator)
    rows = blob.view(blob.shape[0], -1)
    rows.div_(rows.sum(dim=1, keepdim=True))


def _xavier(blob: torch.Tensor, filler: FillerLike, generator: torch.Generator | None) -> None:
    bound = math.sqrt(3 / fan(blob.shape, filler.variance_norm))
    blob.uniform_(-bound, bound, generator=generator)


def _msra(blob: torch.Tensor, filler: FillerLike, generator: torch.Generator | None) -> None:
    blob.normal_(0, math.sqrt(2 / fan(blob.shape, filler.variance_norm)), generator=generator)


def _bilinear(blob: torch.Tensor, _: FillerLike, __: torch.Generator | None) -> None:
    if blob.dim() != 4 or blob.shape[2] != blob.shape[3]:
        raise ModelError(
            f"the bilinear filler needs a blob of 4 axes with a square kernel, not {tuple(blob.shape)}"
        )
    width = blob.shape[3]
    factor = math.ceil(width / 2)
    centre = (width - 1) / (2 * factor)
    line = 1 - (torch.arange(width, dtype=torch.float32) / factor - centre).abs()
    blob.copy_((line[:, None] * line[None, :]).expand_as(blob))


FILLERS: dict[str, Draw] = {
    "constant": _constant,
    "uniform": _uniform,
    "gaussian": _gaussian,
    "positive_unitball": _positive_unitball,
    "xavier": _xavier,
    "msra": _msra,
    "bilinear": _bilinear,
}
