"""Caffe's nets and solvers: everything a script for pycaffe uses, under the names it knows.

    from sparknet import caffe
    from sparknet.caffe import layers as L, params as P

    solver = caffe.get_solver("solver.prototxt")
    solver.step(100)

Names are imported when they are first used, so that a solver can be had without image libraries and a schema
without torch. ``caffe.Net`` and its kin show numpy arrays; what they are views of is in ``caffe.net``,
``caffe.solver`` and the other modules.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparknet.caffe import classifier, coord_map, definition, detector, draw, io, layers, net_spec, proto
    from sparknet.caffe.classifier import Classifier
    from sparknet.caffe.definition import CaffeNet, CaffeSolver
    from sparknet.caffe.detector import Detector
    from sparknet.caffe.glog import init_log, log
    from sparknet.caffe.net_spec import NetSpec, params, to_proto
    from sparknet.caffe.pycaffe.blob import Blob
    from sparknet.caffe.pycaffe.layer import Layer, layer_type_list
    from sparknet.caffe.pycaffe.mode import (
        set_device,
        set_mode_cpu,
        set_mode_gpu,
        set_multiprocess,
        set_random_seed,
        set_solver_count,
        set_solver_rank,
        solver_count,
        solver_rank,
    )
    from sparknet.caffe.pycaffe.nccl import NCCL, has_nccl
    from sparknet.caffe.pycaffe.net import Net
    from sparknet.caffe.pycaffe.solver import (
        AdaDeltaSolver,
        AdaGradSolver,
        AdamSolver,
        NesterovSolver,
        RMSPropSolver,
        SGDSolver,
        Solver,
        get_solver,
    )
    from sparknet.caffe.pycaffe.timer import Timer

TRAIN, TEST = 0, 1

__version__ = "1.0.0"  # of Caffe: what scripts compare with

__all__ = [
    "NCCL",
    "TEST",
    "TRAIN",
    "AdaDeltaSolver",
    "AdaGradSolver",
    "AdamSolver",
    "Blob",
    "CaffeNet",
    "CaffeSolver",
    "Classifier",
    "Detector",
    "Layer",
    "NesterovSolver",
    "Net",
    "NetSpec",
    "RMSPropSolver",
    "SGDSolver",
    "Solver",
    "Timer",
    "classifier",
    "coord_map",
    "definition",
    "detector",
    "draw",
    "get_solver",
    "has_nccl",
    "init_log",
    "io",
    "layer_type_list",
    "layers",
    "log",
    "net_spec",
    "params",
    "proto",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_multiprocess",
    "set_random_seed",
    "set_solver_count",
    "set_solver_rank",
    "solver_count",
    "solver_rank",
    "to_proto",
]

_MODULES = frozenset(
    {"classifier", "coord_map", "definition", "detector", "draw", "io", "layers", "net_spec", "proto"}
)
_PYCAFFE = "sparknet.caffe.pycaffe"
_HOMES = {
    "Classifier": "sparknet.caffe.classifier",
    "Detector": "sparknet.caffe.detector",
    **dict.fromkeys(("CaffeNet", "CaffeSolver"), "sparknet.caffe.definition"),
    **dict.fromkeys(("init_log", "log"), "sparknet.caffe.glog"),
    **dict.fromkeys(("NetSpec", "params", "to_proto"), "sparknet.caffe.net_spec"),
    "Blob": f"{_PYCAFFE}.blob",
    "Layer": f"{_PYCAFFE}.layer",
    "Net": f"{_PYCAFFE}.net",
    "layer_type_list": f"{_PYCAFFE}.layer",
    **dict.fromkeys(("set_device", "set_mode_cpu", "set_mode_gpu", "set_random_seed"), f"{_PYCAFFE}.mode"),
    **dict.fromkeys(
        ("solver_count", "set_solver_count", "solver_rank", "set_solver_rank"), f"{_PYCAFFE}.mode"
    ),
    "set_multiprocess": f"{_PYCAFFE}.mode",
    "Timer": f"{_PYCAFFE}.timer",
    **dict.fromkeys(("NCCL", "has_nccl"), f"{_PYCAFFE}.nccl"),
    **dict.fromkeys(("Solver", "get_solver", "SGDSolver", "NesterovSolver"), f"{_PYCAFFE}.solver"),
    **dict.fromkeys(("AdaGradSolver", "RMSPropSolver", "AdaDeltaSolver", "AdamSolver"), f"{_PYCAFFE}.solver"),
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOMES:
        found = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
