"""HDF5 in one file, as ``train.h5``: written in parts beside it, which a killed run goes on with, and joined.

train.h5.parts/     part-000000.h5, ... and sparknet.json, until all are there
train.h5            datasets ``data`` and ``label``; the attribute ``sparknet`` says what it was made from
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from sparknet.caffe.files.hdf5 import DAMAGED
from sparknet.errors import DataError, UsageError
from sparknet.sources import files, hdf5, manifest
from sparknet.sources.manifest import Manifest

# An attribute of HDF5 has no room for more.
_MOST_BYTES = 60_000


def is_one_file(url: str) -> bool:
    return url.rstrip("/").lower().endswith(hdf5.ENDINGS)


def parts_of(url: str) -> str:
    """The folder with the parts of the file."""
    return f"{url}.parts"


def written_before(url: str, settings: Mapping[str, Any], *, overwrite: bool) -> Manifest | None:
    """What is told of the file, if it was made with these settings; None if there is no file yet.

    Raises UsageError for a file that is not on this machine, DataError for one of something else.
    """
    if files.is_remote(url):
        raise UsageError(f"{url}: one HDF5 file is written on a disk of this machine; a folder can go there")
    if overwrite or not files.exists(url):
        return None
    told = hdf5.told_in(url)
    if told is None or dict(told.settings) != dict(settings):
        raise DataError(f"{url} is there already: choose another place, or overwrite it")
    return told


def join(url: str) -> None:
    """Make the file of its parts, whole or not at all, and remove these. Raises DataError."""
    import h5py

    folder = parts_of(url)
    told = manifest.read(folder)
    assert told is not None, "the parts are complete"
    target = Path(files.local_copy(url))
    partial = target.with_name(f".{target.name}.partial")
    try:
        with h5py.File(partial, "w") as whole:
            _fill(whole, list(hdf5.files_at(folder)), told.records)
            text = json.dumps(asdict(replace(told, shards={})))
            if len(text) <= _MOST_BYTES:
                whole.attrs[manifest.ATTRIBUTE] = text
        partial.replace(target)
    except DAMAGED as error:
        raise DataError(f"{url} cannot be written: {error}") from None
    finally:
        partial.unlink(missing_ok=True)
    files.remove_folder(folder)


def _fill(whole: Any, parts: list[str], records: int) -> None:
    import h5py

    done = 0
    for part in parts:
        with h5py.File(part, "r") as file:
            for name, rows in file.items():
                if name not in whole:
                    whole.create_dataset(name, (records, *rows.shape[1:]), rows.dtype)
                    whole[name].attrs.update(rows.attrs)
                if rows.shape[1:] != whole[name].shape[1:]:
                    raise DataError(f"{part} has pictures of another size than others: give a size")
                whole[name][done : done + len(rows)] = rows[()]
            done += len(file["data"])
