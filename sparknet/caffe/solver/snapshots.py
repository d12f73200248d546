"""Snapshots of a solver: a file of weights and a file of all else, from which this or Caffe can go on."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from sparknet.caffe.files import solver_state
from sparknet.caffe.files import weights as weight_files
from sparknet.caffe.files.solver_state import SolverState
from sparknet.caffe.net import Net
from sparknet.caffe.schema.caffe_pb2 import SolverParameter
from sparknet.caffe.solver.paths import found, snapshot_path

log = logging.getLogger("caffe")


def write(net: Net, state: SolverState, param: SolverParameter, solver_file: Path) -> Path:
    """Write both files as ``param`` says; the path of the state, which names the weights."""
    suffix = ".h5" if param.snapshot_format == SolverParameter.HDF5 else ""
    model, path = (
        snapshot_path(param.snapshot_prefix, solver_file, state.iter, ending + suffix)
        for ending in (".caffemodel", ".solverstate")
    )
    kind = "HDF5" if suffix else "binary proto"
    log.info("Snapshotting to %s file %s", kind, model)
    weight_files.save(net, model, with_diffs=param.snapshot_diff)
    log.info("Snapshotting solver state to %s file %s", kind, path)
    solver_state.write(path, replace(state, learned_net=str(model)))
    return path


def read(path: str | Path) -> tuple[SolverState, Path | None]:
    """The state in ``path``, and the file of the weights that it names, if any.

    Raises ModelError if the state is missing or broken.
    """
    state = solver_state.read(path)
    model = found(state.learned_net, Path(path).parent, by_name=True) if state.learned_net else None
    return state, model
