"""Solvers of the apps: prototxt of the user's, or of ``apps/models``, which may lie inside a zip."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from sparknet.caffe.schema import (
    NetParameter,
    SolverParameter,
    parse_net,
    parse_solver,
    read,
    replace_data_layers,
)
from sparknet.caffe_replica import CaffeModel
from sparknet.errors import ModelError

MODELS = files("apps") / "models"

Shape = tuple[int, int, int]


def load(
    name: str, shape: Shape, *, batch_size: int, test_batch_size: int, precision: str = "float32"
) -> CaffeModel:
    """The solver in the file ``name`` and its net, fed pictures of ``shape`` (c, h, w) from outside.

    ``name`` is a path, or a file of ``apps/models``; the net's data layers give way to inputs.
    Raises ModelError naming the file that is missing or wrong.
    """
    text, folder = _text(name, Path())
    solver = parse_solver(text, file=name)
    net = replace_data_layers(_net(solver, name, folder), batch_size, test_batch_size, *shape)
    return CaffeModel(net=net, solver=solver, precision=precision)


def names() -> list[str]:
    """The solvers of ``apps/models``."""
    return sorted(file.name for file in MODELS.iterdir() if file.name.endswith("solver.prototxt"))


def _net(solver: SolverParameter, name: str, folder: Path) -> NetParameter:
    if solver.HasField("net_param"):
        return solver.net_param
    if not solver.net:
        raise ModelError(f"{name}: name the net in the field net, or write it out in net_param")
    text, _ = _text(solver.net, folder)
    return parse_net(text, file=solver.net)


def _text(name: str, folder: Path) -> tuple[str, Path]:
    """A file's text and its folder: as the path says, else in ``folder``, else in ``apps/models``."""
    for path in (Path(name), folder / Path(name).name):
        if path.is_file():
            return read(path), path.parent
    packaged = MODELS / Path(name).name
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8"), Path()
    raise ModelError(f"{name} is neither a file here nor one of the apps' own: {', '.join(names())}")
