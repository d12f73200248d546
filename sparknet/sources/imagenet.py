"""ImageNet's official archives, read where they lie, never unpacked.

    ILSVRC2012_img_train.tar    n01440764.tar, n01443537.tar, ...: an archive of each class's pictures
    ILSVRC2012_img_val.tar      ILSVRC2012_val_00000001.JPEG, ...: labels are in a file of lines "name index",
                                or in the development kit (devkit.py)

Classes are numbered in the order of their synsets, as Caffe's synset_words.txt has it. An index of the
archives says at which byte a picture begins, so that any part of them can be read by itself.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import BinaryIO, ClassVar, NamedTuple

from sparknet.errors import DataError
from sparknet.sources import devkit, files
from sparknet.sources.folder import is_picture
from sparknet.sources.pictures import Sample

_SYNSET = re.compile(r"^n\d{8}$")
_AT_ONCE = 16  # archives of classes that are indexed at the same time


class Member(NamedTuple):
    """A picture: its archive, its name there, where its bytes begin and how many there are, and its class."""

    url: str
    name: str
    offset: int
    size: int
    label: int


@dataclass(frozen=True)
class ImageNetSamples:
    """Pictures in the order of their archives."""

    is_sequential: ClassVar[bool] = False

    members: tuple[Member, ...]

    def __len__(self) -> int:
        return len(self.members)

    def part(self, which: slice) -> ImageNetSamples:
        return ImageNetSamples(self.members[which])

    def __iter__(self) -> Iterator[Sample]:
        for member, content in contents(self.members):
            yield Sample(f"{member.url} {member.name}", member.name, content, member.label)


def contents(members: Iterable[Member]) -> Iterator[tuple[Member, bytes]]:
    """What is in each, in their order, which should be that of their places.

    Raises DataError if an archive ends before a picture does.
    """
    url, archive, stack = "", None, None
    try:
        for member in members:
            if archive is None or member.url != url:
                if stack is not None:
                    stack.__exit__(None, None, None)
                url, stack = member.url, files.opened(member.url, start=member.offset)
                archive = stack.__enter__()
            yield member, _content(archive, member)
    finally:
        if stack is not None:
            stack.__exit__(None, None, None)


@dataclass(frozen=True)
class Index:
    """What is in some archives: pictures with their classes, and the synsets these are, if that is known."""

    members: tuple[Member, ...]
    classes: tuple[str, ...] | None


def is_imagenet(url: str) -> bool:
    """Whether a tar file is one of ImageNet's: it begins with an archive of a class, or a picture of the
    kind."""
    first = next(_members(url, 0, is_stream=True), None)
    if first is None:
        return False
    name = PurePosixPath(first.name).name
    return name.endswith(".tar") or (is_picture(name) and name.startswith(("ILSVRC", "n0", "n1")))


def index(urls: Sequence[str], labels: str | None = None) -> Index:
    """The pictures of these archives. ``labels`` is a file of lines "name index" or "synset index", or the
    development kit.

    Without it classes are numbered by their synsets. Raises DataError for archives that are cut short, and
    for pictures without a class.
    """
    told = _labels(labels) if labels else {}
    found = [(url, member, synset) for url in urls for member, synset in _all(url)]
    if not found:
        raise DataError(f"{', '.join(urls)}: there are no pictures in it")
    classes = None
    if not told:
        synsets = sorted({synset for _, _, synset in found if synset})
        told = {synset: number for number, synset in enumerate(synsets)}
        classes = tuple(synsets)
    members = tuple(
        Member(url, member.name, member.offset_data, member.size, _class(member.name, synset, told, url))
        for url, member, synset in found
    )
    return Index(members, classes or _names(told))


def labels_among(urls: Iterable[str]) -> str | None:
    """The file that tells the classes of the validation set: Caffe's ``val.txt``, or the development kit."""
    listed = list(urls)
    named = next((url for url in listed if url.rpartition("/")[2] == "val.txt"), None)
    return named or next((url for url in listed if devkit.is_devkit(url)), None)


def _content(archive: BinaryIO, member: Member) -> bytes:
    archive.seek(member.offset)
    data = archive.read(member.size)
    if len(data) < member.size:
        raise DataError(f"{member.url} is cut short: it ends within {member.name}")
    return data


def _all(url: str) -> list[tuple[tarfile.TarInfo, str]]:
    """(picture, synset) of everything in an archive and in those within it."""
    top = list(_members(url, 0))
    inner = [member for member in top if member.name.endswith(".tar")]

    def within(member: tarfile.TarInfo) -> list[tuple[tarfile.TarInfo, str]]:
        synset = PurePosixPath(member.name).stem
        return [
            (picture, synset) for picture in _members(url, member.offset_data) if is_picture(picture.name)
        ]

    loose = [(member, _synset(member.name)) for member in top if is_picture(member.name)]
    if not files.is_remote(url):
        return loose + [pair for member in inner for pair in within(member)]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return loose + [pair for pairs in pool.map(within, inner) for pair in pairs]


def _members(url: str, start: int, *, is_stream: bool = False) -> Iterator[tarfile.TarInfo]:
    """The files in the archive that begins at byte ``start``; what is in them is not read."""
    with files.opened(url, start=start, is_stream=is_stream) as content:
        try:
            with tarfile.open(fileobj=content, mode="r|" if is_stream else "r:") as archive:
                for member in archive:
                    archive.members.clear()  # type: ignore[attr-defined]  # or it would keep them all
                    if member.isfile():
                        yield member
        except (tarfile.TarError, EOFError) as error:
            raise DataError(f"{url} is cut short, or no tar archive: {error}") from None


def _class(name: str, synset: str, told: dict[str, int], url: str) -> int:
    path = PurePosixPath(name)
    for key in (path.name, path.stem, synset):
        if key in told:
            return told[key]
    raise DataError(
        f'{url}: {name} has no class: name a file of lines "name index" (labels), such as Caffe\'s val.txt, '
        "or ILSVRC2012_devkit_t12.tar.gz"
    )


def _synset(name: str) -> str:
    """The synset in the name of a picture or its folder; "" if there is none."""
    path = PurePosixPath(name)
    words = (path.name.split("_")[0], path.parent.name)
    return next((word for word in words if _SYNSET.match(word)), "")


def _labels(url: str) -> dict[str, int]:
    if devkit.is_devkit(url):
        return devkit.labels(url)
    told = {}
    for number, line in enumerate(files.read(url).decode(errors="replace").splitlines(), start=1):
        words = line.split(maxsplit=2)
        if not words:
            continue
        if len(words) < 2 or not words[1].isdigit():
            raise DataError(f'{url}:{number} is "{line}": a line is a name and the number of a class')
        told[PurePosixPath(words[0]).name] = int(words[1])
    return told


def _names(told: dict[str, int]) -> tuple[str, ...] | None:
    """The synsets by their numbers, if that is what was told."""
    synsets = {number: key for key, number in told.items() if _SYNSET.match(key)}
    return (
        tuple(synsets[k] for k in range(len(synsets)))
        if sorted(synsets) == list(range(len(synsets) or 1))
        else None
    )
