"""One record of a database that is being written: decoded, resized and encoded as is wanted, or left as it
is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sparknet.data.decoding import Decoding, Order, Size, decode, encode
from sparknet.errors import UsageError
from sparknet.sources.pictures import Raw, Sample, pixels_of

Encoding = Literal["raw", "png", "jpeg", "keep"]
ENCODINGS: tuple[Encoding, ...] = ("raw", "png", "jpeg", "keep")


@dataclass(frozen=True, kw_only=True)
class Making:
    """How records are made of samples.

    ``encoding``  "raw" pixels, "png", "jpeg" of ``quality``, or "keep": as the source has them
    ``order``     of raw colours: "bgr" is Caffe's
    ``seed``      shuffles the records, if it is given

    Raises UsageError for settings that do not go together.
    """

    size: Size | None = None
    channels: Literal[1, 3] | None = None
    encoding: Encoding = "raw"
    order: Order = "bgr"
    quality: int = 95
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise UsageError(f"encoding {self.encoding!r} is not one of {', '.join(ENCODINGS)}")
        if self.encoding == "keep" and (self.size or self.channels):
            raise UsageError("pictures that are resized or made grey cannot be kept as they are: encode them")
        if not 1 <= self.quality <= 100:
            raise UsageError(f"quality {self.quality} is not 1 to 100")
        Decoding(size=self.size, channels=self.channels, order=self.order)

    @property
    def how(self) -> Decoding:
        return Decoding(size=self.size, channels=self.channels, order=self.order)

    @property
    def settings(self) -> dict[str, Any]:
        """As they are compared with those of a database that was begun before."""
        values = asdict(self)
        return {**values, "size": list(self.size) if self.size else None}


@dataclass(frozen=True)
class Record:
    """``number`` is its place among all; ``image`` a file's bytes, or pixels uint8 or float32 (c, h, w)."""

    number: int
    key: str
    image: bytes | Raw
    label: int | float | None
    order: Order | None = None

    @property
    def ending(self) -> str:
        """That of a file of its bytes."""
        if not isinstance(self.image, bytes):
            return "npy"
        starts: Mapping[bytes, str] = {b"\x89PNG": "png", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}
        return next((e for start, e in starts.items() if self.image.startswith(start)), "jpg")

    def pixels(self, order: Order) -> NDArray[Any]:
        """(c, h, w), decoded if need be."""
        if isinstance(self.image, bytes):
            return decode(self.image, self.key, Decoding(channels=None, order=order))
        return np.ascontiguousarray(self.image)


def made(sample: Sample, number: int, making: Making) -> Record:
    """The record of a sample. Raises DataError for one that cannot be decoded."""
    record = Record(number, sample.key, sample.image, sample.label, sample.order)
    if making.encoding == "keep":
        return record
    pixels = pixels_of(sample, making.how)
    # raw pixels whose order nobody says stay as they are, and nobody can say it of the copy
    known = isinstance(sample.image, bytes) or sample.order is not None
    order = making.order if known else None
    contiguous: Any = np.ascontiguousarray(pixels)
    if making.encoding == "raw" or pixels.dtype != np.uint8 or len(pixels) not in (1, 3):
        return replace(record, image=contiguous, order=order)
    data = encode(pixels, making.encoding, order=making.order if known else "rgb", quality=making.quality)  # type: ignore[arg-type]
    return replace(record, image=data, order=None)
