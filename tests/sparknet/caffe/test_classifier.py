"""``Classifier`` and ``Detector`` on a net whose scores can be worked out: the mean of each channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparknet import caffe

MEANS = """
name: "means"
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: [3, 3, 4, 4] } } }
layer { name: "mean" type: "Pooling" bottom: "data" top: "mean"
        pooling_param { pool: AVE global_pooling: true } }
layer { name: "ip" type: "InnerProduct" bottom: "mean" top: "scores" inner_product_param { num_output: 3 } }
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    """A net whose scores are the means of its three channels, and its weights."""
    model, weights = str(tmp_path / "net.prototxt"), str(tmp_path / "net.caffemodel")
    Path(model).write_text(MEANS)
    net = caffe.Net(model, caffe.TEST)
    net.params["ip"][0].data[...] = np.eye(3)
    net.save(weights)
    return model, weights


def ramp(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downwards, blue is 0.5."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.stack([columns / width, rows / height, np.full_like(rows, 0.5)], axis=2)


def test_the_centre_of_an_image_is_scored(files: tuple[str, str]) -> None:
    classifier = caffe.Classifier(*files, image_dims=(8, 8))
    image = ramp(8, 8)
    scores = classifier.predict([image, image], oversample=False)
    np.testing.assert_allclose(scores, [image[2:6, 2:6].mean(axis=(0, 1))] * 2, rtol=1e-5)


def test_ten_crops_are_averaged(files: tuple[str, str]) -> None:
    image = ramp(6, 8)
    classifier = caffe.Classifier(*files, image_dims=(6, 8))
    crops = [image[i : i + 4, j : j + 4] for i, j in [(0, 0), (0, 4), (2, 0), (2, 4), (1, 2)]]
    expected = np.mean([crop.mean(axis=(0, 1)) for crop in crops], axis=0)
    np.testing.assert_allclose(classifier.predict([image]), [expected], rtol=1e-5)


def test_more_images_than_a_batch_are_scored(files: tuple[str, str]) -> None:
    assert caffe.Classifier(*files).predict([ramp(5, 7)] * 4).shape == (4, 3)


def test_preprocessing_is_that_of_the_transformer(files: tuple[str, str]) -> None:
    classifier = caffe.Classifier(
        *files, raw_scale=255, channel_swap=(2, 1, 0), mean=np.array([1.0, 2.0, 3.0]), input_scale=2
    )
    red, green, blue = classifier.predict([ramp(4, 4)], oversample=False)[0]
    means = ramp(4, 4).mean(axis=(0, 1)) * 255
    np.testing.assert_allclose([blue, green, red], 2 * (means - [3, 2, 1]), rtol=1e-5)


def saved(folder: Path, pixels: np.ndarray) -> str:
    path = str(folder / "image.png")
    Image.fromarray((pixels * 255).round().astype(np.uint8)).save(path)
    return path


def test_windows_are_cropped_and_scored(files: tuple[str, str], tmp_path: Path) -> None:
    pixels = np.zeros((20, 20, 3))
    pixels[4:12, 6:14, 0] = 1
    name = saved(tmp_path, pixels)
    found = caffe.Detector(*files).detect_windows([(name, [(4, 6, 12, 14), (0, 0, 4, 4)])])
    assert [(d["filename"], d["window"]) for d in found] == [(name, (4, 6, 12, 14)), (name, (0, 0, 4, 4))]
    np.testing.assert_allclose(found[0]["prediction"], [1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(found[1]["prediction"], [0, 0, 0], atol=1e-6)


def test_no_windows_are_no_detections(files: tuple[str, str], tmp_path: Path) -> None:
    assert caffe.Detector(*files).detect_windows([(saved(tmp_path, ramp(8, 8)), [])]) == []


def test_context_surrounds_a_window(files: tuple[str, str]) -> None:
    image = np.zeros((40, 40, 3), dtype=np.float32)
    image[16:24, 16:24] = 1  # the window; with a padding of 1 of 4 pixels it fills the middle 2 x 2
    crop = caffe.Detector(*files, context_pad=1).crop(image, (16, 16, 23, 23))
    assert crop.shape == (4, 4, 3)
    np.testing.assert_allclose(crop[1:3, 1:3], 1, atol=0.15)
    assert crop[0].max() < 0.5
    assert crop[:, 0].max() < 0.5


def test_the_mean_stands_where_the_context_leaves_the_image(files: tuple[str, str]) -> None:
    detector = caffe.Detector(*files, context_pad=1, mean=np.array([0.1, 0.2, 0.3]), channel_swap=(2, 1, 0))
    crop = detector.crop(np.ones((10, 10, 3), dtype=np.float32), (0, 0, 7, 7))
    np.testing.assert_allclose(crop[0, 0], [0.3, 0.2, 0.1], rtol=1e-5)
    np.testing.assert_allclose(crop[2, 2], 1, rtol=1e-5)
