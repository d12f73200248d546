"""Snapshots of a solver: a file of weights and a file of all else, from which this or Caffe can go on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from sparknet.caffe import solver_state, weight_file
from sparknet.caffe.schema.caffe_pb2 import SolverParameter
from sparknet.caffe.solver_files import found, snapshot_path

if TYPE_CHECKING:
    from sparknet.caffe.solver import Solver

log = logging.getLogger("caffe")


def write(solver: Solver) -> Path:
    """Write both files as ``snapshot_format`` says; the path of the state."""
    param = solver.param
    suffix = ".h5" if param.snapshot_format == SolverParameter.HDF5 else ""
    model, state = (
        snapshot_path(param.snapshot_prefix, solver.file, solver.iter, ending + suffix)
        for ending in (".caffemodel", ".solverstate")
    )
    kind = "HDF5" if suffix else "binary proto"
    log.info("Snapshotting to %s file %s", kind, model)
    weight_file.save(solver.net, model, with_diffs=param.snapshot_diff)
    log.info("Snapshotting solver state to %s file %s", kind, state)
    solver_state.write(state, solver.save_state(str(model)))
    return state


def restore(solver: Solver, path: str | Path) -> None:
    """Go on from the state in ``path`` and the weights it names. Raises ModelError if either does not fit."""
    state = solver_state.read(path)
    if state.learned_net:
        model = found(state.learned_net, Path(path).parent, by_name=True)
        weight_file.load(solver.net, model)
    solver.load_state(state)
