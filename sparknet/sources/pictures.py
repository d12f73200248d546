"""Labelled pictures from files of any kind, decoded where they are trained on.

A kind of file gives ``Samples``: encoded pictures or arrays, with labels. ``PictureSource`` makes records of
them: all of one size, channels in one order, in blocks. A picture that cannot be decoded is left out; the
first of a part are named in the log, and the others counted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from sparknet.data.decoding import Decoding, Order, decode, planes, resized
from sparknet.data.records import Column
from sparknet.data.shards import contiguous
from sparknet.errors import DataError
from sparknet.sources.source import Block, Part, records_of_a_block

NAMED = 10
"""So many pictures that cannot be decoded are named, in each part."""

LOOKED_AT = 16
"""So many of the first pictures say how many channels all of them have."""

Raw = NDArray[np.uint8] | NDArray[np.float32]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sample:
    """One picture as it is stored: ``name`` says where, ``key`` is its name among the others.

    ``image`` is an encoded file, or an array (channels, height, width) whose colours are in ``order``, if
    that is known.
    """

    name: str
    key: str
    image: bytes | Raw
    label: int | float | None = None
    order: Order | None = None


class Samples(Protocol):
    """Pictures as they are stored, in the order of their files."""

    is_sequential: ClassVar[bool]
    """Whether a picture is reached only past those before it."""

    def __len__(self) -> int: ...

    def part(self, which: slice) -> Iterable[Sample]:
        """Some of them, to be read elsewhere: pickles. Reading raises DataError."""
        ...


class Corrupt:
    """The pictures that could not be decoded: ``count``, and ``named``, the first of them."""

    def __init__(self, place: str = "") -> None:
        self.place, self.count, self.named = place, 0, list[str]()

    def note(self, error: DataError) -> None:
        self.count += 1
        if self.count <= NAMED:
            self.named.append(str(error))
            log.warning("left out: %s", error)

    def tell_rest(self) -> None:
        """Log how many more there were than have been named."""
        if self.count > NAMED:
            log.warning("left out: %s more pictures that cannot be decoded", f"{self.count - NAMED:,}")


@dataclass(frozen=True)
class PicturePart:
    """Neighbouring pictures of a source."""

    samples: Iterable[Sample]
    how: Decoding
    schema: Mapping[str, Column]

    def blocks(self) -> Iterator[Block]:
        """Raises DataError for a picture of another size, a label that is missing, and files that fail."""
        corrupt = Corrupt()
        good = self._records(corrupt)
        size, image = records_of_a_block(self.schema), self.schema["image"]
        while records := list(islice(good, size)):
            pixels = np.empty((len(records), *image.shape), image.dtype)
            for row, (picture, _) in zip(pixels, records, strict=True):
                row[...] = picture
            block: dict[str, NDArray[Any]] = {"image": pixels}
            if "label" in self.schema:
                block["label"] = np.array([label for _, label in records], self.schema["label"].dtype)
            yield block
        corrupt.tell_rest()

    def _records(self, corrupt: Corrupt) -> Iterator[tuple[Raw, int | float | None]]:
        for sample in self.samples:
            try:
                picture = pixels_of(sample, self.how)
            except DataError as error:
                corrupt.note(error)
                continue
            self._check(sample, picture)
            yield picture, sample.label

    def _check(self, sample: Sample, picture: Raw) -> None:
        due = self.schema["image"].shape
        if picture.shape != due:
            found, first = (" x ".join(map(str, shape)) for shape in (picture.shape, due))
            raise DataError(
                f"{sample.name} is {found} (channels x height x width) where the first picture is {first}: "
                f"give a size, such as size=({due[1]}, {due[2]})"
            )
        if sample.label is None and "label" in self.schema:
            raise DataError(f"{sample.name} has no label, and others have one")


@dataclass(frozen=True, eq=False)
class PictureSource:
    """A ``Source`` with the columns ``image`` (channels, height, width) and, where there are labels,
    ``label``.

    Channels are as many as the first pictures have: three, if one of these is in colour. ``half`` is
    "train" or "test" of a set that has two halves.
    """

    name: str
    samples: Samples
    how: Decoding = field(default_factory=lambda: Decoding(channels=None))
    classes: tuple[str, ...] | None = None
    half: str = ""

    @cached_property
    def schema(self) -> Mapping[str, Column]:
        """Of the first pictures. Raises DataError if none can be decoded."""
        return self._looked[1]

    def parts(self, count: int) -> Sequence[Part]:
        how, schema = self._looked
        slices = contiguous(len(self.samples), count)
        return [PicturePart(self.samples.part(which), how, schema) for which in slices]

    @cached_property
    def _looked(self) -> tuple[Decoding, Mapping[str, Column]]:
        """How all pictures are decoded, and what comes of it."""
        samples, pictures = self._first()
        channels = max(len(picture) for picture in pictures)
        how = replace(self.how, channels=1 if channels == 1 else 3) if channels in (1, 3) else self.how
        picture = pixels_of(samples[0], how)
        columns = {"image": Column(picture.dtype, picture.shape)}
        label = samples[0].label
        if label is not None:
            kind = np.float32 if isinstance(label, float) else np.int64
            columns["label"] = Column(np.dtype(kind))
        return how, columns

    def _first(self) -> tuple[list[Sample], list[Raw]]:
        """The first of them, as far as they can be decoded."""
        samples, pictures, problem = [], [], DataError(f"{self.name}: there is not one picture")
        for sample in self.samples.part(slice(0, min(LOOKED_AT, len(self.samples)))):
            try:
                pictures.append(pixels_of(sample, self.how))
                samples.append(sample)
            except DataError as error:
                problem = error
        if not samples:
            raise problem
        return samples, pictures


def pixels_of(sample: Sample, how: Decoding) -> Raw:
    """(channels, height, width): uint8, or float32 where such an array is stored. Raises DataError."""
    if isinstance(sample.image, bytes):
        return decode(sample.image, sample.name, how)
    picture: Raw = sample.image
    if len(picture) == 3 and sample.order is not None and sample.order != how.order:
        picture = picture[::-1]
    if how.channels == 3 and len(picture) == 1:
        picture = np.repeat(picture, 3, 0)  # type: ignore[assignment]
    elif how.channels == 1 and len(picture) == 3:
        picture = _grey(picture, how.order)
    if how.size is None or picture.shape[1:] == how.size:
        return picture
    rows = np.ascontiguousarray(picture.transpose(1, 2, 0))
    smaller = resized(rows, how.size)  # type: ignore[arg-type]
    return planes(smaller) if smaller.dtype == np.uint8 else np.atleast_3d(smaller).transpose(2, 0, 1)


def _grey(picture: Raw, order: Order) -> Raw:
    """The brightness, by the weights of ITU-R 601, as JPEG has it."""
    weights = np.array([0.299, 0.587, 0.114])[:: 1 if order == "rgb" else -1]
    grey = np.tensordot(weights, picture, 1)[None]
    return (grey + 0.5).astype(np.uint8) if picture.dtype == np.uint8 else grey.astype(np.float32)
