"""A blob as pycaffe shows it: ``data`` and ``diff`` are writable numpy arrays that follow the net.

What a net has learned, and its inputs, are shown as they lie in memory. A top of any other layer is another
tensor after each pass, perhaps one that belongs to someone else, and the tensors of a GPU are no numpy
memory at all: of these an array is a copy. What was written to it is taken over before the net runs, and as
long as the caller keeps it, what the net has computed is copied back after.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sparknet.caffe.blob import Blob as CoreBlob
from sparknet.caffe.legacy_axes import LegacyAxes

Floats = NDArray[np.float32]


class Blob(LegacyAxes):
    """A view of a net's blob. It stays valid when the net is gone."""

    def __init__(self, core: CoreBlob, held: HeldArrays | None = None) -> None:
        self._core = core
        self._held = HeldArrays() if held is None else held

    def __repr__(self) -> str:
        return f"Blob({self._core.name!r}, {self.shape})"

    @property
    def core(self) -> CoreBlob:
        """The net's own blob."""
        return self._core

    @property
    def data(self) -> Floats:
        """The values, in Caffe's axis order."""
        return self._held.array(self._core, "data")

    @property
    def diff(self) -> Floats:
        """The gradient, of the shape of the data."""
        return self._held.array(self._core, "diff")

    @property
    def shape(self) -> tuple[int, ...]:
        return self._core.shape

    @property
    def count(self) -> int:
        """Number of elements."""
        return self._core.count

    def reshape(self, *shape: int) -> None:
        """Give the blob another shape; layers after it follow when the net runs, or by ``Net.reshape``."""
        self._core.reshape(*(int(size) for size in shape))


class HeldArrays:
    """The arrays of one net that were handed out.

    Views are those of the data of ``plain`` blobs and of the diffs of ``plain_diffs``; all without ``plain``.
    """

    def __init__(self, plain: Iterable[CoreBlob] | None = None, plain_diffs: Iterable[CoreBlob] = ()) -> None:
        self._views = None if plain is None else {("data", id(blob)) for blob in plain}
        if self._views is not None:
            self._views |= {("diff", id(blob)) for blob in plain_diffs}
        self._copies: list[tuple[CoreBlob, str, weakref.ref[Floats]]] = []
        self._unread: list[Floats] = []  # copies since the last run, kept for what was written to them

    def array(self, blob: CoreBlob, kind: str) -> Floats:
        """The array of ``blob.data`` or ``blob.diff``, the same one while it is held."""
        tensor = _tensor(blob, kind)
        if tensor.device.type == "cpu" and (self._views is None or (kind, id(blob)) in self._views):
            return _as_array(tensor)
        for owner, what, array in self._living():
            if owner is blob and what == kind and array.shape == tuple(tensor.shape):
                return array
        array = _as_array(tensor).copy()
        self._copies.append((blob, kind, weakref.ref(array)))
        self._unread.append(array)
        return array

    def push(self) -> None:
        """Let the blobs have what was written to the copies."""
        for blob, kind, array in self._living():
            tensor = _tensor(blob, kind)
            if array.shape == tuple(tensor.shape):
                tensor.copy_(torch.from_numpy(array))
        self._unread.clear()

    def pull(self) -> None:
        """Let the copies have what the net has computed; those of another shape are left as they are."""
        for blob, kind, array in self._living():
            tensor = _tensor(blob, kind)
            if array.shape == tuple(tensor.shape):
                np.copyto(array, _as_array(tensor))

    def _living(self) -> Iterator[tuple[CoreBlob, str, Floats]]:
        self._copies = [entry for entry in self._copies if entry[2]() is not None]
        for blob, kind, reference in self._copies:
            array = reference()
            if array is not None:
                yield blob, kind, array


class BlobVec(list[Blob]):
    """The blobs of a layer, in order; a Python layer adds those it wants to learn in its ``setup``."""

    def add_blob(self, *shape: int) -> None:
        """Append a blob of zeros."""
        self.append(Blob(CoreBlob(str(len(self)), tuple(int(size) for size in shape))))


def _tensor(blob: CoreBlob, kind: str) -> torch.Tensor:
    tensor: Any = blob.data if kind == "data" else blob.diff
    return torch.as_tensor(tensor)


def _as_array(tensor: torch.Tensor) -> Floats:
    array: Floats = tensor.detach().float().cpu().numpy()
    return array
