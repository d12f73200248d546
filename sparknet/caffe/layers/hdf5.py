"""HDF5Data and HDF5Output: arrays read from, and written to, HDF5 files.

Source: ``hdf5_data_layer.cpp`` and ``hdf5_output_layer.cpp`` of BVLC Caffe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from sparknet.caffe.files.hdf5 import DAMAGED, array
from sparknet.caffe.layer import NONE, Arity, Gradients, Layer, Shapes, Tensors
from sparknet.caffe.layers.lists import words
from sparknet.caffe.layers.source import SourceLayer
from sparknet.errors import DataError
from sparknet.weights import Shape


class HDF5Data(SourceLayer):
    """Each top is the dataset of its name; ``batch_size`` rows at a time, file after file, over and over.

    ``source`` is a text file of file names. With ``shuffle`` the files, and the rows within each, come in a
    new order each time.
    """

    type = "HDF5Data"
    messages = ("hdf5_data_param",)
    refused: ClassVar[Mapping[str, str]] = {
        "transform_param": "its data are not transformed: transform the files"
    }

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.hdf5_data_param
        if p.batch_size < 1:
            raise self.error("batch_size must be given and positive")
        names = words(p.source, self)
        if not names:
            raise DataError(f"{self}: {p.source} names no files")
        self.files = names
        self.order: list[int] = []
        self._open_next()

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        batch = self.param.hdf5_data_param.batch_size
        return [(batch, *array.shape[1:]) for array in self.arrays]

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        parts: list[list[Tensor]] = [[] for _ in self.arrays]
        missing = self.param.hdf5_data_param.batch_size
        while missing:
            if self.position == len(self.rows):
                self._open_next()
            rows = self.rows[self.position : self.position + missing]
            for part, column in zip(parts, self.arrays, strict=True):
                part.append(column[rows])
            self.position += len(rows)
            missing -= len(rows)
        return [torch.cat(part).to(self.device) for part in parts]

    def _open_next(self) -> None:
        shuffle = self.param.hdf5_data_param.shuffle
        if not self.order:
            count = len(self.files)
            self.order = torch.randperm(count).tolist() if shuffle else list(range(count))
        self.arrays = self._read(self.files[self.order.pop(0)])
        count = len(self.arrays[0])
        self.rows = torch.randperm(count) if shuffle else torch.arange(count)
        self.position = 0

    def _read(self, name: str) -> list[Tensor]:
        import h5py

        try:
            with h5py.File(name, "r") as file:
                missing = [top for top in self.param.top if top not in file]
                if missing:
                    raise DataError(
                        f"{self}: {name} has no dataset {', '.join(missing)}; it has {', '.join(file)}"
                    )
                arrays = [torch.from_numpy(array(file[top])) for top in self.param.top]
        except DAMAGED as error:
            raise DataError(f"{self}: cannot read {name} as HDF5: {error}") from None
        if any(array.dim() == 0 or len(array) != len(arrays[0]) for array in arrays) or not len(arrays[0]):
            shapes = [tuple(array.shape) for array in arrays]
            raise DataError(f"{self}: the datasets of {name} differ in rows, or have none: {shapes}")
        return arrays


class HDF5Output(Layer):
    """Writes two bottoms as datasets ``data`` and ``label``; every forward adds its rows."""

    type = "HDF5Output"
    messages = ("hdf5_output_param",)
    bottom_arity = Arity(least=2, most=2)
    top_arity = NONE

    def configure(self, bottoms: Shapes) -> None:
        self.path = Path(self.param.hdf5_output_param.file_name)
        if not self.param.hdf5_output_param.file_name:
            raise self.error("needs file_name")
        self.has_begun = False

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        if tuple(bottoms[0][:1]) != tuple(bottoms[1][:1]):
            raise self.error(f"bottoms of shapes {tuple(bottoms[0])} and {tuple(bottoms[1])} differ in rows")
        return []

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        import h5py

        try:
            with h5py.File(self.path, "a" if self.has_begun else "w") as file:
                for name, bottom in zip(("data", "label"), bottoms, strict=True):
                    rows = bottom.cpu().numpy()
                    if not self.has_begun:
                        file.create_dataset(name, data=rows, maxshape=(None, *rows.shape[1:]))
                        continue
                    file[name].resize(len(file[name]) + len(rows), 0)
                    file[name][-len(rows) :] = rows
        except OSError as error:
            raise DataError(f"{self}: cannot write {self.path}: {error}") from None
        self.has_begun = True
        return []

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        return [None, None]
