"""From what a user calls a model to what workers build: a Caffe solver, a module, or a function of one.

Before anything is sent anywhere, two records of zeros go through the net here: whether it takes the columns
that were chosen, and how many classes it tells apart, is known then.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from sparknet.caffe.net import Net
from sparknet.caffe.schema import (
    TRAIN,
    NetParameter,
    load_net,
    parse_net,
    parse_solver,
    read,
    replace_data_layers,
)
from sparknet.caffe_replica import CaffeModel, CaffeReplica
from sparknet.data.feed import TARGETS, Transforms, by_column, for_net
from sparknet.data.records import Column
from sparknet.errors import ModelError, UsageError
from sparknet.inference import scores_of
from sparknet.modules import call, first_of
from sparknet.objectives import LabelKind
from sparknet.torch_model import TorchModel

Model = str | Path | CaffeModel | nn.Module | Callable[[], nn.Module]
Schema = Mapping[str, Column]

# Layers whose second bottom are classes.
_OF_CLASSES = frozenset(
    {"SoftmaxWithLoss", "HingeLoss", "InfogainLoss", "MultinomialLogisticLoss", "Accuracy"}
)


@dataclass(frozen=True, kw_only=True)
class Threaded:
    """Builds the replica of ``model`` in a process that computes with ``threads`` threads; pickles."""

    model: CaffeModel
    threads: int

    def __call__(self) -> CaffeReplica:
        torch.set_num_threads(self.threads)
        return self.model()


def is_caffe(model: Any) -> bool:
    return isinstance(model, str | Path | CaffeModel)


def caffe_model(
    model: str | Path | CaffeModel,
    schema: Schema,
    *,
    batch_size: int,
    test_batch_size: int,
    precision: str = "float32",
) -> CaffeModel:
    """The solver in a file and its net, fed records of ``schema`` in place of its data layers.

    Raises ModelError naming the file that is missing or wrong.
    """
    if isinstance(model, CaffeModel):
        return model
    solver = parse_solver(_text(Path(model)), file=str(model))
    net = _net(solver, Path(model))
    inputs = [column for name, column in schema.items() if name not in TARGETS]
    if not _is_fed(net):
        shape = (*inputs[0].shape, 1, 1)[:3]
        net = replace_data_layers(net, batch_size, test_batch_size, *shape)
    return CaffeModel(net=net, solver=solver, precision=precision)


def _text(path: Path) -> str:
    if not path.is_file():
        raise ModelError(f"{path}: there is no such solver")
    return read(path)


def _net(solver: Any, path: Path) -> NetParameter:
    if solver.HasField("net_param"):
        net: NetParameter = solver.net_param
        return net
    if not solver.net:
        raise ModelError(f"{path}: name the net in the field net, or write it out in net_param")
    for file in (Path(solver.net), path.parent / Path(solver.net).name):
        if file.is_file():
            return parse_net(read(file), file=str(file))
    return load_net(solver.net)


def _is_fed(net: NetParameter) -> bool:
    """Whether the net has several inputs of its own, which are fed by their names."""
    tops = {top for layer in net.layer if layer.type == "Input" for top in layer.top}
    return len(tops) > 2


def frozen_caffe(model: CaffeModel, patterns: tuple[str, ...]) -> CaffeModel:
    """The same with learning rates of 0 in the layers of these names."""
    if not patterns:
        return model
    net = NetParameter()
    net.CopyFrom(model.net)
    blobs = {name: len(found) for name, found in Net(net, TRAIN).params.items()}
    for pattern in patterns:
        names = fnmatch.filter(blobs, pattern)
        if not names:
            raise UsageError(
                f"freeze: no layer with weights is named {pattern}; there are {', '.join(blobs)}"
            )
        for layer in (layer for layer in net.layer if layer.name in names):
            while len(layer.param) < blobs[layer.name]:
                layer.param.add()
            for spec in layer.param:
                spec.lr_mult = spec.decay_mult = 0
    return replace(model, net=net)


def with_nesterov(model: CaffeModel) -> CaffeModel:
    """The same, trained by Nesterov's momentum. Raises UsageError for a solver without momentum."""
    solver = type(model.solver)()
    solver.CopyFrom(model.solver)
    if solver.type not in ("SGD", "Nesterov") or not solver.momentum:
        raise UsageError(
            f"eamsgd is for solvers of type SGD or Nesterov with momentum; this one is {solver.type} with "
            f"momentum {solver.momentum:g}: choose easgd"
        )
    solver.type = "Nesterov"
    return replace(model, solver=solver)


def check_nesterov(model: TorchModel) -> None:
    """Raise UsageError unless its optimiser steps by Nesterov's momentum."""
    groups = model().optimizer.param_groups
    if not all(group.get("nesterov") for group in groups):
        raise UsageError(
            "eamsgd is for optimisers with Nesterov's momentum: optimizer=functools.partial(torch.optim.SGD, "
            "momentum=0.9, nesterov=True), or choose easgd"
        )


def is_sgd(model: CaffeModel | TorchModel) -> bool:
    """Whether steps are as long as the learning rate: those of Adam and its kin follow other rules."""
    if isinstance(model, CaffeModel):
        return model.solver.type in ("SGD", "Nesterov")
    return isinstance(model().optimizer, torch.optim.SGD)


@dataclass(frozen=True, kw_only=True)
class Probed:
    """``classes`` the net tells apart (0: not known); ``floats``: it takes whole numbers as float32."""

    classes: int = 0
    floats: bool = True


def label_kind(model: CaffeModel | TorchModel) -> LabelKind:
    """What its loss wants labels to be."""
    if isinstance(model, TorchModel):
        return model.objective.label_kind
    return "classes" if any(layer.type in _OF_CLASSES for layer in model.net.layer) else "numbers"


def probe(model: CaffeModel | TorchModel, schema: Schema, transforms: Transforms | None) -> Probed:
    """Let two records of zeros through the net. Raises ModelError if it does not take them."""
    if isinstance(model, TorchModel):
        return _probe_module(model, schema, transforms)
    net = replace(model, device="cpu")().test_net
    inputs = _zeros(schema, transforms)
    try:
        missing = dict.fromkeys((name for name in net.input_names if name not in inputs), torch.zeros(2))
        net.forward({**missing, **{name: x for name, x in inputs.items() if name in net.input_names}})
    except (RuntimeError, ModelError, ValueError) as error:
        raise _not_taken(schema, error) from error
    scores = net.blobs[scores_of(net)].data
    return Probed(classes=scores.shape[1] if scores.ndim > 1 else 0)


def _probe_module(model: TorchModel, schema: Schema, transforms: Transforms | None) -> Probed:
    module = model.build().eval()
    inputs = _zeros(schema, transforms)
    floats, whole = (
        {name: x.float() for name, x in inputs.items()},
        any(not x.is_floating_point() for x in inputs.values()),
    )
    with torch.no_grad():
        try:
            output, as_floats = first_of(call(module, floats)), True
        except Exception as error:  # whatever a module of the user's raises
            if not whole:
                raise _not_taken(schema, error) from error
            try:
                output, as_floats = first_of(call(module, inputs)), False
            except Exception as second:
                raise _not_taken(schema, second) from second
    _check_loss(model, schema, output)
    kind = label_kind(model)
    return Probed(classes=output.shape[1] if kind == "classes" and output.ndim > 1 else 0, floats=as_floats)


def _check_loss(model: TorchModel, schema: Schema, output: torch.Tensor) -> None:
    batch = {
        name: torch.from_numpy(schema[name].empty(len(output)))
        for name in ("label", "weight")
        if name in schema
    }
    try:
        model.objective(output, {"data": output, **batch})
    except UsageError:
        raise
    except Exception as error:
        label = f" and labels of {schema['label']}" if "label" in schema else ""
        raise ModelError(
            f"the loss cannot compare outputs of {tuple(output.shape[1:])}{label}: {_first_line(error)}"
        ) from error


def _zeros(schema: Schema, transforms: Transforms | None) -> dict[str, torch.Tensor]:
    found = by_column(transforms)
    return {
        name: for_net(found.get(name), torch.from_numpy(column.empty(2)), train=False)
        for name, column in schema.items()
        if name not in TARGETS
    }


def _not_taken(schema: Schema, error: Exception) -> ModelError:
    inputs = ", ".join(f"{name}: {column}" for name, column in schema.items() if name not in TARGETS)
    return ModelError(f"the net does not take its input ({inputs}): {_first_line(error)}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def vector_of(model: CaffeModel | TorchModel, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The weights a replica begins with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        replica = model()
    return np.array(replica.weights.detach().cpu().numpy())
