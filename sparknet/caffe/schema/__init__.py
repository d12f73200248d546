"""Caffe's file format: messages (``caffe_pb2``), their text, what is done to nets before they are built."""

from __future__ import annotations

from pathlib import Path

from sparknet.caffe.schema import caffe_pb2
from sparknet.caffe.schema.caffe_pb2 import TEST, TRAIN, NetParameter, NetState, SolverParameter
from sparknet.caffe.schema.forks import UnknownField, type_refusal
from sparknet.caffe.schema.inputs import replace_data_layers
from sparknet.caffe.schema.splits import with_splits
from sparknet.caffe.schema.states import in_state
from sparknet.caffe.schema.text import layer_places, parse, parse_tolerantly, read
from sparknet.caffe.schema.upgrade import upgrade_net, upgrade_solver

__all__ = [
    "TEST",
    "TRAIN",
    "NetParameter",
    "NetState",
    "SolverParameter",
    "UnknownField",
    "caffe_pb2",
    "in_state",
    "layer_places",
    "load_net",
    "load_net_tolerantly",
    "load_solver",
    "parse",
    "parse_net",
    "parse_solver",
    "parse_tolerantly",
    "read",
    "replace_data_layers",
    "type_refusal",
    "upgrade_net",
    "upgrade_solver",
    "with_splits",
]


def load_net(source: str | Path) -> NetParameter:
    """The net of a prototxt file, or of prototxt itself (a string with a brace in it), upgraded.

    Raises SchemaError (file, line, column) if it does not parse, ModelError if it cannot be read.
    """
    if isinstance(source, str) and "{" in source:
        return parse_net(source)
    return parse_net(read(source), file=str(source))


def parse_net(text: str, *, file: str = "") -> NetParameter:
    """The net of prototxt, upgraded to the current form; ``file`` is named in errors."""
    return upgrade_net(parse(text, NetParameter(), file=file))


def load_net_tolerantly(path: str | Path) -> tuple[NetParameter, list[UnknownField]]:
    """As ``load_net``, leaving out fields that BVLC Caffe does not know, and naming them."""
    net, skipped = parse_tolerantly(read(path), NetParameter(), file=str(path))
    return upgrade_net(net), skipped


def load_solver(path: str | Path) -> SolverParameter:
    """The solver of a prototxt file, upgraded; the nets it names are not opened."""
    return parse_solver(read(path), file=str(path))


def parse_solver(text: str, *, file: str = "") -> SolverParameter:
    """The solver of prototxt, upgraded; inline nets are upgraded too."""
    solver = upgrade_solver(parse(text, SolverParameter(), file=file))
    for field in ("net_param", "train_net_param"):
        if solver.HasField(field):
            upgrade_net(getattr(solver, field))
    for net in solver.test_net_param:
        upgrade_net(net)
    return solver
