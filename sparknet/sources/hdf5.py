"""HDF5 files, as Caffe's HDF5Data layer reads them: datasets of equally many rows, ``data`` and ``label``
by habit.

Several files lie in one folder, or are named in a text file of paths, and are read in this order. ``data`` is
given as the column ``image``. Colours are as they are stored: the attribute ``order`` of the dataset,
which this program writes, says how.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from sparknet.caffe.files.hdf5 import DAMAGED, checked
from sparknet.data.decoding import Order
from sparknet.data.records import Column
from sparknet.data.shards import contiguous
from sparknet.errors import DataError
from sparknet.sources import files, manifest
from sparknet.sources.files import joined
from sparknet.sources.manifest import Manifest
from sparknet.sources.pictures import Sample
from sparknet.sources.rows import Rows, cut
from sparknet.sources.source import Block, Part, records_of_a_block

ENDINGS = (".h5", ".hdf5")
IMAGE, LABEL, CAFFES_IMAGE = "image", "label", "data"


@dataclass(frozen=True)
class Hdf5Part:
    """Neighbouring rows; ``datasets`` maps a column to the dataset's name in the files."""

    rows: tuple[Rows, ...]
    datasets: Mapping[str, str]
    schema: Mapping[str, Column]

    def blocks(self) -> Iterator[Block]:
        """Raises DataError for files that differ, and for labels that are no whole numbers after all."""
        step = records_of_a_block(self.schema)
        for rows in self.rows:
            with _reading(rows.url) as file:
                for start in range(rows.start, rows.stop, step):
                    stop = min(start + step, rows.stop)
                    yield {name: self._values(file, name, start, stop) for name in self.schema}

    def _values(self, file: Any, name: str, start: int, stop: int) -> NDArray[Any]:
        column, dataset = self.schema[name], checked(file[self.datasets[name]])
        found: NDArray[Any] = dataset[start:stop].reshape(stop - start, *dataset.shape[1:])
        if name == LABEL and found.ndim == 2 and found.shape[1] == 1:
            found = found[:, 0]
        values = found.astype(column.dtype, copy=False)
        if values.shape[1:] != column.shape or (column.dtype.kind == "i" and (values != found).any()):
            raise DataError(f"{file.filename}: rows {start} to {stop} of {dataset.name} are not {column}")
        return values


@dataclass(frozen=True)
class Hdf5Pictures:
    """The rows of a part as samples."""

    part: Hdf5Part
    order: Order | None

    def __iter__(self) -> Iterator[Sample]:
        names = (f"{rows.url} row {row}" for rows in self.part.rows for row in range(rows.start, rows.stop))
        for block in self.part.blocks():
            labels = block.get(LABEL)
            for k, picture in enumerate(block[IMAGE]):
                name = next(names)
                label = None if labels is None else labels[k].item()
                yield Sample(name, name.rpartition("/")[2].replace(" row ", "-"), picture, label, self.order)


@dataclass(frozen=True, eq=False)
class Hdf5Source:
    """A ``Source`` of all datasets that have as many rows as the first; and ``Samples``, where they are
    pictures.

    ``columns`` maps names to datasets; by default each has its own, and ``data`` is ``image``.
    """

    is_sequential: ClassVar[bool] = False

    name: str
    urls: tuple[str, ...]
    columns: Mapping[str, str] | None = None
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return sum(map(len, self._rows))

    def parts(self, count: int) -> Sequence[Part]:
        return [self._part(which) for which in contiguous(len(self), count)]

    def part(self, which: slice) -> Hdf5Pictures:
        return Hdf5Pictures(self._part(which), self.order)

    @property
    def holds_pictures(self) -> bool:
        """Whether it is labelled pictures and nothing else."""
        schema = self.schema
        image, label = schema.get(IMAGE), schema.get(LABEL, Column(np.dtype(np.int64)))
        is_picture = image is not None and len(image.shape) == 3 and image.dtype in (np.uint8, np.float32)
        return is_picture and label.shape == () and schema.keys() <= {IMAGE, LABEL}

    @cached_property
    def schema(self) -> Mapping[str, Column]:
        """Of the first file: labels that are whole numbers are int64, doubles float32."""
        with _reading(self.urls[0]) as file:
            return {name: _column(file, name, dataset) for name, dataset in self._datasets.items()}

    @cached_property
    def order(self) -> Order | None:
        """Of the colours, where the file says it."""
        with _reading(self.urls[0]) as file:
            said = file[self._datasets[IMAGE]].attrs.get("order") if IMAGE in self._datasets else None
            return said if said in ("rgb", "bgr") else None

    def _part(self, which: slice) -> Hdf5Part:
        return Hdf5Part(cut(self._rows, which), self._datasets, self.schema)

    @cached_property
    def _datasets(self) -> dict[str, str]:
        with _reading(self.urls[0]) as file:
            import h5py

            there = [name for name, item in file.items() if isinstance(item, h5py.Dataset) and item.shape]
            if self.columns is not None:
                missing = sorted(set(self.columns.values()) - set(there))
                if missing:
                    raise DataError(
                        f"{self.urls[0]} has no dataset {missing[0]}; it has {', '.join(there) or 'none'}"
                    )
                return dict(self.columns)
            if not there:
                raise DataError(f"{self.urls[0]} has no datasets in it")
            rows = len(file[CAFFES_IMAGE if CAFFES_IMAGE in there else there[0]])
            renamed = CAFFES_IMAGE in there and IMAGE not in there
            names = {IMAGE if renamed and name == CAFFES_IMAGE else name: name for name in there}
            return {name: dataset for name, dataset in names.items() if len(file[dataset]) == rows}

    @cached_property
    def _rows(self) -> list[Rows]:
        found = []
        for url in self.urls:
            with _reading(url) as file:
                lengths = {len(checked(file[dataset])) for dataset in self._datasets.values()}
            if len(lengths) > 1:
                raise DataError(f"{url}: its datasets differ in rows: {sorted(lengths)}")
            found.append(Rows(url, 0, lengths.pop()))
        return found


def told_in(url: str) -> Manifest | None:
    """What this program has told of the records in a file that it wrote. Raises DataError."""
    if not url.endswith(ENDINGS) or files.has_braces(url):
        return None
    with _reading(url) as file:
        text = file.attrs.get(manifest.ATTRIBUTE)
    return manifest.parsed(text, url) if text else None


def files_at(url: str) -> tuple[str, ...]:
    """The HDF5 files of a folder, a list of paths, or the one file. Raises DataError for an empty list."""
    if url.endswith(ENDINGS) and files.kind_of(url) == "file":
        return (url,)
    if url.endswith(".txt"):
        folder = url.rpartition("/")[0]
        lines = files.read(url).decode(errors="replace").split()
        return tuple(
            line if line.startswith("/") or files.is_remote(line) else _beside(folder, line) for line in lines
        )
    return tuple(file.url for file in files.listing(url) if file.url.endswith(ENDINGS))


def _beside(folder: str, line: str) -> str:
    """Caffe takes paths of a list from where it runs; those that are not there, from where the list is."""
    return line if files.exists(line) or not folder else joined(folder, line)


def _column(file: Any, name: str, dataset: str) -> Column:
    values = checked(file[dataset])
    shape = tuple(values.shape[1:])
    if name == LABEL:
        shape = () if shape == (1,) else shape
        whole = values.dtype.kind in "iub" or (shape == () and _are_whole(values[()]))
        return Column(np.dtype(np.int64 if whole else np.float32), shape)
    if values.dtype.kind not in "iufb":
        raise DataError(f"{file.filename}: the dataset {dataset} is {values.dtype}, not numbers")
    return Column(np.dtype(np.float32) if values.dtype.kind == "f" else values.dtype, shape)


def _are_whole(values: NDArray[Any]) -> bool:
    return bool(np.isfinite(values).all() and (values == np.floor(values)).all())


@contextmanager
def _reading(url: str) -> Iterator[Any]:
    import h5py

    path = files.local_copy(url)
    try:
        with h5py.File(path, "r") as file:
            yield file
    except DAMAGED as error:
        raise DataError(f"cannot read {url} as HDF5: {error}") from None
