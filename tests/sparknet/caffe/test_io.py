"""Images and arrays in and out, against values worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparknet.caffe import io
from sparknet.caffe.schema.caffe_pb2 import BlobProto, Datum
from sparknet.errors import DataError

RAMP = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def test_a_blob_and_its_diff_come_back() -> None:
    blob = io.array_to_blobproto(RAMP, diff=-RAMP)
    np.testing.assert_array_equal(io.blobproto_to_array(blob), RAMP)
    np.testing.assert_array_equal(io.blobproto_to_array(blob, return_diff=True), -RAMP)


def test_a_legacy_blob_has_four_axes() -> None:
    blob = BlobProto(num=1, channels=1, height=4, width=6, data=RAMP.ravel())
    assert io.blobproto_to_array(blob).shape == (1, 1, 4, 6)


def test_a_blob_without_a_shape_is_a_scalar_or_an_error() -> None:
    assert io.blobproto_to_array(BlobProto(data=[123])) == 123
    with pytest.raises(ValueError, match="reshape"):
        io.blobproto_to_array(BlobProto(data=[1, 2]))


def test_a_list_of_arrays_comes_back() -> None:
    text = io.arraylist_to_blobprotovector_str([RAMP, RAMP[0]])
    first, second = io.blobprotovector_str_to_arraylist(text)
    np.testing.assert_array_equal(first, RAMP)
    np.testing.assert_array_equal(second, RAMP[0])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_record_comes_back(dtype: type) -> None:
    datum = io.array_to_datum(RAMP.astype(dtype), label=7)
    assert datum.label == 7
    assert bool(datum.data) == (dtype is np.uint8)
    np.testing.assert_array_equal(io.datum_to_array(Datum.FromString(datum.SerializeToString())), RAMP)


def test_a_record_without_a_label_has_none() -> None:
    assert not io.array_to_datum(RAMP).HasField("label")


def test_a_record_has_three_axes() -> None:
    with pytest.raises(ValueError, match="3 axes, not 2"):
        io.array_to_datum(RAMP[0])


def saved(tmp_path: Path, pixels: object, mode: str | None = None) -> Path:
    image = Image.fromarray(np.array(pixels, dtype=np.uint8))
    (image.convert(mode) if mode else image).save(path := tmp_path / "image.png")
    return path


def test_a_colour_image_is_rgb_between_nought_and_one(tmp_path: Path) -> None:
    image = io.load_image(saved(tmp_path, [[[255, 0, 51]]]))
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, [[[1, 0, 0.2]]])


def test_transparency_is_dropped_and_grey_is_repeated(tmp_path: Path) -> None:
    assert io.load_image(saved(tmp_path, [[[255, 0, 51, 9]]])).shape == (1, 1, 3)
    np.testing.assert_allclose(io.load_image(saved(tmp_path, [[51]])), [[[0.2, 0.2, 0.2]]])


def test_an_image_can_be_loaded_as_its_luminance(tmp_path: Path) -> None:
    image = io.load_image(saved(tmp_path, [[[255, 0, 0]]]), color=False)
    np.testing.assert_allclose(image, [[[0.2125]]])


def test_a_palette_image_is_loaded_in_its_colours(tmp_path: Path) -> None:
    np.testing.assert_allclose(
        io.load_image(saved(tmp_path, [[[255, 0, 51]]], "P")), [[[1, 0, 0.2]]], atol=0.03
    )


def test_sixteen_bits_are_between_nought_and_one(tmp_path: Path) -> None:
    Image.fromarray(np.array([[65535, 0]], dtype=np.uint16)).save(tmp_path / "deep.png")
    np.testing.assert_allclose(io.load_image(tmp_path / "deep.png", color=False)[..., 0], [[1, 0]])


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no")
    with pytest.raises(DataError, match=r"x\.png: this is not an image"):
        io.load_image(tmp_path / "x.png")


def test_resizing_halves_by_the_mean_of_pairs() -> None:
    image = np.array([[0, 2, 4, 6]], dtype=np.float32).reshape(1, 4, 1)
    np.testing.assert_allclose(io.resize_image(image, (1, 2))[0, :, 0], [1, 5])


def test_past_the_edge_is_the_least_value() -> None:
    image = np.array([[2, 6]], dtype=np.float32).reshape(1, 2, 1)
    # the outer samples lie a quarter of a pixel outside, where a quarter of 2, the least, is mixed in
    np.testing.assert_allclose(io.resize_image(image, (1, 4))[0, :, 0], [2, 3, 5, 5])


def test_resizing_with_other_channels_keeps_the_corners() -> None:
    image = np.zeros((1, 3, 2), dtype=np.float32)
    image[0, :, 0] = [0, 5, 10]
    np.testing.assert_allclose(io.resize_image(image, (1, 5))[0, :, 0], [0, 2.5, 5, 7.5, 10])


def test_a_constant_image_stays_constant() -> None:
    np.testing.assert_allclose(io.resize_image(np.full((5, 4, 3), 0.25), (7, 9)), np.full((7, 9, 3), 0.25))


def test_resizing_by_the_nearest_pixel_invents_nothing() -> None:
    image = np.arange(6, dtype=np.float32).reshape(2, 3, 1)
    assert set(io.resize_image(image, (4, 7), interp_order=0).ravel()) <= set(range(6))
    with pytest.raises(ValueError, match="interp_order"):
        io.resize_image(image, (4, 7), interp_order=2)


def test_oversampling_takes_corners_and_centre_and_mirrors_them() -> None:
    image = np.arange(16, dtype=np.float32).reshape(4, 4, 1)
    crops = io.oversample([image, image], (2, 2))
    assert crops.shape == (20, 2, 2, 1)
    np.testing.assert_array_equal(crops[:5, 0, 0, 0], [0, 2, 8, 10, 5])
    np.testing.assert_array_equal(crops[5:10], crops[:5, :, ::-1])
    np.testing.assert_array_equal(crops[10:], crops[:10])


def transformer() -> io.Transformer:
    made = io.Transformer({"data": (1, 3, 2, 2)})
    made.set_transpose("data", (2, 0, 1))
    made.set_channel_swap("data", (2, 1, 0))
    made.set_raw_scale("data", 255)
    made.set_mean("data", np.array([1.0, 2.0, 3.0]))
    made.set_input_scale("data", 0.5)
    return made


def test_a_transformer_swaps_scales_and_takes_the_mean_off_in_caffes_order() -> None:
    image = np.zeros((2, 2, 3))
    image[0, 1] = [1, 0, 0]  # red
    blob = transformer().preprocess("data", image)
    assert blob.shape == (3, 2, 2)
    np.testing.assert_allclose(blob[:, 0, 1], [-0.5, -1, 126], rtol=1e-6)  # blue, green, red


def test_deprocessing_undoes_preprocessing() -> None:
    image = np.random.default_rng(1).random((2, 2, 3), dtype=np.float32)
    made = transformer()
    np.testing.assert_allclose(made.deprocess("data", made.preprocess("data", image)), image, atol=1e-5)


def test_an_image_of_another_size_is_resized() -> None:
    assert transformer().preprocess("data", np.zeros((5, 7, 3))).shape == (3, 2, 2)


def test_a_mean_image_is_resized_to_the_input() -> None:
    made = io.Transformer({"data": (1, 3, 2, 2)})
    made.set_mean("data", np.full((3, 4, 4), 2.0))
    np.testing.assert_allclose(made.mean["data"], np.full((3, 2, 2), 2.0))


def test_the_data_of_the_caller_is_left_alone() -> None:
    image = np.ones((2, 2, 3), dtype=np.float32)
    transformer().preprocess("data", image)
    np.testing.assert_array_equal(image, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: t.preprocess("date", np.zeros((2, 2, 3))), r"not one of the net inputs: \['data'\]"),
        (lambda t: t.set_transpose("data", (1, 0)), "same number of dimensions"),
        (lambda t: t.set_channel_swap("data", (1, 0)), "as many entries"),
        (lambda t: t.set_mean("data", np.zeros(2)), "channels incompatible"),
        (lambda t: t.set_mean("data", np.zeros((1, 3, 2, 2))), "shape invalid"),
    ],
)
def test_what_does_not_fit_the_input_is_refused(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(transformer())  # type: ignore[operator]
