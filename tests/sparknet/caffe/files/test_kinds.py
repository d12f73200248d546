"""Files given where others belong: the error says what was given, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sparknet.caffe import schema
from sparknet.caffe.files import blobs, solver_state, weights
from sparknet.caffe.files.kinds import BLOB, STATE, WEIGHTS
from sparknet.caffe.files.solver_state import SolverState
from sparknet.caffe.net import Net
from sparknet.errors import ModelError

NET = """
input: "x" input_shape { dim: 1 dim: 2 }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 } }
"""
READERS: dict[str, Callable[[Path], object]] = {
    WEIGHTS: weights.read,
    STATE: solver_state.read,
    BLOB: blobs.read_blob,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of each kind."""
    folder = tmp_path_factory.mktemp("kinds")
    net = Net(schema.parse_net(NET), schema.TEST)
    state = SolverState(iter=5, learned_net="s_iter_5.caffemodel", history=(torch.ones(2),))
    for ending in ("", ".h5"):
        net.save(folder / f"w.caffemodel{ending}")
        solver_state.write(folder / f"s.solverstate{ending}", state)
    solver_state.write(folder / "first.solverstate", SolverState(iter=0))
    blobs.write_blob(torch.ones(1, 3, 2, 2), folder / "m.binaryproto")
    (folder / "n.prototxt").write_text(NET)
    (folder / "pointer.caffemodel").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    np.savez(folder / "a.npz", a=np.ones(2))
    (folder / "empty").touch()
    return folder


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("w.caffemodel", WEIGHTS), ("w.caffemodel.h5", WEIGHTS), ("s.solverstate", STATE)),
        *(("s.solverstate.h5", STATE), ("first.solverstate", STATE), ("m.binaryproto", BLOB)),
        *(("n.prototxt", "it is text"), ("pointer.caffemodel", "git-lfs"), ("a.npz", "a zip archive")),
    ],
)
@pytest.mark.parametrize("wanted", READERS)
def test_a_file_of_another_kind_is_refused_by_what_it_is(
    name: str, kind: str, wanted: str, folder: Path
) -> None:
    if wanted == kind:
        READERS[wanted](folder / name)
        return
    with pytest.raises(ModelError) as caught:
        READERS[wanted](folder / name)
    assert str(folder / name) in str(caught.value)
    assert kind in str(caught.value)


@pytest.mark.parametrize("wanted", READERS)
def test_an_empty_file_is_refused(wanted: str, folder: Path) -> None:
    with pytest.raises(ModelError, match="empty"):
        READERS[wanted](folder / "empty")


def test_a_snapshot_that_is_a_caffemodel_is_told_from_a_solverstate(folder: Path) -> None:
    with pytest.raises(
        ModelError, match=r"w\.caffemodel: this is not a solver state: .*\.caffemodel.*--weights"
    ):
        solver_state.read(folder / "w.caffemodel")


@pytest.mark.parametrize("name", ["s.solverstate", "s.solverstate.h5"])
def test_a_state_is_known_by_its_content_not_by_its_name(name: str, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / ("x.h5" if name == "s.solverstate" else "x.solverstate")
    other.write_bytes((folder / name).read_bytes())
    assert solver_state.read(other).iter == 5


@pytest.mark.parametrize(("iteration", "step"), [(-1, 0), (3, -2)])
@pytest.mark.parametrize("ending", ["solverstate", "solverstate.h5"])
def test_a_state_with_counts_that_cannot_be_is_refused(
    iteration: int, step: int, ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"s.{ending}"
    solver_state.write(path, SolverState(iter=iteration, current_step=step))
    with pytest.raises(ModelError, match=r"s\.solverstate.*: the (iteration|step) of this solver state is -"):
        solver_state.read(path)
