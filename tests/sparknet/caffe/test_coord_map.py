"""Coordinate maps, against where the pixels of real feature maps lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sparknet.caffe.coord_map import AxisMismatchException, compose, coord_map_from_to, crop, inverse
from sparknet.caffe.net_spec import NetSpec, layers

L = layers


def up_and_down(**changes: Any) -> NetSpec:
    """conv, pool by ``pool``, and a deconvolution by ``up``."""
    kernel, stride, pad, pool, up, up_pad = (
        changes.get(name, default)
        for name, default in (("kernel", 3), ("stride", 1), ("pad", 0), ("pool", 2), ("up", 2), ("up_pad", 0))
    )
    n = NetSpec()
    n.data = L.Input(shape={"dim": [2, 1, 100, 100]})
    n.conv = L.Convolution(n.data, num_output=4, kernel_size=kernel, stride=stride, pad=pad)
    n.pool = L.Pooling(n.conv, kernel_size=pool, stride=pool)
    n.deconv = L.Deconvolution(n.pool, num_output=4, kernel_size=2 * up, stride=up, pad=up_pad)
    return n


def mapped(**changes: Any) -> tuple[int | None, float, float]:
    n = up_and_down(**changes)
    axis, scale, shift = coord_map_from_to(n.deconv, n.data)
    return axis, float(scale[0]), float(shift[0])


def test_pooling_and_deconvolution_by_two_cancel() -> None:
    assert mapped() == (1, 1, 0)


def test_pooling_and_deconvolution_by_four_shift_by_one() -> None:
    assert mapped(pool=4, up=4) == (1, 1, -1)


@pytest.mark.parametrize("pad", [1, 5])
def test_padding_shifts_one_way_and_padding_of_the_deconvolution_the_other(pad: int) -> None:
    assert mapped(pad=pad)[2] == -pad
    assert mapped(up_pad=pad)[2] == pad
    assert mapped(pad=pad, up_pad=pad)[2] == 0


def test_the_centre_of_a_pooled_pixel_is_the_centre_of_its_window() -> None:
    n = up_and_down(kernel=5, stride=2)
    _, scale, shift = coord_map_from_to(n.pool, n.data)
    # pooled pixel 0 covers conv pixels 0 and 1, which see data 0..4 and 2..6: its centre is 3; the next is 7
    assert (float(scale[0]), float(shift[0])) == (4, 3)


def test_rectangles_map_each_axis_by_itself() -> None:
    n = up_and_down(kernel=[3, 5], stride=[1, 2], pad=[0, 10])
    _, scale, shift = coord_map_from_to(n.deconv, n.data)
    for axis, (kernel, stride, pad) in enumerate([(3, 1, 0), (5, 2, 10)]):
        assert (1, scale[axis], shift[axis]) == mapped(kernel=kernel, stride=stride, pad=pad)


def test_pointwise_layers_map_nothing() -> None:
    n = up_and_down()
    n.relu = L.ReLU(n.deconv)
    assert coord_map_from_to(n.relu, n.data) == coord_map_from_to(n.deconv, n.data)


def test_a_crop_adds_its_offset() -> None:
    n = up_and_down()
    n.crop = L.Crop(n.deconv, n.data, axis=2, offset=7)
    axis, _, shift = coord_map_from_to(n.crop, n.data)
    assert (axis, float(shift[0])) == (1, 7)


def test_crop_writes_the_layer_that_fits_one_blob_to_another() -> None:
    n = up_and_down(pad=3)
    layer = crop(n.deconv, n.data).to_proto().layer[-1]
    assert (layer.type, layer.crop_param.axis, list(layer.crop_param.offset)) == ("Crop", 2, [3])


def test_blobs_that_no_spatial_layer_joins_are_refused() -> None:
    n = up_and_down()
    n.ip = L.InnerProduct(n.deconv, num_output=10)
    with pytest.raises(RuntimeError, match="connected by spatial layers"):
        coord_map_from_to(n.ip, n.data)


@pytest.mark.parametrize(("changes", "complaint"), [({"pool": 3}, "scale"), ({"up_pad": 10}, "negative")])
def test_a_crop_that_cannot_be_is_refused(changes: dict[str, int], complaint: str) -> None:
    n = up_and_down(**changes)
    with pytest.raises(AssertionError, match=complaint):
        crop(n.deconv, n.data)


def test_the_inverse_undoes_a_map() -> None:
    forward = (1, np.array([2.0]), np.array([-3.0]))
    axis, scale, shift = compose(forward, inverse(forward))
    assert (axis, float(scale[0]), float(shift[0])) == (1, 1, 0)


def test_maps_along_different_axes_do_not_chain() -> None:
    with pytest.raises(AxisMismatchException):
        compose((1, 1, 0), (2, 1, 0))
