"""Arrays of HDF5 files, read with an eye on what a damaged file may say.

A dataset of a few bytes can declare terabytes. What it declares is compared with the length of the file
before there is memory for it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

DAMAGED = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError, MemoryError)
"""What h5py raises for damaged files, and what is raised where something else stands than expected."""

DEFLATE = 1032
"""How many times smaller deflate, the strongest of HDF5's own filters, can make an array."""


def checked(dataset: Any) -> Any:
    """The dataset. Raises ValueError if it is none, or declares more than the file can hold."""
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{dataset} is no dataset")
    present = Path(dataset.file.filename).stat().st_size
    possible = present * (DEFLATE if dataset.id.get_create_plist().get_nfilters() else 1)
    if dataset.nbytes > possible:
        raise ValueError(
            f"{dataset.name} declares {dataset.nbytes:,} bytes, and the whole file has {present:,}: "
            "the file is damaged"
        )
    return dataset


def values(dataset: Any) -> Any:
    """What a dataset holds. Raises ValueError as ``checked`` does."""
    return checked(dataset)[()]


def array(dataset: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The numbers of a dataset, as float32. Raises one of DAMAGED."""
    return np.asarray(values(dataset), np.float32)
