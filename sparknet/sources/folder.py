"""Pictures in a folder: one folder a class, or named in a CSV file or a list of Caffe's with their labels.

    photos/cat/1.jpg              photos/train/cat/1.jpg       photos/labels.csv     file,label
    photos/dog/2.jpg              photos/val/cat/7.jpg         photos/a.png          a.png,cat

By class, the classes are the folders' names in alphabetical order, and pictures come folder by folder, by
name. With a CSV (or a list of lines "path number", as of Caffe's convert_imageset) they come in its order.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from sparknet.errors import DataError
from sparknet.sources import files
from sparknet.sources.files import File, is_remote, joined
from sparknet.sources.pictures import Sample

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
SPLITS = {"train": ("train", "training"), "test": ("val", "test", "valid", "validation", "testing")}

_PATHS = ("file", "filename", "file_name", "path", "filepath", "image", "image_path", "name", "id")
_LABELS = ("label", "labels", "class", "category", "target", "y", "label_name", "class_name")
_AT_ONCE = 16  # requests at a time for pictures that lie elsewhere

Label = int | float | None


@dataclass(frozen=True)
class FolderSamples:
    """Pictures at ``paths`` below ``root``; ``labels`` are as many, or none."""

    is_sequential: ClassVar[bool] = False

    root: str
    paths: tuple[str, ...]
    labels: tuple[Label, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def part(self, which: slice) -> FolderSamples:
        return FolderSamples(self.root, self.paths[which], self.labels[which])

    def __iter__(self) -> Iterator[Sample]:
        urls = [joined(self.root, path) for path in self.paths]
        contents = _all_of(urls) if is_remote(self.root) else map(files.read, urls)
        for url, path, label, data in zip(urls, self.paths, self.labels, contents, strict=True):
            yield Sample(url, path, data, label)


@dataclass(frozen=True)
class Found:
    """What a folder has: pictures, and what their labels mean."""

    samples: FolderSamples
    classes: tuple[str, ...] | None


def by_class(root: str, split: str, names: Sequence[File] | None = None) -> Found:
    """The pictures of a folder by class; of its half for ``split`` if it has a half for training and one for
    testing. Without folders in it the pictures have no labels.

    Raises DataError if there is no picture, or some lie in no class.
    """
    found = files.listing(root) if names is None else names
    paths = [file.url[len(root.rstrip("/")) + 1 :] for file in found if is_picture(file.url)]
    half = _half(paths, split)
    if half:
        every = sorted({path.split("/")[1] for path in paths if path.count("/") > 1})
        root, paths = joined(root, half), [p[len(half) + 1 :] for p in paths if p.startswith(f"{half}/")]
    else:
        every = sorted({path.split("/")[0] for path in paths if "/" in path})
    if not paths:
        raise DataError(f"{root} has no pictures in it ({', '.join(EXTENSIONS)})")
    if not every:
        return Found(FolderSamples(root, tuple(paths), (None,) * len(paths)), None)
    loose = next((path for path in paths if "/" not in path), None)
    if loose is not None:
        raise DataError(
            f"{joined(root, loose)} lies in no folder of a class, and others do: move it, or name the "
            "labels in a CSV file (labels=)"
        )
    places = {name: number for number, name in enumerate(every)}
    labels = tuple(places[path.split("/")[0]] for path in paths)
    return Found(FolderSamples(root, tuple(paths), labels), tuple(every))


def by_list(root: str, list_url: str) -> Found:
    """The pictures that a CSV file, or a list of Caffe's, names, relative to ``root``.

    A label is a whole number, a number, or else the name of a class; classes are numbered by their names in
    alphabetical order. Raises DataError for lines that are none, naming them.
    """
    text = files.read(list_url).decode("utf-8-sig", errors="replace")
    lines = _csv(text, list_url) if list_url.lower().endswith(".csv") else _pairs(text, list_url)
    if not lines:
        raise DataError(f"{list_url} names no pictures")
    paths, words = zip(*lines, strict=True)
    labels, classes = numbered(words)
    return Found(FolderSamples(root, paths, labels), classes)


def numbered(words: Sequence[str]) -> tuple[tuple[Label, ...], tuple[str, ...] | None]:
    """Labels as they are written: all of them whole numbers, all numbers, or else names of classes."""
    for kind in (int, float):
        try:
            return tuple(kind(word) for word in words), None
        except ValueError:
            continue
    classes = tuple(sorted(set(words)))
    places = {name: number for number, name in enumerate(classes)}
    return tuple(places[word] for word in words), classes


def is_picture(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _half(paths: Sequence[str], split: str) -> str:
    """The folder of ``split``, if there is one, and one for the other half as well."""
    tops = {path.split("/")[0] for path in paths if path.count("/") > 1}
    halves = {name: next((top for top in SPLITS[name] if top in tops), "") for name in SPLITS}
    return halves[split] if all(halves.values()) else ""


def _csv(text: str, url: str) -> list[tuple[str, str]]:
    rows = [(number, row) for number, row in enumerate(csv.reader(text.splitlines()), start=1) if row]
    head = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    path = next((head.index(name) for name in _PATHS if name in head), None)
    label = next((head.index(name) for name in _LABELS if name in head), None)
    if path is not None and label is not None:
        rows = rows[1:]
    else:
        path, label = 0, 1
    for number, row in rows:
        if len(row) <= max(path, label) or not row[path].strip() or not row[label].strip():
            raise DataError(f'{url}:{number} is "{",".join(row)}": a line is a path and a label')
    return [(row[path].strip(), row[label].strip()) for _, row in rows]


def _pairs(text: str, url: str) -> list[tuple[str, str]]:
    lines = []
    for number, line in enumerate(text.splitlines(), start=1):
        path, _, label = line.strip().rpartition(" ")
        if path:
            lines.append((path.strip(), label))
        elif line.strip():
            raise DataError(f'{url}:{number} is "{line}": a line is a path and a number')
    return lines


def _all_of(urls: Sequence[str]) -> Iterator[bytes]:
    """The contents, in order, some of them asked for at the same time."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        waiting = iter(urls)
        asked: list[Future[bytes]] = [pool.submit(files.read, url) for url in islice(waiting, _AT_ONCE)]
        try:
            while asked:
                yield asked.pop(0).result()
                asked.extend(pool.submit(files.read, url) for url in islice(waiting, 1))
        finally:
            for future in asked:
                future.cancel()
