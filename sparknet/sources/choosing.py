"""Some of a source's pictures, in the order that is wanted: a part that is held out, or all of them
shuffled."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sparknet.errors import DataError
from sparknet.sources.pictures import PictureSource, Sample, Samples
from sparknet.sources.source import Source

Places = NDArray[np.int64]
"""Which pictures, counted from 0, in the order in which they come."""


@dataclass(frozen=True)
class ChosenPart:
    """Pictures of ``parts``, one part after the other; of each only those of ``wanted``, if it is given."""

    parts: tuple[Iterable[Sample], ...]
    wanted: frozenset[int] | None = None

    def __iter__(self) -> Iterator[Sample]:
        for part in self.parts:
            if self.wanted is None:
                yield from part
            else:
                yield from (sample for place, sample in enumerate(part) if place in self.wanted)


@dataclass(frozen=True, eq=False)
class Chosen:
    """The pictures of ``samples`` at ``places``; of files that are read front to back these must go up."""

    is_sequential: ClassVar[bool] = True  # it has been put in the order that is wanted

    samples: Samples
    places: Places

    def __len__(self) -> int:
        return len(self.places)

    def part(self, which: slice) -> ChosenPart:
        places = self.places[which]
        if not len(places):
            return ChosenPart(())
        if self.samples.is_sequential:
            first, last = int(places[0]), int(places[-1])
            wanted = frozenset((places - first).tolist())
            return ChosenPart((self.samples.part(slice(first, last + 1)),), wanted)
        return ChosenPart(tuple(self.samples.part(run) for run in _runs(places)))


def held_out(source: Source, share: float = 0.1) -> tuple[PictureSource, PictureSource]:
    """(those to train on, those to test on): of these one of every 1 / ``share``, from all over the
    source."""
    samples = _pictures(source).samples
    every = round(1 / share)
    is_out = np.arange(len(samples)) % every == every - 1
    return _chosen(source, np.flatnonzero(~is_out)), _chosen(source, np.flatnonzero(is_out))


def limited(source: Source, most: int) -> PictureSource:
    """At most so many of its pictures: from all over it, or the first where it is read from front to back."""
    pictures = _pictures(source)
    count = len(pictures.samples)
    if count <= most:
        return pictures
    is_sequential = pictures.samples.is_sequential and not isinstance(pictures.samples, Chosen)
    return _chosen(source, np.arange(most) if is_sequential else np.arange(most) * count // most)


def shuffled(source: Source, seed: int) -> PictureSource:
    """Its pictures in an order of the seed, where they can be read in any; else as they are.

    Files that are read from front to back, tar shards and Parquet, are shuffled when they are written.
    """
    pictures = _pictures(source)
    samples = pictures.samples
    if isinstance(samples, Chosen) and not samples.samples.is_sequential:
        order = np.random.default_rng(seed).permutation(samples.places)
        return replace(pictures, samples=Chosen(samples.samples, order))
    if samples.is_sequential:
        return pictures
    return _chosen(source, np.random.default_rng(seed).permutation(len(samples)))


def _chosen(source: Source, places: Places) -> PictureSource:
    pictures = _pictures(source)
    samples = pictures.samples
    if isinstance(samples, Chosen):
        return replace(pictures, samples=Chosen(samples.samples, samples.places[places]))
    return replace(pictures, samples=Chosen(samples, places))


def _pictures(source: Source) -> PictureSource:
    if not isinstance(source, PictureSource):
        raise DataError(f"{source.name}: these are no labelled pictures")
    return source


def _runs(places: Places) -> Iterator[slice]:
    """The places as slices of neighbours."""
    breaks = np.flatnonzero(np.diff(places) != 1) + 1
    for first, last in pairwise([0, *breaks.tolist(), len(places)]):
        yield slice(int(places[first]), int(places[last - 1]) + 1)
