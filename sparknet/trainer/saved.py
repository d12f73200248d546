"""A trained net in files, and back: the same predictions, bit for bit, in another process.

    saved.json                       what the net reads and tells apart; versions of what made it
    weights.f32                      float32, little endian
    net.prototxt, solver.prototxt    of a Caffe net
    module.pickle                    of a torch module, by cloudpickle: code of a notebook comes along

A module is loaded by running what is in the file: load those alone whose maker is trusted, as with
``torch.load``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from google.protobuf import text_format
from pyspark import cloudpickle

from sparknet.caffe.schema import parse_net, parse_solver
from sparknet.caffe_replica import CaffeModel
from sparknet.data import Transform
from sparknet.data.feed import Transforms, by_column
from sparknet.data.records import Column
from sparknet.errors import ModelError
from sparknet.storage import storage
from sparknet.torch_model import TorchModel
from sparknet.trainer.trained import Trained

_FORMAT = 1
_FACTS, _WEIGHTS, _MODULE = "saved.json", "weights.f32", "module.pickle"
_NET, _SOLVER = "net.prototxt", "solver.prototxt"
_FOLDER = "trained"


def save(trained: Trained, folder: str) -> None:
    """Write ``trained`` into ``folder``, a path or an fsspec URL. Raises ModelError if that cannot be."""
    try:
        storage(folder, last=_FACTS).publish(_FOLDER, contents(trained).items())
    except OSError as error:
        raise ModelError(f"{folder}: the net could not be saved: {error}") from error


def load(folder: str) -> Trained:
    """What ``save`` wrote. Raises ModelError for anything else."""
    place = storage(folder, last=_FACTS)
    try:
        return restored(lambda name: place.read(_FOLDER, name))
    except (OSError, KeyError, ValueError) as error:
        raise ModelError(f"{folder} holds no trained net: {error}") from error


def contents(trained: Trained) -> dict[str, bytes]:
    """The files, by name; the facts are the last."""
    model = trained.model
    files = {_WEIGHTS: np.ascontiguousarray(trained.weights, "<f4").tobytes()}
    if isinstance(model, CaffeModel):
        files[_NET] = text_format.MessageToString(model.net).encode()
        files[_SOLVER] = text_format.MessageToString(model.solver).encode()
    else:
        files[_MODULE] = cloudpickle.dumps(model.module)  # type: ignore[no-untyped-call]
    facts = {
        "format": _FORMAT,
        "kind": "caffe" if isinstance(model, CaffeModel) else "torch",
        "torch": torch.__version__,
        "features": _plain(trained.features),
        "schema": {name: [str(column.dtype), column.shape] for name, column in trained.schema.items()},
        "transforms": {name: _described(each) for name, each in by_column(trained.transforms).items()},
        "labels": trained.kind,
        "names": trained.names,
        "best_round": trained.best_round,
    }
    return {**files, _FACTS: json.dumps(facts, sort_keys=True).encode()}


def restored(read: Callable[[str], bytes]) -> Trained:
    """What ``contents`` wrote, each file read by its name. Raises ModelError for another format."""
    facts = json.loads(read(_FACTS))
    if facts["format"] != _FORMAT:
        raise ModelError(f"{_FACTS} has format {facts['format']}, this program reads {_FORMAT}")
    return Trained(
        model=_caffe(read) if facts["kind"] == "caffe" else TorchModel(module=_module(read)),
        weights=np.frombuffer(read(_WEIGHTS), "<f4").astype(np.float32),
        features=facts["features"],
        schema={
            name: Column(np.dtype(kind), tuple(shape)) for name, (kind, shape) in facts["schema"].items()
        },
        transforms=_transforms(facts["transforms"]),
        kind=facts["labels"],
        names=tuple(facts["names"]),
        best_round=facts["best_round"],
    )


def _caffe(read: Callable[[str], bytes]) -> CaffeModel:
    return CaffeModel(net=parse_net(read(_NET).decode()), solver=parse_solver(read(_SOLVER).decode()))


def _module(read: Callable[[str], bytes]) -> Any:
    try:
        return cloudpickle.loads(read(_MODULE))
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"the net's own code is not here: {error}. Put it on the path, and load again"
        ) from error


def _plain(features: Any) -> Any:
    if isinstance(features, str):
        return features
    if isinstance(features, Mapping):
        return {name: _plain(columns) for name, columns in features.items()}
    return list(features)


def _described(transform: Transform) -> dict[str, Any]:
    mean = None if transform.mean is None else [transform.mean.shape, transform.mean.tobytes().hex()]
    return {"mean": mean, "scale": transform.scale, "crop": transform.crop, "mirror": transform.mirror}


def _transforms(described: Mapping[str, Any]) -> Transforms | None:
    found = {}
    for name, each in described.items():
        mean = each.pop("mean")
        if mean is not None:
            shape, digits = mean
            mean = np.frombuffer(bytes.fromhex(digits), np.float32).reshape(shape).copy()
        found[name] = Transform(mean=mean, **each)
    return found or None
