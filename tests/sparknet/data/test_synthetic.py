from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparknet.data import cifar10, synthetic
from sparknet.errors import UsageError


def test_the_same_seed_draws_the_same_bytes_and_another_does_not() -> None:
    first, second, other = (synthetic.draw(seed=seed, train=40, test=10) for seed in (1, 1, 2))
    assert np.array_equal(first.train.images, second.train.images)
    assert np.array_equal(first.test.labels, second.test.labels)
    assert not np.array_equal(first.train.images, other.train.images)


def test_it_has_the_shape_of_cifar10_and_says_that_it_is_drawn() -> None:
    drawn = synthetic.draw(train=30, test=20)
    assert drawn.train.shape == (3, 32, 32)
    assert (len(drawn.train), len(drawn.test)) == (30, 20)
    assert drawn.synthetic
    assert len(drawn.classes) == 10


def test_it_can_have_the_shape_of_mnist() -> None:
    assert synthetic.draw(train=10, test=10, channels=1, side=28).train.shape == (1, 28, 28)


def test_classes_are_equally_frequent_and_shuffled() -> None:
    labels = synthetic.draw(train=1000, test=10).train.labels
    assert np.bincount(labels).tolist() == [100] * 10
    assert np.bincount(labels[:200], minlength=10).min() > 5


def test_test_pictures_are_not_training_pictures() -> None:
    drawn = synthetic.draw(train=200, test=200)
    assert not {i.tobytes() for i in drawn.train.images} & {i.tobytes() for i in drawn.test.images}


def test_colour_alone_does_not_tell_the_class() -> None:
    """The class whose mean colour is nearest is the right one hardly more often than one time in ten."""
    drawn = synthetic.draw(train=3000, test=1000)
    train, test = (part.images.mean(axis=(2, 3)) for part in (drawn.train, drawn.test))
    means = np.stack([train[drawn.train.labels == label].mean(axis=0) for label in range(10)])
    nearest = ((test[:, None] - means[None]) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == drawn.test.labels).mean() < 0.18


def test_it_writes_itself_as_cifar10_and_is_read_back(tmp_path: Path) -> None:
    drawn = synthetic.draw(train=53, test=10)
    folder = cifar10.write_binary(drawn, tmp_path)
    assert (folder / "test_batch.bin").stat().st_size == 10 * 3073
    assert (folder / "batches.meta.txt").read_text().splitlines()[0] == "disc"
    again = cifar10.load(tmp_path)
    assert np.array_equal(again.train.images, drawn.train.images)
    assert np.array_equal(again.train.labels, drawn.train.labels)


def test_a_set_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one"):
        synthetic.draw(train=0)
