"""Photographs in JPEG files: in folders, zip archives or tar archives, as ImageNet comes.

    labels   a text file of "key index [name]" lines; the key is a synset (n01440764), with which the names of
             its pictures begin, or a picture's own file name, as in val.txt
    pixels   resized to a square, without keeping the proportions, in the order blue, green, red: as Caffe and
             SparkNet prepare them (amplab/SparkNet, scripts/put_imagenet_on_s3.py)

Nothing here reads a whole set: ``Slice`` is the part of the archives that one worker reads.
"""

from __future__ import annotations

import logging
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np

from sparknet.data.archives import DAMAGED, at_most
from sparknet.data.dataset import Bytes, Examples
from sparknet.data.decoding import Decoding, decode
from sparknet.errors import DataError

SIDE = 256
BLOCK = 256  # records of one block: 48 MiB at 256 x 256
LARGEST = 1 << 28  # bytes of one picture, unpacked
JPEG = (".jpg", ".jpeg")
TAR = (".tar", ".tar.gz", ".tgz")

File = tuple[str, Callable[[], bytes]]
"""A picture's name, and how to read it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Labels:
    """Which class a picture belongs to, by its file name. ``names`` are the classes, in order."""

    by_key: Mapping[str, int]
    names: tuple[str, ...]

    @classmethod
    def read(cls, file: Path) -> Labels:
        """Raises DataError for a line that is not "key index [name]", or an index left out."""
        by_key: dict[str, int] = {}
        names: dict[int, str] = {}
        for number, line in enumerate(_text(file).splitlines(), start=1):
            key, index, *name = [*line.split(maxsplit=2), ""][:3] if line.strip() else ("", "0")
            if key and not index.isdigit():
                raise DataError(f'{file}:{number} is "{line}": a line is a key, a number and perhaps a name')
            if key:
                by_key[PurePosixPath(key).name] = int(index)
                names.setdefault(int(index), *name)
        if sorted(names) != list(range(len(names))) or not names:
            raise DataError(f"{file} names {len(names)} classes, but not all of 0 to {max(names, default=0)}")
        return cls(by_key=by_key, names=tuple(names[index] for index in range(len(names))))

    def of(self, name: str) -> int | None:
        """The class of the picture called ``name``, which may have folders; None if it is not listed."""
        path = PurePosixPath(name)
        keys = (path.name, path.stem, path.name.split("_")[0], path.parent.name)
        return next((self.by_key[key] for key in keys if key in self.by_key), None)


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Every ``step``-th picture of each of ``sources``, from number ``start`` on.

    ``part`` is "all", or "train" or "test", which share the pictures out nine to one by their names.
    """

    sources: tuple[Path, ...]
    start: int = 0
    step: int = 1
    part: str = "all"

    def examples(self, labels: Labels, *, seed: int = 0, side: int = SIDE) -> Iterator[Examples]:
        """Its pictures, shuffled, in blocks of ``BLOCK``; what does not decode is logged and left out."""
        found = [(labels.of(name), _decoded(name, read, side)) for name, read in self._files(labels)]
        good = [(label, pixels) for label, pixels in found if label is not None and pixels is not None]
        order = np.random.default_rng([seed, self.start]).permutation(len(good))
        for block in np.array_split(order, range(BLOCK, len(good), BLOCK)) if good else []:
            pixels = np.stack([good[index][1] for index in block])
            yield Examples(pixels, np.array([good[index][0] for index in block], np.int64))

    def _files(self, labels: Labels) -> Iterator[File]:
        for source in self.sources:
            wanted = (
                (name, read)
                for name, read in _pictures(source)
                if labels.of(name) is not None and _is_in(self.part, name)
            )
            yield from islice(wanted, self.start, None, self.step)


def sources(folder: Path) -> tuple[Path, ...]:
    """The archives at or below ``folder``, and the folders with loose pictures in them, sorted.

    Raises DataError if there is nothing of the kind.
    """
    if folder.is_file():
        return (folder,)
    files = sorted(folder.rglob("*"))
    archives = [file for file in files if file.name.lower().endswith((*TAR, ".zip"))]
    loose = {file.parent for file in files if file.name.lower().endswith(JPEG)}
    if not archives and not loose:
        state = "has no JPEG files, zip or tar archives in it" if folder.is_dir() else "does not exist"
        raise DataError(f"{folder} {state}: give the folder of the pictures")
    return (*archives, *sorted(loose))


def slices(found: tuple[Path, ...], count: int, part: str = "all") -> list[Slice]:
    """Share the pictures of ``found`` out among ``count`` workers: whole sources where there are enough."""
    if len(found) >= count:
        return [Slice(sources=found[k::count], part=part) for k in range(count)]
    return [Slice(sources=found, start=k, step=count, part=part) for k in range(count)]


def first(blocks: Iterable[Examples], count: int) -> Examples:
    """The first ``count`` records. Raises DataError if there are none."""
    taken: list[Examples] = []
    for block in blocks:
        taken.append(block[: count - sum(map(len, taken))])
        if sum(map(len, taken)) >= count:
            break
    if not sum(map(len, taken)):
        raise DataError("none of the pictures is named in the labels")
    return Examples(np.concatenate([b.images for b in taken]), np.concatenate([b.labels for b in taken]))


def _pictures(source: Path) -> Iterator[File]:
    """Every JPEG file of an archive or folder; what is not wanted need not be read."""
    try:
        if source.is_dir():
            yield from _loose(source)
        elif source.name.lower().endswith(".zip"):
            yield from _zipped(source)
        else:
            yield from _tarred(source)
    except DAMAGED as error:
        raise DataError(f"{source} cannot be read ({error}): it is missing, damaged or no archive") from error


def _loose(folder: Path) -> Iterator[File]:
    for file in sorted(folder.iterdir()):
        if file.name.lower().endswith(JPEG):
            yield f"{folder.name}/{file.name}", file.read_bytes


def _zipped(source: Path) -> Iterator[File]:
    with zipfile.ZipFile(source) as archive:
        for name in archive.namelist():
            if name.lower().endswith(JPEG):
                yield name, partial(_member, archive, name)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as content:
        return at_most(content, LARGEST)


def _tarred(source: Path) -> Iterator[File]:
    with tarfile.open(source) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.name.lower().endswith(JPEG) else None
            if content is not None:
                yield member.name, partial(at_most, content, LARGEST)


def _decoded(name: str, read: Callable[[], bytes], side: int) -> Bytes | None:
    """uint8 (3, side, side), blue first; None for what is no picture, or cannot be read."""
    try:
        return decode(read(), name, Decoding(size=(side, side), order="bgr"))
    except (*DAMAGED, DataError) as error:
        log.warning("%s is left out: %s", name, str(error).removeprefix(f"{name}: "))
        return None


def _is_in(part: str, name: str) -> bool:
    held_out = zlib.crc32(PurePosixPath(name).name.encode()) % 10 == 0
    return part == "all" or held_out == (part == "test")


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the labels {file} cannot be read: {error}") from error
