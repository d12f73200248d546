"""Arrays of HDF5 files, read with an eye on what a damaged file may say.

A dataset of a few bytes can declare terabytes. What it declares is compared with the length of the file
before there is memory for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparknet.caffe.size_check import excess

DAMAGED = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError, MemoryError)
"""What h5py raises for damaged files, and what is raised where something else stands than expected."""

UNSTORED = 1 << 26
"""Bytes that a dataset may declare of which none were written, and which are all its fill value."""

DEFLATE = 1032
"""How many times smaller deflate, the strongest of HDF5's own filters, can make an array."""


def checked(dataset: Any) -> Any:
    """The dataset. Raises ValueError if it is none, or declares more than the file can hold."""
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{dataset} is no dataset")
    present = Path(dataset.file.filename).stat().st_size
    stored = min(present, dataset.id.get_storage_size())
    possible = stored * (DEFLATE if dataset.id.get_create_plist().get_nfilters() else 1)
    if dataset.nbytes > max(possible, UNSTORED):
        raise ValueError(
            f"{dataset.name} declares {dataset.nbytes:,} bytes, and the whole file has {present:,}: "
            "the file is damaged"
        )
    return dataset


def values(dataset: Any) -> Any:
    """What a dataset holds. Raises ValueError as ``checked`` does, or if there is no memory for so much."""
    count = checked(dataset).nbytes
    if too_large := excess([(count // 2,)], torch.device("cpu")):  # of 4 bytes: it is there twice
        raise ValueError(f"{dataset.name} holds {count:,} bytes: it needs {too_large}")
    return dataset[()]


def array(dataset: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The numbers of a dataset, as float32. Raises one of DAMAGED."""
    return np.asarray(values(dataset), np.float32)
