"""The transform against plain loops and against batches made by real Caffe."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sparknet.caffe.schema.caffe_pb2 import BlobProto
from sparknet.data import Transform
from sparknet.errors import DataError, UsageError
from tests.sparknet.data.real import oracle

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(256, size=(9, 3, 12, 10), dtype=np.uint8)
MEAN_IMAGE = RNG.uniform(0, 255, (3, 12, 10)).astype(np.float32)


def slow(
    image: NDArray[np.uint8],
    mean: NDArray[np.float32] | None,
    scale: float,
    crop: int,
    y: int,
    x: int,
    flip: bool,
) -> NDArray[np.float32]:
    """One picture, pixel by pixel, after Caffe's DataTransformer::Transform."""
    channels, height, width = image.shape
    rows, columns = (crop, crop) if crop else (height, width)
    out = np.empty((channels, rows, columns), np.float32)
    for c in range(channels):
        for h in range(rows):
            for w in range(columns):
                value = np.float32(image[c, y + h, x + w])
                if mean is not None:
                    value -= mean[c, y + h, x + w] if mean.ndim == 3 else mean[c % len(mean)]
                out[c, h, columns - 1 - w if flip else w] = value * np.float32(scale)
    return out


@pytest.mark.parametrize(
    "mean", [None, MEAN_IMAGE, np.array([3, 100, 7], np.float32), np.array([128], np.float32)]
)
@pytest.mark.parametrize("crop", [0, 7])
@pytest.mark.parametrize("scale", [1.0, 0.00390625])
def test_testing_agrees_with_caffes_loops(mean: NDArray[np.float32] | None, crop: int, scale: float) -> None:
    out = Transform(mean=mean, scale=scale, crop=crop)(IMAGES, train=False)
    y, x = ((12 - crop) // 2, (10 - crop) // 2) if crop else (0, 0)
    expected = np.stack([slow(image, mean, scale, crop, y, x, False) for image in IMAGES])
    assert out.dtype == torch.float32
    assert out.is_contiguous()
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("mean", [None, MEAN_IMAGE, np.array([3, 100, 7], np.float32)])
def test_given_places_and_flips_agree_with_caffes_loops(mean: NDArray[np.float32] | None) -> None:
    rows, columns = RNG.integers(6, size=9), RNG.integers(4, size=9)
    flips = RNG.random(9) < 0.5
    out = Transform(mean=mean, crop=7, mirror=True).at(torch.from_numpy(IMAGES), rows, columns, flips)
    places = zip(IMAGES, rows, columns, flips, strict=True)
    expected = [slow(image, mean, 1, 7, int(y), int(x), bool(f)) for image, y, x, f in places]
    np.testing.assert_allclose(out.numpy(), np.stack(expected), rtol=1e-6)


def test_training_draws_every_place_and_flips_half() -> None:
    ramp = np.arange(100, dtype=np.uint8).reshape(1, 1, 10, 10)
    batch = np.repeat(ramp, 6000, axis=0)
    out = Transform(crop=8, mirror=True)(batch, train=True, rng=np.random.default_rng(1)).numpy()
    flipped = out[:, 0, 0, 0] > out[:, 0, 0, 1]
    corners = np.where(flipped, out[:, 0, 0, 7], out[:, 0, 0, 0]).astype(int)
    places, counts = np.unique(corners, return_counts=True)
    assert places.tolist() == [10 * y + x for y in range(3) for x in range(3)]
    # 6000 / 9 a place, give or take five standard deviations
    assert np.all(np.abs(counts - 6000 / 9) < 5 * np.sqrt(6000 / 9))
    assert abs(flipped.mean() - 0.5) < 5 * 0.5 / np.sqrt(6000)


def test_the_same_generator_makes_the_same_batch() -> None:
    make = Transform(crop=7, mirror=True)
    first, second, third = (make(IMAGES, train=True, rng=np.random.default_rng(s)) for s in (4, 4, 5))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_testing_draws_nothing() -> None:
    make = Transform(crop=7, mirror=True)
    assert torch.equal(make(IMAGES, train=False), make(IMAGES, train=False))


def test_the_batch_is_not_changed() -> None:
    before = IMAGES.copy()
    Transform(mean=MEAN_IMAGE, scale=0.5, mirror=True)(IMAGES, train=True, rng=np.random.default_rng(0))
    assert np.array_equal(before, IMAGES)


@pytest.mark.parametrize(
    ("transform", "says"),
    [
        (Transform(crop=11), "crop_size 11 is larger than the 12 x 10 pictures"),
        (Transform(mean=np.zeros((3, 12, 9), np.float32)), "it belongs to another set"),
        (Transform(mean=np.zeros(2, np.float32)), "2 mean values for 3 channels: give one"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(transform: Transform, says: str) -> None:
    with pytest.raises(DataError, match=says):
        transform(IMAGES, train=False)


def test_a_batch_that_is_not_one_is_refused() -> None:
    with pytest.raises(DataError, match=re.escape("(n, c, h, w), not (3, 12, 10)")):
        Transform()(IMAGES[0], train=False)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="crop_size -1 is negative"):
        Transform(crop=-1)
    with pytest.raises(UsageError, match="neither"):
        Transform(mean=np.zeros((2, 2), np.float32))
    with pytest.raises(UsageError, match="need a generator"):
        Transform(mirror=True)(IMAGES, train=True)


TEST_CASES = {
    "plain": Transform(),
    "scale": Transform(scale=0.00390625),
    "meanvalue": Transform(mean=np.array([104, 117, 123], np.float32), crop=24),
}


@pytest.mark.parametrize("case", TEST_CASES)
def test_batches_are_those_of_real_caffe(case: str) -> None:
    folder = oracle() / "data_layer"
    expected = np.load(folder / f"{case}.npz")["data"]
    out = TEST_CASES[case](raw(), train=False).numpy()
    # Caffe went round its 23 records in order
    assert np.array_equal(out[np.arange(len(expected)) % len(out)], expected)


def test_a_mean_file_is_subtracted_as_by_real_caffe() -> None:
    folder = oracle() / "data_layer"
    mean = BlobProto.FromString((folder / "mean.binaryproto").read_bytes())
    image = np.array(mean.data, np.float32).reshape(3, 32, 32)
    out = Transform(mean=image)(raw(), train=False).numpy()
    assert np.array_equal(np.concatenate([out, out[:7]]), np.load(folder / "meanfile.npz")["data"])


def test_every_training_picture_of_real_caffe_is_one_of_our_crops_and_flips() -> None:
    data = np.load(oracle() / "data_layer" / "train_mirror_crop.npz")["data"].reshape(-1, 3, 28, 28)
    make = Transform(mean=np.array([100], np.float32), crop=28, mirror=True)
    for index, picture in enumerate(data):
        record = torch.from_numpy(raw()[index % 23][None])
        possible = [
            make.at(record, np.array([y]), np.array([x]), np.array([flip])).numpy()[0]
            for y in range(5)
            for x in range(5)
            for flip in (False, True)
        ]
        assert any(np.array_equal(picture, p) for p in possible), f"picture {index}"


def raw() -> NDArray[np.uint8]:
    """The 23 records behind Caffe's batches, in the order of their keys; a label leads each."""
    records: NDArray[np.uint8] = np.load(oracle() / "data_layer" / "raw23.npy")
    return records[:, 1:].reshape(-1, 3, 32, 32).copy()


def test_a_transform_that_has_been_used_pickles_as_a_new_one() -> None:
    used = Transform(mean=np.full((3, 8, 8), 5, np.float32), scale=0.5, crop=4)
    batch = np.arange(2 * 3 * 64, dtype=np.uint8).reshape(2, 3, 8, 8)
    expected = used(batch, train=False)
    again = pickle.loads(pickle.dumps(used))
    assert again.__dict__.keys() == {"mean", "scale", "crop", "mirror"}
    assert torch.equal(again(batch, train=False), expected)
