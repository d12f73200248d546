"""The geometry of a sliding window, as convolution and pooling write it in prototxt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparknet.caffe.layer import Layer
from sparknet.caffe.schema.caffe_pb2 import ConvolutionParameter


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """Size, stride, padding and dilation, one number per spatial axis."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    pad: tuple[int, ...]
    dilation: tuple[int, ...]

    @property
    def extent(self) -> tuple[int, ...]:
        """Input elements that one window spans."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.size, self.dilation, strict=True))

    def outputs(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """Window positions on each axis of an input of size ``spatial``, as convolution counts them.

        C++ divides towards zero: a window too large by less than a stride still has one position.
        """
        geometry = zip(spatial, self.extent, self.stride, self.pad, strict=True)
        return tuple(_towards_zero(n + 2 * p - e, s) + 1 for n, e, s, p in geometry)

    def overhang(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """By how much a window is larger than the padded input on each axis; zeros stand there."""
        return tuple(max(0, e - n - 2 * p) for n, e, p in zip(spatial, self.extent, self.pad, strict=True))

    def inputs(self, spatial: Sequence[int]) -> tuple[int, ...]:
        """What deconvolution makes of ``spatial`` window positions: the inverse of ``outputs``."""
        geometry = zip(spatial, self.extent, self.stride, self.pad, strict=True)
        return tuple(s * (n - 1) + e - 2 * p for n, e, s, p in geometry)


def convolution_kernel(layer: Layer, param: ConvolutionParameter, axes: int) -> Kernel:
    """The kernel over ``axes`` spatial axes. Raises ModelError where the fields contradict each other."""
    kernel = Kernel(
        size=_per_axis(layer, param, axes, "kernel_size", None),
        stride=_per_axis(layer, param, axes, "stride", 1),
        pad=_per_axis(layer, param, axes, "pad", 0),
        dilation=_per_axis(layer, param, axes, "dilation", 1),
    )
    if (
        min(kernel.size, default=1) < 1
        or min(kernel.stride, default=1) < 1
        or min(kernel.dilation, default=1) < 1
    ):
        raise layer.error(f"kernel_size, stride and dilation must be positive: {kernel}")
    return kernel


def _towards_zero(number: int, divisor: int) -> int:
    return number // divisor if number >= 0 else -(-number // divisor)


def _per_axis(
    layer: Layer, param: ConvolutionParameter, axes: int, field: str, default: int | None
) -> tuple[int, ...]:
    values: list[int] = list(getattr(param, field))
    stem = field.removesuffix("_size")
    pair = [f"{stem}_h", f"{stem}_w"]
    if field != "dilation" and any(param.HasField(name) for name in pair):
        if axes != 2:
            raise layer.error(f"{pair[0]} and {pair[1]} are for 2 spatial axes, and the bottom has {axes}")
        if values:
            raise layer.error(f"{field} and {pair[0]}/{pair[1]} are both given: keep one")
        values = [getattr(param, name) for name in pair]
    if not values and default is not None:
        values = [default]
    if len(values) not in (1, axes):
        raise layer.error(
            f"{field} is given {len(values)} times; it takes 1, or {axes}: one per spatial axis"
        )
    return tuple(values * axes if len(values) == 1 else values)
