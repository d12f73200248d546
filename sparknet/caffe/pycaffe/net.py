"""pycaffe's ``Net``: a net whose blobs are numpy arrays, run as a whole or from one layer to another.

    net = caffe.Net("deploy.prototxt", caffe.TEST, weights="net.caffemodel")
    net.blobs["data"].data[...] = images
    probabilities = net.forward()["prob"]

Source: ``python/caffe/_caffe.cpp`` and ``pycaffe.py`` of BVLC Caffe, whose interface this is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sparknet.caffe.files import weights as weight_files
from sparknet.caffe.layers.source import MemoryData
from sparknet.caffe.net import Net as CoreNet
from sparknet.caffe.pycaffe import mode
from sparknet.caffe.pycaffe.blob import Floats
from sparknet.caffe.pycaffe.net_view import Callback, NetView
from sparknet.errors import ModelError

Array = NDArray[Any]


class PycaffeError(ModelError, RuntimeError):
    """What pycaffe raises as a RuntimeError: a missing file, arrays that do not fit."""


class UnknownLayerError(ModelError, ValueError):
    """What pycaffe raises as a ValueError: a layer that the net does not have."""


class Net(NetView):
    """The net of a prototxt file in a phase, its weights filled or read from ``weights``.

    The old order ``Net(file, weights, phase)`` is taken too. It computes where ``set_mode_cpu`` or
    ``set_mode_gpu`` said when it was made. Raises PycaffeError (a RuntimeError) if a file is missing,
    ModelError if it is unfit.
    """

    def __init__(
        self,
        network_file: str | Path,
        phase: int | str | Path,
        level: int = 0,
        stages: Sequence[str] | None = None,
        weights: str | Path | None = None,
    ) -> None:
        if not isinstance(phase, int):  # the old order: level stands where the phase does
            weights, phase, level = phase, level, 0
        for path in (network_file, *([weights] if weights else [])):
            _check_readable(path)
        self._wrap(CoreNet.for_file(network_file, phase, level, stages or (), device=mode.device()))
        if weights:
            self.copy_from(weights)

    @classmethod
    def of(cls, core: CoreNet) -> Net:
        """A view of a net that exists already."""
        net = cls.__new__(cls)
        net._wrap(core)
        return net

    # ---- running

    def forward(
        self,
        blobs: Iterable[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **inputs: Array,
    ) -> dict[str, Floats]:
        """Run the layers from ``start`` to ``end`` (names, both run); by default all.

        ``inputs``, if given, are all inputs by name, of the batch size of the net. Gives the outputs of the
        net, or the tops of ``end``, and the ``blobs`` asked for.
        """
        first, last = self._range(start, end)
        names = {*(self.top_names[end] if end else self.outputs), *(blobs or ())}
        if inputs:
            self._fill(inputs, self.inputs, "data", "Input blob arguments do not match net inputs.")
        self._forward(first, last)
        return {name: self._blobs[name].data for name in names}

    def backward(
        self,
        diffs: Iterable[str] | None = None,
        start: str | None = None,
        end: str | None = None,
        **top_diffs: Array,
    ) -> dict[str, Floats]:
        """Run the layers backward from ``start`` down to ``end`` (names, both run); by default all.

        ``top_diffs``, if given, are the gradients of all outputs by name. Gives the gradients of the inputs,
        or of the bottoms of ``end``, and of the blobs that ``diffs`` names. Gradients of parameters add up.
        """
        last, first = self._range(end, start)
        names = {*(self.bottom_names[end] if end else self.inputs), *(diffs or ())}
        if top_diffs:
            self._fill(top_diffs, self.outputs, "diff", "Top diff arguments do not match net outputs.")
        self._backward(first, last)
        return {name: self._blobs[name].diff for name in names}

    def forward_all(self, blobs: Iterable[str] | None = None, **inputs: Array) -> dict[str, Floats]:
        """As ``forward``, for any number of records: in batches, the last one filled up with zeros."""
        asked = list(blobs or ())
        collected: dict[str, list[Floats]] = {name: [] for name in {*self.outputs, *asked}}
        for batch in self._batch(inputs):
            for name, values in self.forward(asked, None, None, **batch).items():
                collected[name].extend(values.copy())
        return {name: np.asarray(rows[: _count(inputs)]) for name, rows in collected.items()}

    def forward_backward_all(
        self, blobs: Iterable[str] | None = None, diffs: Iterable[str] | None = None, **arrays: Array
    ) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """As ``forward`` and ``backward``, for any number of inputs and gradients of outputs by name."""
        asked, asked_diffs = list(blobs or ()), list(diffs or ())
        outs: dict[str, list[Floats]] = {name: [] for name in {*self.outputs, *asked}}
        gradients: dict[str, list[Floats]] = {name: [] for name in {*self.inputs, *asked_diffs}}
        forward = self._batch({name: arrays[name] for name in self.inputs if name in arrays})
        backward = self._batch({name: arrays[name] for name in self.outputs if name in arrays})
        nothing: dict[str, Array] = {}
        for inputs, top_diffs in zip_longest(forward, backward, fillvalue=nothing):
            for name, values in self.forward(asked, None, None, **inputs).items():
                outs[name].extend(values.copy())
            for name, values in self.backward(asked_diffs, None, None, **top_diffs).items():
                gradients[name].extend(values.copy())
        count = _count(arrays)
        return (
            {name: np.asarray(rows[:count]) for name, rows in outs.items()},
            {name: np.asarray(rows[:count]) for name, rows in gradients.items()},
        )

    def reshape(self) -> None:
        """Let the shapes of the inputs run through the net."""
        self._core.reshape()

    def clear_param_diffs(self) -> None:
        """Set the gradients of the learned blobs to 0."""
        self._core.clear_diffs()

    def set_input_arrays(self, data: Array, labels: Array) -> None:
        """Let the MemoryData layer, which must be the first, read from these arrays.

        float32 ``(N, C, H, W)`` and ``(N,)`` or ``(N, 1, 1, 1)``; ``N`` is a multiple of its batch size.
        """
        layer = self._core.layers[0]
        if not isinstance(layer, MemoryData):
            raise PycaffeError("set_input_arrays may only be called if the first layer is a MemoryDataLayer")
        for name, array in (("data", data), ("labels", labels)):
            if array.dtype != np.float32 or not array.flags.c_contiguous:
                raise PycaffeError(f"{name} array must be float32 and C contiguous")
        try:
            layer.reset(torch.from_numpy(data), torch.from_numpy(labels))
        except ModelError as error:
            raise PycaffeError(str(error)) from error

    def before_forward(self, callback: Callback) -> None:
        """Call ``callback(layer number)`` before each layer's forward pass."""
        self._before_forward.append(callback)

    def after_forward(self, callback: Callback) -> None:
        """Call ``callback(layer number)`` after each layer's forward pass."""
        self._after_forward.append(callback)

    def before_backward(self, callback: Callback) -> None:
        """Call ``callback(layer number)`` before each layer's backward pass."""
        self._before_backward.append(callback)

    def after_backward(self, callback: Callback) -> None:
        """Call ``callback(layer number)`` after each layer's backward pass."""
        self._after_backward.append(callback)

    # ---- weights

    def share_with(self, other: Net) -> None:
        """Use the weights of ``other`` in layers of the same name."""
        self._core.share_with(other._core)

    def copy_from(self, path: str | Path) -> None:
        """Copy the weights of a file into layers of the same name."""
        _check_readable(path)
        weight_files.load(self._core, path)
        self._held.pull()

    def save(self, path: str | Path) -> None:
        """Write the net and its weights as ``.caffemodel``, as HDF5 if the name ends in ``.h5``."""
        self._held.push()
        weight_files.save(self._core, path)

    def save_hdf5(self, path: str | Path, write_diff: bool = False) -> None:
        """Write the weights, and the gradients if ``write_diff``, as HDF5 whatever the name."""
        self._held.push()
        weight_files.save(self._core, path, with_diffs=write_diff, hdf5=True)

    def load_hdf5(self, path: str | Path) -> None:
        """Copy the weights of an HDF5 file into layers of the same name."""
        self.copy_from(path)

    # ---- parts

    def _forward(self, first: int, last: int) -> float:
        """Run layers by number; their part of the loss."""
        return self._run(first, last, 1, self._core.forward_range, self._before_forward, self._after_forward)

    def _backward(self, first: int, last: int) -> None:
        for node in self._core.nodes[last : first + 1]:
            if node.flow.runs and node.layer.saved is None and not node.is_fed:
                node.layer.forward([blob.data for blob in node.bottoms])  # backward without a forward pass
        self._run(first, last, -1, self._core.backward_range, self._before_backward, self._after_backward)

    def _run(
        self,
        first: int,
        last: int,
        step: int,
        run: Callable[[int, int], torch.Tensor | None],
        before: Sequence[Callback],
        after: Sequence[Callback],
    ) -> float:
        """All layers at once if there are no callbacks."""
        self._held.push()
        loss = 0.0
        whole = [(first, last)]
        ranges = whole if not before and not after else [(i, i) for i in range(first, last + step, step)]
        for begin, end in ranges:
            for callback in before:
                callback(begin)
            part = run(begin, end)
            self._held.pull()
            loss += 0.0 if part is None else float(part)
            for callback in after:
                callback(begin)
                self._held.push()
        return loss

    def _range(self, start: str | None, end: str | None) -> tuple[int, int]:
        names = self._layer_names
        for name in (start, end):
            if name is not None and name not in names:
                try:
                    self._core.layer(name)  # raises, naming the nearest
                except ModelError as error:
                    raise UnknownLayerError(str(error)) from None
        return names.index(start) if start else 0, names.index(end) if end else len(names) - 1

    def _fill(self, arrays: Mapping[str, Array], expected: Sequence[str], kind: str, complaint: str) -> None:
        if set(arrays) != set(expected):
            raise PycaffeError(f"{complaint} {sorted(arrays)} are given, {sorted(expected)} are there.")
        blobs = self.blobs
        for name, array in arrays.items():
            if len(array) != blobs[name].num:
                what = "Input" if kind == "data" else "Diff"
                raise PycaffeError(f"{what} is not batch sized: {len(array)} for {blobs[name].num}")
            getattr(blobs[name], kind)[...] = array

    def _batch(self, arrays: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        """The arrays in pieces of the batch size, the last one filled up with zeros."""
        size = next(iter(self.blobs.values())).num
        for start in range(0, _count(arrays), size):
            yield {
                name: _padded(np.asarray(array[start : start + size]), size) for name, array in arrays.items()
            }


def _padded(rows: Array, size: int) -> Array:
    missing = size - len(rows)
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)]) if missing else rows


def _count(arrays: Mapping[str, Array]) -> int:
    return len(next(iter(arrays.values()))) if arrays else 0


def _check_readable(path: str | Path) -> None:
    if not Path(path).is_file():
        raise PycaffeError(f"Could not open file {path}")
