"""What is in a database, or any other source: how many records, of which shape, with which labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sparknet.sources import files, hdf5, manifest
from sparknet.sources.source import Source

FIRST_LABELS = 10_000
"""So many labels are counted."""


@dataclass(frozen=True, kw_only=True)
class Info:
    """``columns`` are described; ``labels`` counts those of the first records; ``is_complete`` is false
    where a run was killed."""

    name: str
    columns: Mapping[str, str]
    classes: tuple[str, ...] | None
    labels: Mapping[int, int]
    looked_at: int
    is_complete: bool = True
    left_out: int = 0


def info(source: Source, url: str) -> Info:
    """Raises DataError for a source that is damaged where it is looked at."""
    labels: dict[int, int] = {}
    looked_at = 0
    for block in source.parts(1)[0].blocks():
        looked_at += len(next(iter(block.values())))
        found = block.get("label")
        if found is not None and found.ndim == 1 and found.dtype == np.int64:
            for label, count in zip(*np.unique(found, return_counts=True), strict=True):
                labels[int(label)] = labels.get(int(label), 0) + int(count)
        if looked_at >= FIRST_LABELS:
            break
    is_folder = not files.has_braces(url) and files.kind_of(url) == "folder"
    told = manifest.read(url) if is_folder else hdf5.told_in(url)
    return Info(
        name=source.name,
        columns={name: str(column) for name, column in source.schema.items()},
        classes=source.classes,
        labels=dict(sorted(labels.items())),
        looked_at=looked_at,
        is_complete=told is None or told.is_complete,
        left_out=told.left_out if told else 0,
    )
