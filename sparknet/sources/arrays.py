"""CIFAR-10, CIFAR-100 and MNIST as their authors publish them: files of arrays, some of whose rows a part
reads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

from sparknet.data import cifar10, cifar100, mnist
from sparknet.data.dataset import Examples
from sparknet.data.decoding import Order
from sparknet.errors import DataError
from sparknet.sources import files
from sparknet.sources.files import File, FileState, joined
from sparknet.sources.pictures import Sample

Format = Literal["cifar-binary", "cifar-python", "cifar100-binary", "cifar100-python", "mnist"]

_READERS: Mapping[Format, Callable[[Path], Examples]] = {
    "cifar-binary": cifar10.read_binary,
    "cifar-python": cifar10.read_python,
    "cifar100-binary": cifar100.read_binary,
    "cifar100-python": cifar100.read_python,
}
_RECORD_BYTES: Mapping[Format, int] = {
    "cifar-binary": cifar10.RECORD_BYTES,
    "cifar100-binary": cifar100.RECORD_BYTES,
}


class ArrayFile(NamedTuple):
    """A file with pictures (and, for MNIST, the one with their labels); ``records`` of them."""

    urls: tuple[str, ...]
    records: int


@dataclass(frozen=True)
class ArrayPart:
    """Rows ``start`` to ``stop`` of some files, one after the other."""

    kind: Format
    files: tuple[ArrayFile, ...]
    start: int
    stop: int

    def __iter__(self) -> Iterator[Sample]:
        order: Order | None = None if self.kind == "mnist" else "rgb"
        begin = 0
        for file in self.files:
            first, last = max(self.start - begin, 0), min(self.stop - begin, file.records)
            if first < last:
                examples = _examples(self.kind, file.urls)
                for row in range(first, last):
                    key = f"{begin + row:08d}"
                    name = f"{file.urls[0]} record {row}"
                    yield Sample(name, key, examples.images[row], int(examples.labels[row]), order)
            begin += file.records


@dataclass(frozen=True, eq=False)
class ArraySamples:
    """All rows of the files, one after the other."""

    is_sequential: ClassVar[bool] = False

    kind: Format
    files: tuple[ArrayFile, ...]

    def __len__(self) -> int:
        return sum(file.records for file in self.files)

    def part(self, which: slice) -> ArrayPart:
        ends = list(accumulate(file.records for file in self.files))
        begins = [0, *ends[:-1]]
        wanted = [k for k in range(len(ends)) if begins[k] < which.stop and which.start < ends[k]]
        if not wanted:
            return ArrayPart(self.kind, (), 0, 0)
        shift = begins[wanted[0]]
        some = tuple(self.files[k] for k in wanted)
        return ArrayPart(self.kind, some, which.start - shift, which.stop - shift)


def cifar_at(url: str, split: str) -> ArraySamples | None:
    """CIFAR-10 or CIFAR-100 in a folder, or a batch in a file; None if there is none.

    Raises DataError for files that are damaged.
    """
    found = {file.name: file for file in files.listing(url)}
    names = cifar10.BATCHES if split == "train" else (cifar10.TEST_BATCH,)
    kinds: tuple[tuple[Format, str], ...] = (("cifar-binary", ".bin"), ("cifar-python", ""))
    for kind, ending in kinds:
        if any(f"{name}{ending}" in found for name in (*cifar10.BATCHES, cifar10.TEST_BATCH)):
            batches = [f"{name}{ending}" for name in names]
            return _cifar(kind, [found[name].url if name in found else joined(url, name) for name in batches])
    layouts: tuple[tuple[Format, str, set[str]], ...] = (
        ("cifar100-binary", f"{split}.bin", {"train.bin", "test.bin"}),
        ("cifar100-python", split, {"train", "test", "meta"}),
    )
    for kind, name, all_of_it in layouts:
        if all_of_it <= found.keys():
            return _cifar(kind, [found[name].url])
    return _single(list(found.values()))


def _single(found: Sequence[File]) -> ArraySamples | None:
    """A batch by itself: which set it is of shows in its size."""
    if len(found) != 1 or not found[0].name.endswith(".bin") or not found[0].size:
        return None
    fitting = [kind for kind, size in _RECORD_BYTES.items() if not found[0].size % size]
    return _cifar(fitting[0], [found[0].url]) if fitting else None


def mnist_at(url: str, split: str) -> ArraySamples | None:
    """MNIST's idx files in a folder, plain or gzipped; None if there are none.

    Raises DataError for files that are damaged, or if only one of the two is there.
    """
    found = {file.name.removesuffix(".gz"): file.url for file in files.listing(url)}
    if not any(name in found for name in mnist.FILES):
        return None
    train = (mnist.TRAIN_IMAGES, mnist.TRAIN_LABELS)
    names = train if split == "train" else (mnist.TEST_IMAGES, mnist.TEST_LABELS)
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"{joined(url, missing[0])} is missing, plain or .gz")
    urls = tuple(found[name] for name in names)
    return ArraySamples("mnist", (ArrayFile(urls, len(_examples("mnist", urls))),))


def _cifar(kind: Format, urls: Sequence[str]) -> ArraySamples:
    found = tuple(ArrayFile((url,), _cifar_records(kind, url)) for url in urls)
    return ArraySamples(kind, found)


def _cifar_records(kind: Format, url: str) -> int:
    if kind in _RECORD_BYTES:
        whole, rest = divmod(files.size_of(url), _RECORD_BYTES[kind])
        if whole and not rest:
            return whole
    return len(_examples(kind, (url,)))


def _examples(kind: Format, urls: tuple[str, ...]) -> Examples:
    return _read(kind, tuple(files.state_of(files.local_copy(url)) for url in urls))


@lru_cache(maxsize=2)
def _read(kind: Format, states: tuple[FileState, ...]) -> Examples:
    """The records of a file: the next part of it that is read here finds them in memory."""
    paths = [Path(path) for path, *_ in states]
    if kind == "mnist":
        return mnist.read(paths[0], paths[1])
    return _READERS[kind](paths[0])
