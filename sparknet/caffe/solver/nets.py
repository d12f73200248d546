"""Which nets a ``SolverParameter`` asks for, and in which state: pure functions on the messages.

The train net comes from exactly one of ``net``, ``net_param``, ``train_net`` and ``train_net_param``. The
test nets are those of ``test_net_param`` and ``test_net``, and then as many of ``net`` or ``net_param`` as
``test_iter`` has further entries. A net's state is the phase, then what the net itself says, then the
solver's ``train_state`` or ``test_state``.

Source: ``Solver::InitTrainNet`` and ``Solver::InitTestNets`` of BVLC Caffe.
"""

from __future__ import annotations

from collections.abc import Callable

from sparknet.caffe.schema.caffe_pb2 import (
    TEST,
    TRAIN,
    NetParameter,
    NetState,
    Phase,
    SolverParameter,
)
from sparknet.errors import ModelError

Read = Callable[[str], NetParameter]  # from the path in the solver to the (upgraded) net

TRAIN_FIELDS = ("net", "net_param", "train_net", "train_net_param")


def train_net(solver: SolverParameter, read: Read) -> NetParameter:
    """The net to train, with its final state. Raises ModelError unless the solver names exactly one."""
    given = [name for name in TRAIN_FIELDS if solver.HasField(name)]
    if len(given) != 1:
        found = " and ".join(given) or "none"
        raise ModelError(f"a solver names its train net in one of {', '.join(TRAIN_FIELDS)}; found {found}")
    net = _copy(getattr(solver, given[0]), read)
    return _in_state(net, TRAIN, solver.train_state)


def test_nets(solver: SolverParameter, read: Read) -> list[NetParameter]:
    """The nets to test with, in the order of ``test_iter``, with their final states.

    Raises ModelError where the numbers of nets, ``test_iter`` and ``test_state`` do not fit.
    """
    named: list[NetParameter | str] = [*solver.test_net_param, *solver.test_net]
    has_generic = solver.HasField("net_param") or solver.HasField("net")
    count = len(solver.test_iter)
    if count < len(named) or (count > len(named) and not has_generic):
        raise ModelError(f"a solver needs one test_iter per test net: {count} for {len(named)} nets")
    if solver.test_state and len(solver.test_state) != count:
        raise ModelError(f"a solver needs one test_state per test net: {len(solver.test_state)} for {count}")
    if count and solver.test_interval <= 0:
        raise ModelError("test_iter needs test_interval, the number of iterations between tests")
    states = list(solver.test_state) or [NetState()] * count
    return [
        _in_state(_copy(source, read), TEST, state)
        for source, state in zip(_test_sources(solver), states, strict=True)
    ]


def train_file(solver: SolverParameter) -> str:
    """The path by which the solver names its train net, "" for a net that stands in the solver itself."""
    return solver.net or solver.train_net


def test_files(solver: SolverParameter) -> list[str]:
    """The same of each test net."""
    return [source if isinstance(source, str) else "" for source in _test_sources(solver)]


def _test_sources(solver: SolverParameter) -> list[NetParameter | str]:
    named: list[NetParameter | str] = [*solver.test_net_param, *solver.test_net]
    generic = solver.net_param if solver.HasField("net_param") else solver.net
    return [*named, *[generic] * (len(solver.test_iter) - len(named))]


def _copy(source: NetParameter | str, read: Read) -> NetParameter:
    if isinstance(source, str):
        return read(source)
    net = NetParameter()
    net.CopyFrom(source)
    return net


def _in_state(net: NetParameter, phase: Phase, above: NetState) -> NetParameter:
    state = NetState(phase=phase)
    state.MergeFrom(net.state)
    state.MergeFrom(above)
    net.state.CopyFrom(state)
    return net
