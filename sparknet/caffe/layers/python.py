"""Python: a layer that the user has written, found by ``module`` and ``layer``, with pycaffe's methods.

    class Loss(caffe.Layer):
        def setup(self, bottom, top): ...              # once; self.param_str is the prototxt's
        def reshape(self, bottom, top): ...            # top[0].reshape(1)
        def forward(self, bottom, top): ...            # top[0].data[...] = f(bottom[0].data)
        def backward(self, top, propagate_down, bottom): ...   # bottom[0].diff[...] = ...

Blobs are numpy arrays here, float32, as in pycaffe. Parameters are made in ``setup``:
``self.blobs.add_blob(3, 4)``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparknet.caffe.layers.layer import Arity, Gradients, Layer, Shapes, Tensors
from sparknet.errors import ModelError
from sparknet.weights import Shape

Array = NDArray[np.float32]


class ArrayBlob:
    """A blob as a Python layer sees it: numpy arrays ``data`` and ``diff`` of one shape."""

    def __init__(self, shape: Sequence[int] = ()) -> None:
        self.data: Array = np.zeros(tuple(shape), np.float32)
        self.diff: Array = np.zeros(tuple(shape), np.float32)

    def reshape(self, *shape: int) -> None:
        """Take this shape; the data is kept if the shape stays."""
        if tuple(shape) != self.data.shape:
            self.data, self.diff = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def count(self) -> int:
        return self.data.size

    @property
    def num(self) -> int:
        return self._legacy(0)

    @property
    def channels(self) -> int:
        return self._legacy(1)

    @property
    def height(self) -> int:
        return self._legacy(2)

    @property
    def width(self) -> int:
        return self._legacy(3)

    def _legacy(self, axis: int) -> int:
        return self.data.shape[axis] if axis < self.data.ndim else 1


class ParameterBlobs:
    """The ``self.blobs`` of a Python layer: in ``setup`` it grows, afterwards its arrays are the net's."""

    def __init__(self) -> None:
        self._blobs: list[ArrayBlob] = []

    def add_blob(self, *shape: int) -> None:
        """Declare a parameter of ``shape``, 0 until ``setup`` fills its ``data``."""
        self._blobs.append(ArrayBlob(shape))

    def __len__(self) -> int:
        return len(self._blobs)

    def __getitem__(self, index: int) -> ArrayBlob:
        return self._blobs[index]

    def __iter__(self) -> Iterator[ArrayBlob]:
        return iter(self._blobs)


class PythonLayer:
    """Base of a user's layer: ``caffe.Layer`` of pycaffe."""

    param_str: str = ""
    phase: int = 0

    def __init__(self) -> None:
        self.blobs = ParameterBlobs()

    def setup(self, bottom: list[ArrayBlob], top: list[ArrayBlob]) -> None:
        """Read ``param_str``, check the number of bottoms and tops."""

    def reshape(self, bottom: list[ArrayBlob], top: list[ArrayBlob]) -> None:
        """Give the tops their shapes, from those of the bottoms."""

    def forward(self, bottom: list[ArrayBlob], top: list[ArrayBlob]) -> None:
        """Fill ``top[i].data``."""
        raise NotImplementedError

    def backward(self, top: list[ArrayBlob], propagate_down: list[bool], bottom: list[ArrayBlob]) -> None:
        """Fill ``bottom[i].diff`` where ``propagate_down[i]``; add to the diffs of ``self.blobs``."""
        raise NotImplementedError


class Python(Layer):
    """Runs a ``PythonLayer``."""

    type = "Python"
    messages = ("python_param", "loss_param", "transform_param")
    hints: ClassVar[Mapping[str, str]] = {
        "share_in_parallel": "each worker has its own net",
        "loss_param, transform_param": "the layer's own code reads what it needs from param_str",
    }
    bottom_arity = top_arity = Arity(least=0, most=None)

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.python_param
        self.user = self._user_class(p.module, p.layer)()
        if not hasattr(self.user, "blobs"):
            self.user.blobs = ParameterBlobs()
        self.user.param_str, self.user.phase = p.param_str, self.phase
        self.user.param_str_ = p.param_str  # its name in older pycaffe
        self.bottom = [ArrayBlob(shape) for shape in bottoms]
        self.top = [ArrayBlob() for _ in range(self.tops_named)]
        self.user.setup(self.bottom, self.top)
        for blob in self.user.blobs:
            self.declare(blob.shape)

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        for blob, shape in zip(self.bottom, bottoms, strict=True):
            blob.reshape(*shape)
        self.user.reshape(self.bottom, self.top)
        return [blob.shape for blob in self.top]

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        self._attach_parameters()
        for blob, tensor in zip(self.bottom, bottoms, strict=True):
            blob.data = _array(tensor)
            if blob.diff.shape != blob.data.shape:
                blob.diff = np.zeros(blob.data.shape, np.float32)
        for blob in self.top:  # its own memory, so that what was returned before stays as it was
            blob.data = blob.data.copy()
        self.user.reshape(self.bottom, self.top)
        self.user.forward(self.bottom, self.top)
        return [torch.from_numpy(np.asarray(blob.data, np.float32)).to(self.device) for blob in self.top]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        self._attach_parameters()
        for blob, diff in zip(self.top, top_diffs, strict=True):
            blob.diff = _array(diff)
        for blob in self.bottom:
            blob.diff = np.zeros(blob.data.shape, np.float32)
        self.user.backward(self.top, list(propagate_down), self.bottom)
        if self.device.type != "cpu":
            for parameter, mine in zip(self.blobs, self.user.blobs, strict=True):
                parameter.diff.copy_(torch.from_numpy(mine.diff))
        return [
            torch.from_numpy(np.asarray(blob.diff, np.float32)).to(self.device) if want else None
            for blob, want in zip(self.bottom, propagate_down, strict=True)
        ]

    def _attach_parameters(self) -> None:
        """Let the user's parameters be the net's memory, once what ``setup`` put into them is there."""
        for mine, blob in zip(self.user.blobs, self.blobs, strict=True):
            if not getattr(mine, "is_attached", False):
                blob.data.copy_(torch.from_numpy(mine.data))
                mine.is_attached = True
            mine.data, mine.diff = _array(blob.data), _array(blob.diff)

    def _user_class(self, module: str, name: str) -> Any:
        try:
            found = getattr(importlib.import_module(module), name)
        except ImportError as error:
            raise self.error(
                f'cannot import module "{module}": {error}; is its folder in PYTHONPATH?'
            ) from None
        except AttributeError:
            raise self.error(f'module "{module}" has no layer "{name}"') from None
        if not isinstance(found, type):
            raise ModelError(f'{self}: "{module}.{name}" is not a class')
        return found


def _array(tensor: Tensor) -> Array:
    """The tensor's memory as a numpy array, or a copy of what lies on another device."""
    array: Array = tensor.detach().cpu().numpy()
    return array
