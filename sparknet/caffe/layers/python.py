"""Python: a layer that the user has written, found by ``module`` and ``layer``, with pycaffe's methods.

    class Loss(caffe.Layer):
        def setup(self, bottom, top): ...              # once; self.param_str is the prototxt's
        def reshape(self, bottom, top): ...            # top[0].reshape(1)
        def forward(self, bottom, top): ...            # top[0].data[...] = f(bottom[0].data)
        def backward(self, top, propagate_down, bottom): ...   # bottom[0].diff[...] = ...

Blobs are numpy arrays here, float32. The base class is ``caffe.Layer``; any class with these methods, a
constructor that takes the LayerParameter, and ``blobs``, a ``BlobVec``, will do. The module may say
``import caffe``, as those written for pycaffe do: it gets ``sparknet.caffe``.

A net with such a layer runs the code of the module it names as soon as it is built. Look at both before you
build a net that came from elsewhere.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparknet.caffe.layer import Arity, Gradients, Layer, Shapes, Tensors
from sparknet.caffe.legacy_axes import LegacyAxes
from sparknet.caffe.pycaffe.alias import install
from sparknet.caffe.pycaffe.blob import Blob, BlobVec, HeldArrays
from sparknet.weights import Shape

Array = NDArray[np.float32]
_METHODS = ("setup", "reshape", "forward", "backward")


class ArrayBlob(LegacyAxes):
    """A blob as a Python layer sees it: numpy arrays ``data`` and ``diff`` of one shape."""

    def __init__(self, shape: Sequence[int] = ()) -> None:
        self.data: Array = np.zeros(tuple(shape), np.float32)
        self.diff: Array = np.zeros(tuple(shape), np.float32)

    def hold(self, data: Array) -> None:
        """Take ``data`` itself, not a copy."""
        self.data = data
        if self.diff.shape != data.shape:
            self.diff = np.zeros(data.shape, np.float32)

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


class Python(Layer):
    """Runs a class of the user's, made with the LayerParameter."""

    type = "Python"
    messages = ("python_param", "loss_param", "transform_param")
    hints: ClassVar[Mapping[str, str]] = {
        "share_in_parallel": "each worker has its own net",
        "loss_param, transform_param": "the layer's own code reads what it needs",
    }
    bottom_arity = top_arity = Arity(least=0, most=None)

    def configure(self, bottoms: Shapes) -> None:
        p = self.param.python_param
        self.user = self._user_class(p.module, p.layer)(self.param)
        self.held = HeldArrays()
        self.bottom = [ArrayBlob(shape) for shape in bottoms]
        self.top = [ArrayBlob() for _ in range(self.tops_named)]
        self.user.setup(self.bottom, self.top)
        for blob in self.user.blobs:
            self.declare(blob.shape, values=torch.from_numpy(blob.data.copy()))

    def top_shapes(self, bottoms: Shapes) -> list[Shape]:
        for blob, shape in zip(self.bottom, bottoms, strict=True):
            blob.reshape(*shape)
        self.user.reshape(self.bottom, self.top)
        return [blob.shape for blob in self.top]

    def forward(self, bottoms: Tensors) -> list[Tensor]:
        self.attach_parameters()
        for blob, tensor in zip(self.bottom, bottoms, strict=True):
            blob.hold(_array(tensor))
        for blob in self.top:  # memory of its own, so that tops made before stay as they were
            blob.hold(blob.data.copy())
        self.user.reshape(self.bottom, self.top)
        self.user.forward(self.bottom, self.top)
        self.held.push()
        return [self._tensor(blob.data) for blob in self.top]

    def backward(self, top_diffs: Tensors, propagate_down: Sequence[bool]) -> Gradients:
        self.attach_parameters()
        for blob, diff in zip(self.top, top_diffs, strict=True):
            blob.diff = _array(diff)
        for blob in self.bottom:
            blob.diff = np.zeros(blob.shape, np.float32)
        self.user.backward(self.top, list(propagate_down), self.bottom)
        self.held.push()
        wanted = zip(self.bottom, propagate_down, strict=True)
        return [self._tensor(blob.diff) if want else None for blob, want in wanted]

    def attach_parameters(self) -> None:
        """Let the user's parameters be the net's, as they are now."""
        mine = [blob.core for blob in self.user.blobs]
        if any(a is not b for a, b in zip(mine, self.blobs, strict=True)):
            self.user.blobs = BlobVec(Blob(blob, self.held) for blob in self.blobs)
        self.held.pull()

    def _tensor(self, array: Array) -> Tensor:
        return torch.from_numpy(np.asarray(array, np.float32)).to(self.device)

    def _user_class(self, module: str, name: str) -> Any:
        install()
        try:
            found = getattr(importlib.import_module(module), name)
        except ImportError as error:
            raise self.error(
                f'cannot import module "{module}": {error}; is its folder in PYTHONPATH?'
            ) from None
        except SyntaxError as error:
            raise self.error(
                f'cannot import module "{module}": {error.filename}:{error.lineno}: {error.msg}; '
                "is it written for Python 2?"
            ) from None
        except (ValueError, TypeError):  # importlib's words for a name that is empty or begins with a dot
            raise self.error(f'"{module}" is no name of a module') from None
        except AttributeError:
            raise self.error(f'module "{module}" has no layer "{name}"') from None
        if not isinstance(found, type) or any(not hasattr(found, method) for method in _METHODS):
            raise self.error(f'"{name}" of module "{module}" is no class with {", ".join(_METHODS)}')
        return found


def _array(tensor: Tensor) -> Array:
    """The tensor's memory as a numpy array, or a copy of what lies on another device."""
    array: Array = tensor.detach().cpu().numpy()
    return array
