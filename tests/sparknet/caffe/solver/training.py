"""Solvers of the oracle, on nets fed with the rows that Caffe read from its HDF5 file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import numpy as np
import torch

from sparknet.caffe.schema import load_net, load_solver, replace_data_layers
from sparknet.caffe.solver import Solver
from sparknet.caffe.solver.scores import Feed

BATCH = 16


def solver_of(path: Path) -> Solver:
    """The solver of a prototxt beside its net, whose data layer is replaced by inputs."""
    param = load_solver(path)
    net = path.parent.parent / "solver" / param.net
    param.ClearField("net")
    param.net_param.CopyFrom(replace_data_layers(load_net(net), BATCH, BATCH, 2, 8, 8))
    return Solver.for_param(param, file=path)


def batches(path: Path, start: int = 0) -> Feed:
    """The rows in order, 16 at a time, wrapping round; from the batch number ``start`` on."""
    with np.load(path) as rows:
        data, label = torch.from_numpy(rows["data"]), torch.from_numpy(rows["label"])
    numbers = count(start)

    def feed() -> Mapping[str, torch.Tensor]:
        chosen = (torch.arange(BATCH) + next(numbers) * BATCH) % len(data)
        return {"data": data[chosen], "label": label[chosen]}

    return feed


def set_weights(solver: Solver, file: Mapping[str, np.ndarray], moment: str) -> None:
    """Take the weights that Caffe had at ``moment``."""
    for name, blobs in solver.net.params.items():
        for index, blob in enumerate(blobs):
            blob.data.copy_(torch.from_numpy(file[f"{moment}/{name}/{index}"]))


def distance(solver: Solver, file: Mapping[str, np.ndarray], moment: str) -> float:
    """The largest difference between a weight here and Caffe's at ``moment``.

    It is absolute, but relative to the largest number of a blob of statistics, whose sums grow beyond 1.
    """
    largest = 0.0
    for name, blobs in solver.net.params.items():
        for index, blob in enumerate(blobs):
            caffe = torch.from_numpy(file[f"{moment}/{name}/{index}"])
            size = 1.0 if blob.lr_mult else max(1.0, float(caffe.abs().max()))
            largest = max(largest, float((blob.data - caffe).abs().max()) / size)
    return largest


def losses_of(solver: Solver) -> list[float]:
    """A list that receives the blob ``loss`` of every forward pass from now on, without its loss_weight."""
    losses: list[float] = []
    forward = solver.net.forward

    def recording(inputs: Mapping[str, torch.Tensor] | None = None) -> dict[str, torch.Tensor]:
        outputs = forward(inputs)
        losses.append(float(outputs["loss"]))
        return outputs

    solver.net.forward = recording  # type: ignore[method-assign]
    return losses


def moments(file: Mapping[str, np.ndarray]) -> Iterator[int]:
    """The iterations at which Caffe's weights were kept, in order."""
    names = {key.split("/")[0] for key in file}
    yield from sorted(int(name.removeprefix("iter")) for name in names if name.startswith("iter"))
