"""Nets and solvers run with named numpy arrays: SparkNet's ``CaffeNet`` and ``CaffeSolver``.

    net = CaffeNet(load_net_prototxt("cifar10_quick_train_test.prototxt"))
    outputs = net.forward({"data": images, "label": labels}, ["ip2"])
    net.set_weights(average([net.get_weights() for net in nets]))

What these run is made by ``definition``, or read from prototxt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sparknet.caffe.files import weights as weight_files
from sparknet.caffe.net import Net
from sparknet.caffe.schema.caffe_pb2 import TRAIN, NetParameter, SolverParameter
from sparknet.caffe.solver import Solver
from sparknet.errors import ModelError

Floats = NDArray[np.float32]
Inputs = Mapping[str, ArrayLike]
Weights = dict[str, list[Floats]]  # layer name -> its blobs


class CaffeNet:
    """A net that takes inputs by name, as anything that becomes a float32 array, and gives arrays.

    The batch size is that of the inputs. Raises ModelError for a net that cannot be, or inputs that do not
    fit it.
    """

    def __init__(self, net: NetParameter | Net, phase: int = TRAIN) -> None:
        self.net = net if isinstance(net, Net) else Net(net, phase)

    def forward(self, inputs: Inputs | None = None, blob_names: Iterable[str] = ()) -> dict[str, Floats]:
        """The outputs of the net and the blobs asked for, by name, as copies."""
        self.net.forward(tensors(inputs))
        names = [*self.net.outputs, *blob_names]
        for name in names:
            if name not in self.net.blobs:
                raise ModelError(f'the net has no blob "{name}": it has {", ".join(self.net.blobs)}')
        return {name: _array(self.net.blobs[name].data) for name in names}

    def forward_backward(self, inputs: Inputs | None = None) -> float:
        """Put the gradient of these inputs into the net's diffs, and give their loss; the weights stay."""
        self.net.clear_diffs()
        self.net.forward(tensors(inputs))
        self.net.backward()
        return float(self.net.loss)

    def get_weights(self) -> Weights:
        """A copy of every layer's weights."""
        return {name: [_array(blob.data) for blob in blobs] for name, blobs in self.net.params.items()}

    def set_weights(self, weights: Mapping[str, Iterable[ArrayLike]]) -> None:
        """Take these weights; layers that are not named keep theirs. Raises ModelError if a shape differs."""
        for name, given in weights.items():
            if name not in self.net.params:
                raise ModelError(f'the net has no layer "{name}" with weights')
            blobs, arrays = self.net.params[name], [np.asarray(array, np.float32) for array in given]
            mine, theirs = [tuple(b.shape) for b in blobs], [array.shape for array in arrays]
            if mine != theirs:
                raise ModelError(f'the weights of layer "{name}" are {mine}, not {theirs}')
            for blob, array in zip(blobs, arrays, strict=True):
                blob.data.copy_(torch.from_numpy(np.ascontiguousarray(array)))

    def save(self, path: str | Path) -> None:
        """Write the weights as ``.caffemodel``, or as HDF5 if the name ends in ``.h5``."""
        weight_files.save(self.net, path)

    def load(self, path: str | Path) -> None:
        """Take the weights of a file, layer by layer of the same name."""
        weight_files.load(self.net, path)


class CaffeSolver:
    """A solver that is fed with named arrays; ``net`` is the net it trains. It tests nothing by itself."""

    def __init__(self, solver: SolverParameter | Solver) -> None:
        self.solver = solver if isinstance(solver, Solver) else Solver.for_param(_without_tests(solver))
        self.net = CaffeNet(self.solver.net)

    def step(self, inputs: Inputs | None = None) -> float:
        """One update with these inputs (``iter_size`` times over); gives their loss."""
        batch = tensors(inputs)
        return float(self.solver.step(1, feed=(lambda: batch) if batch else None))

    @property
    def iter(self) -> int:
        """The number of updates made."""
        return self.solver.iter

    def get_weights(self) -> Weights:
        """A copy of every layer's weights."""
        return self.net.get_weights()

    def set_weights(self, weights: Mapping[str, Iterable[ArrayLike]]) -> None:
        """Take these weights, as ``CaffeNet.set_weights``; the history stays."""
        self.net.set_weights(weights)

    def save(self, path: str | Path) -> None:
        """Write the weights, as ``CaffeNet.save``."""
        self.net.save(path)

    def load(self, path: str | Path) -> None:
        """Take the weights of a file, as ``CaffeNet.load``."""
        self.net.load(path)


def _without_tests(solver: SolverParameter) -> SolverParameter:
    """Test nets would read inputs that nobody has set."""
    training = SolverParameter()
    training.CopyFrom(solver)
    for field in ("test_iter", "test_interval", "test_net", "test_net_param", "test_state"):
        training.ClearField(field)
    return training


def tensors(inputs: Mapping[str, Any] | None) -> dict[str, torch.Tensor]:
    """Arrays as contiguous float32 tensors, sharing memory where they already are."""
    arrays = {name: np.ascontiguousarray(value, np.float32) for name, value in (inputs or {}).items()}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _array(tensor: torch.Tensor) -> Floats:
    return np.array(tensor.detach().cpu().numpy(), dtype=np.float32)
