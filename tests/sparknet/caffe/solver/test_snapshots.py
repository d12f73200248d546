"""Snapshots of Caffe are gone on from exactly, and those written here hold what Caffe's hold."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from sparknet.caffe.files import solver_state
from sparknet.caffe.files import weights as weight_files
from sparknet.caffe.files.solver_state import SolverState
from sparknet.errors import ModelError
from tests.sparknet.caffe.oracle import oracle_file
from tests.sparknet.caffe.solver.training import batches, distance, losses_of, solver_of

FOLDER = oracle_file("snapshots") or Path()
CASES = sorted(FOLDER.glob("*.solver.prototxt")) if FOLDER.name else []

with_oracle = pytest.mark.skipif(not CASES, reason="SPARKNET_ORACLE does not name a folder with snapshots/")
each_case = pytest.mark.parametrize(
    "path", CASES, ids=lambda path: path.name.removesuffix(".solver.prototxt")
)


def state_of(path: Path) -> Path:
    stem = path.name.removesuffix(".solver.prototxt")
    ending = ".solverstate.h5" if stem.endswith("hdf5") else ".solverstate"
    return path.with_name(f"{stem}_iter_25{ending}")


@with_oracle
@each_case
def test_a_resumed_run_arrives_where_caffe_did(path: Path) -> None:
    solver = solver_of(path)
    caffe = dict(np.load(path.with_name(path.name.replace(".solver.prototxt", "_trajectory.npz"))))
    solver.restore(state_of(path))
    assert solver.iter == 25
    assert distance(solver, caffe, "restored25") == 0
    losses = losses_of(solver)
    solver.step(25, batches(path.parent.parent / "solver" / "data.npz", start=25))
    assert distance(solver, caffe, "iter50_resumed") <= 1e-5
    assert distance(solver, caffe, "iter50_straight") <= 1e-5
    np.testing.assert_allclose(losses, caffe["losses_resumed"], atol=2e-5)


@with_oracle
@each_case
def test_a_snapshot_written_here_holds_what_caffes_holds(path: Path, tmp_path: Path) -> None:
    solver = solver_of(path)
    solver.restore(state_of(path))
    solver.param.snapshot_prefix = str(tmp_path / "snap")
    written, theirs = solver_state.read(solver.snapshot()), solver_state.read(state_of(path))
    assert (written.iter, written.current_step) == (theirs.iter, theirs.current_step)
    assert [tuple(blob.shape) for blob in written.history] == [tuple(blob.shape) for blob in theirs.history]
    assert all(torch.equal(a, b) for a, b in zip(written.history, theirs.history, strict=True))
    mine, original = weight_files.read(written.learned_net), weight_files.read(_weights_beside(path))
    for name, blobs in original.items():
        assert all(torch.equal(a.data, b.data) for a, b in zip(mine[name], blobs, strict=True))


def _weights_beside(path: Path) -> Path:
    name = state_of(path).name.replace(".solverstate", ".caffemodel")
    return path.with_name(name)


@with_oracle
def test_going_on_from_a_snapshot_of_ones_own_changes_nothing(tmp_path: Path) -> None:
    path = FOLDER / "AdaDelta_binaryproto.solver.prototxt"
    data = FOLDER.parent / "solver" / "data.npz"
    straight, resumed = solver_of(path), solver_of(path)
    straight.param.snapshot_prefix = str(tmp_path / "snap")
    straight.step(12, batches(data))
    state = straight.snapshot()
    straight.step(12, batches(data, start=12))
    resumed.restore(state)
    resumed.step(12, batches(data, start=12))
    assert torch.equal(resumed.net.weights, straight.net.weights)


@with_oracle
def test_the_weights_are_found_beside_the_state_when_both_were_moved(tmp_path: Path) -> None:
    path = FOLDER / "SGD_binaryproto.solver.prototxt"
    for source in (state_of(path), _weights_beside(path)):
        shutil.copy(source, tmp_path)
    solver = solver_of(path)
    solver.restore(tmp_path / state_of(path).name)
    assert solver.net.weights.any()


@with_oracle
def test_a_state_of_another_rule_is_refused() -> None:
    solver = solver_of(FOLDER / "SGD_binaryproto.solver.prototxt")
    with pytest.raises(ModelError, match="holds 2 history blobs for each blob of the net, SGD needs 1"):
        solver.restore(state_of(FOLDER / "AdaDelta_binaryproto.solver.prototxt"))


STATE = SolverState(
    iter=7,
    current_step=2,
    learned_net="some/where.caffemodel",
    history=(torch.arange(6.0).view(2, 3), torch.tensor([1.5])),
)


@pytest.mark.parametrize("name", ["x.solverstate", "x.solverstate.h5"])
def test_a_state_comes_back(tmp_path: Path, name: str) -> None:
    solver_state.write(tmp_path / name, STATE)
    back = solver_state.read(tmp_path / name)
    assert (back.iter, back.current_step, back.learned_net) == (7, 2, "some/where.caffemodel")
    assert all(torch.equal(a, b) for a, b in zip(back.history, STATE.history, strict=True))


def test_the_path_in_an_hdf5_state_is_a_c_string(tmp_path: Path) -> None:
    solver_state.write(tmp_path / "x.h5", STATE)
    with h5py.File(tmp_path / "x.h5") as file:
        kind = file["learned_net"].id.get_type()
        assert not kind.is_variable_str()
        assert kind.get_size() == len(STATE.learned_net) + 1
        assert file["iter"].shape == (1,)


def test_a_history_is_flattened_and_shaped_back() -> None:
    shapes = [(2, 3), (1,)]
    vectors = solver_state.flattened([*STATE.history, *STATE.history], shapes)
    assert [vector.tolist() for vector in vectors] == [[0, 1, 2, 3, 4, 5, 1.5]] * 2
    back = solver_state.shaped(vectors, shapes)
    assert all(torch.equal(a, b) for a, b in zip(back, [*STATE.history] * 2, strict=True))


def test_a_history_from_before_2015_has_four_axes() -> None:
    old = [STATE.history[0].view(1, 1, 2, 3), STATE.history[1].view(1, 1, 1, 1)]
    (vector,) = solver_state.flattened(old, [(2, 3), (1,)])
    assert vector.tolist() == [0, 1, 2, 3, 4, 5, 1.5]


@pytest.mark.parametrize(
    ("shapes", "message"),
    [([(2, 3)], r"blob 1 .* is \(1,\), the net's is \(2, 3\)"), ([(6,), (1,)], "another net")],
)
def test_a_history_of_another_net_is_refused(shapes: list[tuple[int, ...]], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        solver_state.flattened(STATE.history, shapes)


def test_a_history_that_is_no_multiple_is_refused() -> None:
    with pytest.raises(ModelError, match="2 history blobs, which is no multiple of the net's 3"):
        solver_state.flattened(STATE.history, [(1,)] * 3)


@pytest.mark.parametrize("name", ["x.solverstate", "x.solverstate.h5"])
def test_a_broken_or_missing_state_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="no such solver state"):
        solver_state.read(tmp_path / name)
    solver_state.write(tmp_path / name, STATE)
    whole = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="not a solver state, or it is cut short"):
        solver_state.read(tmp_path / name)


def test_a_state_that_cannot_be_written_says_where(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot write the solver state"):
        solver_state.write(tmp_path / "no" / "x.solverstate", STATE)
