"""Picture files against numbers of Caffe 1.0 with OpenCV 4.5: how it decodes, greys and resizes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

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


def encoded(picture: np.ndarray | Image.Image, kind: str = "PNG", **settings: object) -> bytes:
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(buffer, kind, **settings)
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


ALPHA = (np.arange(20, dtype=np.uint8) * 12).reshape(4, 5, 1)
CLEAR = np.concatenate([PICTURE, ALPHA], axis=2)
PALETTE = Image.fromarray(PICTURE).quantize(4)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_record_with_transparency_has_four_channels(kind: str) -> None:
    """As of OpenCV's IMREAD_UNCHANGED, which Caffe decodes records with."""
    data = encoded(CLEAR, kind, lossless=True, exact=True)
    assert pictures.decode(data, "a").permute(1, 2, 0).tolist() == CLEAR[:, :, [2, 1, 0, 3]].tolist()
    assert pictures.decode(data, "a", color=True).permute(1, 2, 0).tolist() == PICTURE[:, :, ::-1].tolist()
    assert pictures.decode(data, "a", color=False).shape == (1, 4, 5)


@pytest.mark.parametrize(
    ("picture", "settings", "channels"),
    [
        (Image.fromarray(CLEAR[:, :, 2:], "LA"), {}, 4),  # grey with alpha is B, G, R, A in OpenCV
        (PALETTE, {}, 3),
        (PALETTE, {"transparency": bytes([0, 128, 255])}, 4),
        (PALETTE, {"transparency": 2}, 4),
        (Image.fromarray(PICTURE), {"transparency": tuple(map(int, PICTURE[0, 0]))}, 4),
        (Image.fromarray(PICTURE[:, :, 0]), {"transparency": int(PICTURE[0, 0, 0])}, 1),
        (Image.fromarray(PICTURE[:, :, 0]), {}, 1),
        (Image.fromarray(PICTURE[:, :, 0] > 99), {}, 1),
    ],
)
@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
def test_a_record_has_the_channels_that_opencv_gives_it(
    picture: Image.Image, settings: dict[str, object], channels: int
) -> None:
    data = encoded(picture, **settings)
    assert pictures.decode(data, "a").shape == (channels, 4, 5)
    assert pictures.decode(data, "a", color=True).shape == (3, 4, 5)
    assert pictures.decode(data, "a", color=False).shape == (1, 4, 5)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(10))
def test_a_picture_is_turned_as_its_exif_data_say(kind: str, orientation: int) -> None:
    """Where colour or grey is asked for; a record decoded as it is is not turned. So OpenCV does it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(np.kron(PICTURE, np.ones((8, 8, 1), np.uint8)), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as picture:
        upright = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
        as_it_is = np.array(picture.convert("RGB"))
    colours = pictures.decode(data, "a", color=True).permute(1, 2, 0).numpy()
    assert colours[:, :, ::-1].tolist() == upright.tolist()
    assert pictures.decode(data, "a", color=False).shape == (1, *upright.shape[:2])
    assert pictures.decode(data, "a").permute(1, 2, 0).numpy()[:, :, ::-1].tolist() == as_it_is.tolist()


def test_damaged_exif_data_turn_nothing() -> None:
    data = encoded(np.kron(PICTURE, np.ones((8, 8, 1), np.uint8)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff")
    assert pictures.decode(data, "a", color=True).shape == (3, 32, 40)
