"""The apps' nets, found by path, beside a solver, in the package, and in a zip of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from apps.solvers import load, names
from sparknet.errors import ModelError
from tests.apps.run_app import ROOT, environment, pack

NET = """
name: "tiny"
layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "db" batch_size: 3 } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param { num_output: 4 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


def tiny(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "net.prototxt").write_text(NET)
    solver = folder / "solver.prototxt"
    solver.write_text('net: "elsewhere/net.prototxt" base_lr: 0.1 lr_policy: "fixed" display: 10')
    return solver


@pytest.mark.parametrize(
    ("name", "shape", "parameters"),
    [
        ("cifar10_quick_solver.prototxt", (3, 32, 32), 145_578),
        ("lenet_solver.prototxt", (1, 28, 28), 431_080),
    ],
)
def test_the_packaged_nets_are_caffes(name: str, shape: tuple[int, int, int], parameters: int) -> None:
    replica = load(name, shape, batch_size=2, test_batch_size=2)()
    assert replica.weights.numel() == parameters
    assert {"accuracy", "loss"} <= set(replica.test_net.outputs)


def test_a_net_is_found_beside_its_solver_and_fed_from_outside(tmp_path: Path) -> None:
    model = load(str(tiny(tmp_path / "mine")), (1, 5, 5), batch_size=7, test_batch_size=2)
    assert model.net.layer[0].type == "Input"
    assert model().weights.numel() == 25 * 4 + 4


def test_a_net_may_be_written_out_in_its_solver(tmp_path: Path) -> None:
    file = tmp_path / "solver.prototxt"
    file.write_text(f'net_param {{ {NET} }} base_lr: 0.1 lr_policy: "fixed"')
    assert load(str(file), (1, 5, 5), batch_size=7, test_batch_size=2).net.name == "tiny"


def test_a_solver_that_is_nowhere_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nothing\.prototxt is neither .*cifar10_quick_solver"):
        load("nothing.prototxt", (1, 5, 5), batch_size=1, test_batch_size=1)


def test_a_solver_without_a_net_says_so(tmp_path: Path) -> None:
    file = tmp_path / "solver.prototxt"
    file.write_text("base_lr: 0.1")
    with pytest.raises(ModelError, match="name the net in the field net"):
        load(str(file), (1, 5, 5), batch_size=1, test_batch_size=1)


def test_a_net_that_is_nowhere_is_named(tmp_path: Path) -> None:
    file = tmp_path / "solver.prototxt"
    file.write_text('net: "gone.prototxt" base_lr: 0.1')
    with pytest.raises(ModelError, match=r"gone\.prototxt is neither a file"):
        load(str(file), (1, 5, 5), batch_size=1, test_batch_size=1)


def test_nets_are_found_inside_the_zip_that_goes_to_a_cluster(tmp_path: Path) -> None:
    """In a process that has no other copy of the packages than the zip."""
    archive = tmp_path / "trainer.zip"
    pack(archive)
    # -I keeps PYTHONPATH out; the finder of an editable installation is taken out by hand
    program = f"""
import sys
sys.meta_path = [finder for finder in sys.meta_path if "editable" not in repr(finder)]
sys.path = [{str(archive)!r}] + [p for p in sys.path if p != {str(ROOT)!r} and "editable" not in p]
from importlib.resources import files
import apps.solvers, sparknet.reporting.page
assert {str(archive)!r} in apps.solvers.__file__, apps.solvers.__file__
print(apps.solvers.names())
print(apps.solvers.load("lenet_solver.prototxt", (1, 28, 28), batch_size=2, test_batch_size=2).net.name)
assert {str(archive)!r} in sparknet.reporting.page.__file__, sparknet.reporting.page.__file__
print((files("sparknet.reporting") / "page" / "page.html").read_text()[:15])
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    listed, name, template = done.stdout.splitlines()
    assert listed == str(names())
    assert name == "LeNet"
    assert template == "<!doctype html>"
