from __future__ import annotations

import numpy as np
import pytest

from sparknet.data import Dataset, Examples
from sparknet.errors import DataError


def some(count: int = 6, side: int = 4) -> Examples:
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(count, 3, side, side), dtype=np.uint8)
    return Examples(images, np.arange(count, dtype=np.int64) % 3)


def pairs(examples: Examples) -> set[tuple[bytes, int]]:
    return {(i.tobytes(), int(label)) for i, label in zip(examples.images, examples.labels, strict=True)}


def test_the_mean_image_is_the_mean_of_every_pixel() -> None:
    examples = some(7)
    expected = sum(int(image[1, 2, 3]) for image in examples.images) / 7
    assert examples.mean_image()[1, 2, 3] == pytest.approx(expected)
    assert examples.mean_image().dtype == np.float32


def test_the_mean_image_does_not_depend_on_the_order() -> None:
    examples = some(101)
    assert np.array_equal(examples.mean_image(), examples.shuffled(5).mean_image())


def test_shuffling_keeps_every_label_with_its_image() -> None:
    examples = some(50)
    shuffled = examples.shuffled(1)
    pairs = {
        (image.tobytes(), int(label)) for image, label in zip(examples.images, examples.labels, strict=True)
    }
    assert not np.array_equal(shuffled.labels, examples.labels)
    assert pairs == {
        (image.tobytes(), int(label)) for image, label in zip(shuffled.images, shuffled.labels, strict=True)
    }


def test_a_slice_of_examples_does_not_copy_the_pixels() -> None:
    examples = some()
    assert np.shares_memory(examples[1:3].images, examples.images)
    assert len(examples[1:3]) == 2


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        (np.zeros((2, 3, 4), np.uint8), np.zeros(2, np.int64), "images are"),
        (np.zeros((2, 3, 4, 4), np.float64), np.zeros(2, np.int64), "images are"),
        (np.zeros((2, 3, 4, 4), np.uint8), np.zeros(3, np.int64), "labels are"),
        (np.zeros((2, 3, 4, 4), np.uint8), np.zeros(2, np.int32), "labels are"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(images: object, labels: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        Examples(images, labels)  # type: ignore[arg-type]


def test_the_mean_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="no records"):
        some()[0:0].mean_image()


def test_a_data_set_refuses_a_label_without_a_class() -> None:
    with pytest.raises(DataError, match="labels 0 to 2, but its 2 classes are 0 to 1"):
        Dataset(name="two", train=some(), test=some(), classes=("a", "b"))


def test_a_data_set_refuses_test_pictures_of_another_shape() -> None:
    with pytest.raises(DataError, match="training pictures are"):
        Dataset(name="mixed", train=some(), test=some(side=5), classes=("a", "b", "c"))


def test_a_data_set_refuses_an_empty_half() -> None:
    with pytest.raises(DataError, match="the test set has no records"):
        Dataset(name="half", train=some(), test=some()[0:0], classes=("a", "b", "c"))
