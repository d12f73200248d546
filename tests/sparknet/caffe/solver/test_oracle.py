"""Fifty iterations of every solver of the oracle arrive where real Caffe arrived, and by the same way."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from sparknet.caffe.solver import Solver
from tests.sparknet.caffe.oracle import oracle_file
from tests.sparknet.caffe.solver.training import batches, distance, losses_of, moments, set_weights, solver_of

FOLDER = oracle_file("solver") or Path()
RUNS = sorted(FOLDER.glob("*.solver.prototxt")) if FOLDER.name else []

pytestmark = pytest.mark.skipif(not RUNS, reason="SPARKNET_ORACLE does not name a folder with solver/")


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name.removesuffix(".solver.prototxt"))
def test_fifty_iterations_are_caffes(path: Path) -> None:
    solver, feed = solver_of(path), batches(FOLDER / "data.npz")
    caffe = dict(np.load(path.with_name(path.name.replace(".solver.prototxt", ".npz"))))
    set_weights(solver, caffe, "init")
    losses, rates, displayed = losses_of(solver), [], []
    for moment in [*moments(caffe), 50]:
        while solver.iter < moment:
            rates.append(solver.lr)
            solver.step(1, feed)
            displayed.append(solver.smoothed_loss)
        assert distance(solver, caffe, "final" if moment == 50 else f"iter{moment}") <= 1e-5
    np.testing.assert_allclose(losses, caffe["forward_losses"], atol=2e-5)
    np.testing.assert_allclose(rates, caffe["lr"], rtol=1e-5)
    if solver.param.average_loss == 1:
        np.testing.assert_allclose(displayed, caffe["displayed_loss"], atol=2e-5, rtol=1e-5)


def test_the_displayed_loss_is_averaged_over_a_window(caplog: pytest.LogCaptureFixture) -> None:
    path = FOLDER / "SGD_average_loss.solver.prototxt"
    solver, caffe = solver_of(path), dict(np.load(FOLDER / "SGD_average_loss.npz"))
    set_weights(solver, caffe, "init")
    caplog.set_level("INFO", logger="caffe")
    solver.step(50, batches(FOLDER / "data.npz"))
    shown = [float(line.rsplit(" = ", 1)[1]) for line in caplog.messages if ", loss = " in line]
    np.testing.assert_allclose(shown, caffe["displayed_loss"], rtol=2e-5)


def test_the_files_of_caffes_run_train_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Adam_clip_itersize2.solver.prototxt", "net_conv.prototxt"):
        shutil.copy(FOLDER / name, tmp_path)
    with np.load(FOLDER / "data.npz") as rows, h5py.File(tmp_path / "data.h5", "w") as file:
        file["data"], file["label"] = rows["data"], rows["label"]
    (tmp_path / "data_list.txt").write_text("data.h5\n")
    monkeypatch.chdir(tmp_path)
    solver = Solver.for_file("Adam_clip_itersize2.solver.prototxt")
    caffe = dict(np.load(FOLDER / "Adam_clip_itersize2.npz"))
    set_weights(solver, caffe, "init")
    solver.solve()
    assert distance(solver, caffe, "final") <= 1e-5
    assert (tmp_path / "snap_iter_50.caffemodel").exists()
