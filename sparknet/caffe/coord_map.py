"""How the coordinates of one blob map to those of another, to crop one feature map to fit another.

A map is ``(axis, scale, shift)``: along the spatial axes from ``axis`` on, coordinate ``i`` of the one blob
lies at ``scale * i + shift`` of the other. ``axis`` is None for a map that is the same along every axis.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from sparknet.caffe.net_spec import Function, Top, layer_function

CoordMap = tuple[int | None, Any, Any]  # scale and shift: numbers or arrays (spatial axes,)

IDENTITY: CoordMap = (None, 1, 0)

PASS_THROUGH_LAYERS = frozenset(
    {"AbsVal", "BatchNorm", "Bias", "BNLL", "Clip", "Dropout", "Eltwise", "ELU", "Exp", "Log", "LRN", "MVN"}
    | {"Power", "PReLU", "ReLU", "Scale", "Sigmoid", "Split", "Swish", "TanH", "Threshold"}
)
LEGACY = frozenset(f"{name}_{side}" for name in ("pad", "kernel", "stride") for side in "hw")


class UndefinedMapException(Exception):  # noqa: N818 - pycaffe's name
    """The layer maps no coordinates: an InnerProduct, say."""


class AxisMismatchException(Exception):  # noqa: N818 - pycaffe's name
    """Two maps along different axes cannot be chained."""


def conv_params(fn: Function) -> tuple[int, Any, Any, Any]:
    """``(axis, stride, dilated kernel size, pad)`` of a layer; arrays ``(1,)`` or ``(axes,)``."""
    params = fn.params.get("convolution_param", fn.params)
    if used := LEGACY & set(params):
        raise AssertionError(f"cropping does not support the legacy parameters {', '.join(sorted(used))}")
    if "kernel_size" not in params:
        raise UndefinedMapException(f"a {fn.type_name} layer without kernel_size maps no coordinates")
    kernel, stride, pad, dilation = (
        np.array(params.get(name, default), ndmin=1)
        for name, default in (("kernel_size", None), ("stride", 1), ("pad", 0), ("dilation", 1))
    )
    return params.get("axis", 1), stride, (kernel - 1) * dilation + 1, pad


def crop_params(fn: Function) -> tuple[int, Any]:
    """``(axis, offset)`` of a Crop layer."""
    params = fn.params.get("crop_param", fn.params)
    return params.get("axis", 2), np.array(params.get("offset", 0), ndmin=1)


def coord_map(fn: Function) -> CoordMap:
    """The map from the input of a layer to its output. Raises UndefinedMapException if it has none."""
    if fn.type_name in ("Convolution", "Pooling", "Im2col"):
        axis, stride, kernel, pad = conv_params(fn)
        return axis, 1 / stride, (pad - (kernel - 1) / 2) / stride
    if fn.type_name == "Deconvolution":
        axis, stride, kernel, pad = conv_params(fn)
        return axis, stride, (kernel - 1) / 2 - pad
    if fn.type_name in PASS_THROUGH_LAYERS:
        return IDENTITY
    if fn.type_name == "Crop":
        axis, offset = crop_params(fn)
        return axis - 1, 1, -offset  # -1: the same axis that a convolution calls its channel axis
    raise UndefinedMapException(f"{fn.type_name} layers map no coordinates")


def compose(base: CoordMap, further: CoordMap) -> CoordMap:
    """First ``further``, then ``base``. Raises AxisMismatchException if they go along different axes."""
    axis, scale, shift = base
    further_axis, further_scale, further_shift = further
    if axis is not None and further_axis is not None and axis != further_axis:
        raise AxisMismatchException(f"axis {axis} and axis {further_axis}")
    joint = further_axis if axis is None else axis
    return joint, scale * further_scale, scale * further_shift + shift


def inverse(forward: CoordMap) -> CoordMap:
    """The map the other way."""
    axis, scale, shift = forward
    return axis, 1 / scale, -shift / scale


def coord_map_from_to(top_from: Top, top_to: Top) -> CoordMap:
    """The map from ``top_from`` to ``top_to``, through the nearest blob both come from.

    Raises RuntimeError if no chain of spatial layers joins them.
    """
    from_maps = dict(_ancestors(top_from))
    for top, so_far in _ancestors(top_to):
        if top in from_maps:
            return compose(so_far, inverse(from_maps[top]))
    raise RuntimeError("Could not compute map between tops; are they connected by spatial layers?")


def crop(top_from: Top, top_to: Top) -> Any:
    """A Crop layer that cuts ``top_from`` to where ``top_to`` lies.

    Raises AssertionError if the scales differ or the offset is negative or not whole.
    """
    axis, scale, shift = coord_map_from_to(top_from, top_to)
    for holds, complaint in (
        (np.all(scale == 1), f"scale mismatch on crop (a = {scale})"),
        (np.all(shift <= 0), f"cannot crop negative width (b = {shift})"),
        (np.all(np.round(shift) == shift), f"cannot crop noninteger width (b = {shift})"),
    ):
        if not holds:
            raise AssertionError(complaint)
    offset = [int(cut) for cut in np.atleast_1d(-np.round(shift))]
    spatial = 2 if axis is None else axis + 1  # the channel axis itself is not cropped
    return layer_function("Crop")(top_from, top_to, crop_param={"axis": spatial, "offset": offset})


def _ancestors(start: Top) -> Iterator[tuple[Top, CoordMap]]:
    """The blobs that ``start`` is made of, nearest first and itself before all, each with the map so far."""
    maps = {start: IDENTITY}
    frontier = [start]
    while frontier:
        top = frontier.pop(0)
        yield top, maps[top]
        try:
            for bottom in _mapped_bottoms(top.fn):
                maps[bottom] = compose(maps[top], coord_map(top.fn))
                frontier.append(bottom)
        except UndefinedMapException:
            continue


def _mapped_bottoms(fn: Function) -> tuple[Top, ...]:
    """Every bottom is mapped alike, but the second of a Crop only lends its size."""
    return fn.inputs[:1] if fn.type_name == "Crop" else fn.inputs
