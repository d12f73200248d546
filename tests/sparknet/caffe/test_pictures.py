"""Picture files against numbers of Caffe 1.0 with OpenCV 4.5: how it decodes, greys and resizes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparknet.caffe.layers import pictures
from sparknet.errors import DataError

NUMBERS = np.arange(4 * 5 * 3)
PICTURE = ((NUMBERS * 37 + NUMBERS**2) % 256).astype(np.uint8).reshape(4, 5, 3)  # R, G, B

RESIZED = [  # B, G, R; 3 x 7
    [[90, 149, 168, 103, 51, 98, 189], [155, 161, 138, 67, 100, 142, 179], [117, 191, 217, 141, 107, 82, 66]],
    [[45, 101, 116, 46, 142, 154, 120], [70, 73, 81, 98, 36, 36, 70], [205, 154, 97, 46, 131, 150, 130]],
    [[2, 79, 107, 34, 126, 133, 95], [115, 114, 119, 131, 156, 189, 219], [125, 168, 179, 125, 83, 140, 239]],
]
GREY_RESIZED = [[73, 42, 142], [76, 61, 112], [84, 87, 91], [104, 120, 123], [143, 99, 140], [177, 70, 149]]
GREY = {  # the readers of the formats round each in its own way
    "PNG": [
        [31, 156, 42, 174, 126], [67, 103, 79, 74, 87], [118, 90, 128, 63, 166], [181, 169, 70, 140, 153],
    ],
    "BMP": [
        [31, 156, 43, 175, 127], [68, 103, 80, 75, 88], [119, 91, 129, 63, 166], [181, 170, 71, 140, 153],
    ],
}  # fmt: skip


def encoded(picture: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, kind)
    return buffer.getvalue()


def test_a_picture_is_resized_to_opencvs_numbers(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(PICTURE))
    assert pictures.read(tmp_path / "a.png", color=True, height=3, width=7).tolist() == RESIZED
    assert pictures.read(tmp_path / "a.png", color=False, height=6, width=3).tolist() == [GREY_RESIZED]


def test_halving_takes_the_mean_of_four() -> None:
    halved = pictures.resize(pictures.decode(encoded(PICTURE[:, :4]), "a", color=False), 2, 2)
    grey = np.array(GREY["PNG"])[:, :4].reshape(2, 2, 2, 2).sum((1, 3))
    assert halved[0].tolist() == ((grey + 2) // 4).tolist()


@pytest.mark.parametrize("kind", sorted(GREY))
def test_colours_become_grey_as_opencv_reads_them(kind: str) -> None:
    assert pictures.decode(encoded(PICTURE, kind), "a", color=False)[0].tolist() == GREY[kind]


def test_a_jpegs_grey_is_the_brightness_that_it_holds() -> None:
    data = encoded(PICTURE, "JPEG")
    with Image.open(io.BytesIO(data)) as picture:
        brightness = np.array(picture.convert("YCbCr"))[:, :, 0].astype(int)
    found = pictures.decode(data, "a", color=False)[0].numpy().astype(int)
    assert abs(found - brightness).max() <= 2  # there and back through R, G, B


def test_of_16_bits_the_upper_8_count() -> None:
    deep = (np.arange(20, dtype=np.uint16) * 3001).reshape(4, 5)
    assert pictures.decode(encoded(deep), "a", color=False)[0].tolist() == (deep >> 8).tolist()
    assert pictures.decode(encoded(deep), "a").shape == (1, 4, 5)
    assert pictures.decode(encoded(deep), "a", color=True).shape == (3, 4, 5)


def test_bytes_that_are_no_picture_are_an_error() -> None:
    with pytest.raises(DataError, match="not a picture"):
        pictures.decode(b"no picture", "a.png")
