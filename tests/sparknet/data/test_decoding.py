"""Pictures are decoded as Pillow decodes them, whatever kind of file they are in, and at the size wanted."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from sparknet.data.dataset import Bytes
from sparknet.data.decoding import Decoding, decode, encode, is_encoded, planes, resized
from sparknet.errors import DataError, UsageError


def photograph(height: int = 60, width: int = 80) -> Image.Image:
    """Smooth colours, which JPEG hardly changes."""
    rows, columns = np.mgrid[:height, :width]
    reds, greens = 255 * rows / height, 255 * columns / width
    pixels = np.stack([reds, greens, 255 - (reds + greens) / 2], 2)
    return Image.fromarray(pixels.astype(np.uint8))


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def pillows(data: bytes, mode: str = "RGB") -> Bytes:
    """(h, w, 3) or (h, w), as Pillow has it."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(ImageOps.exif_transpose(image).convert(mode))


def furthest(one: Bytes, other: Bytes) -> int:
    return int(np.abs(one.astype(int) - other.astype(int)).max())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
    ],
)
def test_a_picture_is_what_pillow_makes_of_it(kind: str, options: dict[str, Any]) -> None:
    data = file_of(photograph(), kind, **options)
    assert is_encoded(data)
    found = decode(data, "x")
    assert (found.shape, found.dtype) == ((3, 60, 80), np.uint8)
    assert furthest(found, pillows(data).transpose(2, 0, 1)) <= (1 if kind == "JPEG" else 0)


def test_the_channels_come_in_the_order_that_is_asked_for() -> None:
    for kind in ("PNG", "JPEG"):
        data = file_of(photograph(), kind)
        blue_first = decode(data, "x", Decoding(order="bgr"))
        assert np.array_equal(blue_first[::-1], decode(data, "x"))


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_every_kind_of_pixel_becomes_colour_or_grey_as_asked(mode: str, kind: str) -> None:
    image = photograph().convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.array(image).astype(np.uint16) * 256 + 200)
    try:
        data = file_of(image, kind)
    except OSError:
        pytest.skip(f"{kind} has no {mode}")
    grey_source = mode in ("L", "1", "LA", "I;16")
    assert decode(data, "x").shape == (3, 60, 80)
    assert decode(data, "x", Decoding(channels=1)).shape == (1, 60, 80)
    assert len(decode(data, "x", Decoding(channels=None))) == (1 if grey_source else 3)


def test_of_sixteen_bits_the_upper_eight_are_kept() -> None:
    wide = np.arange(60 * 80, dtype=np.uint16).reshape(60, 80) * 13
    grey = decode(file_of(Image.fromarray(wide)), "x", Decoding(channels=1))
    assert np.array_equal(grey[0], (wide >> 8).astype(np.uint8))


def test_sixteen_bits_of_colour_keep_the_upper_eight_too() -> None:
    import cv2

    wide = np.random.default_rng(0).integers(0, 1 << 16, (5, 7, 3), dtype=np.uint16)
    data = cv2.imencode(".png", wide)[1].tobytes()  # blue first, as OpenCV writes; Pillow writes none
    assert np.array_equal(decode(data, "x", Decoding(order="bgr")), planes((wide >> 8).astype(np.uint8)))


def test_a_cmyk_jpeg_has_the_colours_that_pillow_sees() -> None:
    data = file_of(photograph().convert("CMYK"), "JPEG", quality=95)
    found = decode(data, "x")
    assert furthest(found, pillows(data).transpose(2, 0, 1)) == 0
    assert furthest(found, np.asarray(photograph()).transpose(2, 0, 1)) < 12  # and nearly the true ones


def test_transparency_is_dropped_and_the_colours_below_it_stay() -> None:
    image = photograph()
    image.putalpha(Image.new("L", image.size, 3))
    assert np.array_equal(decode(file_of(image), "x"), decode(file_of(photograph()), "x"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [None, (24, 17)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_is_turned_as_its_exif_says(
    orientation: int, size: tuple[int, int] | None, kind: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_of(photograph(), kind, exif=exif, **({"quality": 95} if kind == "JPEG" else {}))
    upright = pillows(data)
    assert (upright.shape[0] > upright.shape[1]) == (orientation >= 5)
    found = decode(data, "x", Decoding(size=size))
    assert furthest(found, planes(resized(upright, size))) <= 8


@pytest.mark.parametrize("factor", [1, 2, 3, 5, 9])
def test_a_smaller_picture_is_close_to_what_pillow_resizes_to(factor: int) -> None:
    data = file_of(photograph(60 * factor, 80 * factor), "JPEG", quality=95)
    with Image.open(io.BytesIO(data)) as image:
        wanted = np.array(image.resize((50, 40)))
    found = decode(data, "x", Decoding(size=(40, 50))).transpose(1, 2, 0)
    assert np.abs(found.astype(int) - wanted.astype(int)).mean() < 1.5


def test_a_larger_picture_is_made_of_a_smaller_one() -> None:
    data = file_of(photograph(20, 30), "JPEG", quality=95)
    assert decode(data, "x", Decoding(size=(90, 70))).shape == (3, 90, 70)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_part_of_a_picture_is_no_picture(kind: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = file_of(noise, kind)
    with pytest.raises(DataError, match=r"^photos/a\.jpg: not a picture that can be read: "):
        decode(data[: int(len(data) * share)], "photos/a.jpg")


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\x89PNG\r\n", b"no picture at all", b"\0" * 1000])
def test_bytes_that_are_no_picture_are_an_error_of_one_line(data: bytes) -> None:
    with pytest.raises(DataError, match=r"^here: not a picture that can be read: .*$") as raised:
        decode(data, "here")
    assert "\n" not in str(raised.value)
    assert "0x" not in str(raised.value)


@pytest.mark.filterwarnings("ignore")  # Pillow's own, of damaged EXIF and the like
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "GIF", "BMP", "WEBP"])
def test_a_damaged_file_is_a_picture_or_an_error_and_nothing_else(kind: str) -> None:
    rng = np.random.default_rng(11)
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = file_of(photograph(30, 40), kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP") else {}))
    refused: list[str] = []
    for _ in range(150):
        data = bytearray(whole)
        for place in rng.integers(2, len(data), rng.integers(1, 12)):
            data[place] = rng.integers(256)
        try:
            assert decode(bytes(data), "x", Decoding(size=(8, 8))).shape == (3, 8, 8)
        except DataError as error:
            refused.append(str(error))
    assert not any("\n" in sentence for sentence in refused)
    assert kind in ("BMP", "GIF") or refused


def test_bits_that_libjpeg_only_warns_of_do_not_lose_a_picture() -> None:
    data = file_of(photograph(), "JPEG", quality=95)
    stray = data[:-2] + b"\0\0\0" + data[-2:]  # before the last marker, as in some files of ImageNet
    assert furthest(decode(stray, "x"), decode(data, "x")) <= 1


@pytest.mark.parametrize("kind", ["jpeg", "png"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_what_is_encoded_is_decoded_again(kind: str, channels: int, order: Any) -> None:
    pixels = decode(file_of(photograph()), "x", Decoding(channels=channels, order=order))  # type: ignore[arg-type]
    data = encode(pixels, kind, order=order)
    again = decode(data, "x", Decoding(channels=channels, order=order))  # type: ignore[arg-type]
    assert furthest(again, pixels) <= (6 if kind == "jpeg" else 0)


@pytest.mark.parametrize("wrong", [{"size": (0, 5)}, {"channels": 4}, {"order": "gbr"}])
def test_a_decoding_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Decoding(**wrong)
