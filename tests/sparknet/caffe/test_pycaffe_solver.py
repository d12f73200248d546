"""pycaffe's solvers, and layers written in Python, as its scripts use them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from sparknet import caffe
from sparknet.caffe.glog import GlogFormatter
from sparknet.errors import ModelError
from tests.sparknet.caffe import python_layers

NET = """
name: "small"
layer { name: "data" type: "DummyData" top: "data" top: "label"
        dummy_data_param { shape { dim: [5, 4] } shape { dim: 5 }
                           data_filler { type: "gaussian" } data_filler { type: "constant" } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
        include { phase: TEST } }
"""

SOLVER = """
net: "{net}" test_iter: 4 test_interval: 10 base_lr: 0.01 momentum: 0.9 weight_decay: 0.0005
lr_policy: "inv" gamma: 0.0001 power: 0.75 display: 10 max_iter: 20 snapshot_after_train: false
snapshot_prefix: "{prefix}" {more}
"""


def solver_file(folder: Path, more: str = "") -> str:
    (folder / "net.prototxt").write_text(NET)
    text = SOLVER.replace("{net}", str(folder / "net.prototxt"))
    text = text.replace("{prefix}", str(folder / "model")).replace("{more}", more)
    (folder / "solver.prototxt").write_text(text)
    return str(folder / "solver.prototxt")


@pytest.fixture
def solver(tmp_path: Path) -> caffe.Solver:
    return caffe.SGDSolver(solver_file(tmp_path))


def test_a_solver_solves_to_max_iter(solver: caffe.Solver) -> None:
    assert solver.iter == 0
    solver.solve()
    assert solver.iter == 20


def test_a_solver_has_a_net_and_test_nets_with_its_weights(solver: caffe.Solver) -> None:
    (test_net,) = solver.test_nets
    assert "accuracy" in test_net.outputs
    solver.step(1)
    np.testing.assert_array_equal(test_net.params["ip"][0].data, solver.net.params["ip"][0].data)
    assert solver.net is solver.net


def test_an_update_is_applied_to_the_diffs_that_were_written(solver: caffe.Solver) -> None:
    solver.param.weight_decay = 0
    weights = solver.net.layer_dict["ip"].blobs[0]
    data = weights.data
    data[...], weights.diff[...] = 0, 1
    solver.apply_update()
    np.testing.assert_allclose(data, -0.01, atol=1e-7)
    assert solver.iter == 1


def test_a_snapshot_is_written_and_gone_on_from(solver: caffe.Solver, tmp_path: Path) -> None:
    solver.step(3)
    solver.snapshot()
    weights = solver.net.params["ip"][0].data.copy()
    other = caffe.get_solver(solver_file(tmp_path))
    other.restore(str(tmp_path / "model_iter_3.solverstate"))
    assert other.iter == 3
    np.testing.assert_array_equal(other.net.params["ip"][0].data, weights)
    assert (tmp_path / "model_iter_3.caffemodel").exists()


def test_the_loss_that_is_held_follows_the_steps(solver: caffe.Solver) -> None:
    loss = solver.net.blobs["loss"].data
    seen = []
    for _ in range(3):
        solver.step(1)
        seen.append(float(loss))
    assert len(set(seen)) == 3


def test_callbacks_are_called_before_the_pass_and_before_the_update(solver: caffe.Solver) -> None:
    calls: list[str] = []
    solver.add_callback(lambda: calls.append("start"), lambda: calls.append("gradients"))
    solver.step(2)
    assert calls == ["start", "gradients"] * 2


def test_another_net_can_share_the_weights(solver: caffe.Solver, tmp_path: Path) -> None:
    net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    solver.share_weights(net)
    solver.net.params["ip"][0].data[...] = 3
    assert (net.params["ip"][0].data == 3).all()


@pytest.mark.parametrize("type_name", ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_the_type_in_the_file_names_the_class(tmp_path: Path, type_name: str) -> None:
    text = Path(solver_file(tmp_path, f'type: "{type_name}"')).read_text()
    Path(tmp_path / "solver.prototxt").write_text(text.replace("momentum: 0.9", ""))
    solver = caffe.get_solver(str(tmp_path / "solver.prototxt"))
    assert type(solver) is getattr(caffe, f"{type_name}Solver")
    solver.step(1)


def test_the_rate_is_that_of_the_next_update(solver: caffe.Solver) -> None:
    assert solver.lr == pytest.approx(0.01)
    solver.step(1)
    assert solver.lr == pytest.approx(0.01 * 1.0001**-0.75)


def test_nets_survive_their_solver(solver: caffe.Solver) -> None:
    nets = [solver.net, *solver.test_nets]
    del solver
    assert all(np.isfinite(p.data).all() for net in nets for ps in net.params.values() for p in ps)


def test_a_missing_solver_is_a_runtime_error(tmp_path: Path) -> None:
    for make in (caffe.get_solver, caffe.SGDSolver):
        with pytest.raises(RuntimeError, match="Could not open file"):
            make(str(tmp_path / "no.prototxt"))


def test_the_log_is_in_the_words_of_caffe(solver: caffe.Solver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="caffe")
    solver.solve()
    log = caplog.text
    for words in (
        "Iteration 0, Testing net (#0)",
        "    Test net output #0: accuracy = ",
        "Iteration 0, lr = 0.01",
        "Iteration 10 (",
        "    Train net output #0: loss = ",
        " (* 1 = ",
        "Iteration 20, loss = ",
        "Optimization Done.",
    ):
        assert words in log
    prefix = GlogFormatter().format(caplog.records[0])
    assert prefix.startswith("I")
    assert "solver.py:" in prefix


# -- layers in Python

PYTHON_NET = """
name: "python" force_backward: true input: "data" input_shape { dim: [10, 9, 8] }
"""


def python_layer(name: str, bottom: str, layer: str, param_str: str = "") -> str:
    module = python_layers.__name__
    return (
        f'layer {{ type: "Python" name: "{name}" bottom: "{bottom}" top: "{name}" python_param {{ '
        f'module: "{module}" layer: "{layer}" param_str: "{param_str}" }} }}'
    )


def python_net(folder: Path, *layers: str, phase: int = 0) -> caffe.Net:
    (folder / "python.prototxt").write_text(PYTHON_NET + "".join(layers))
    return caffe.Net(str(folder / "python.prototxt"), phase)


@pytest.fixture
def times_six(tmp_path: Path) -> caffe.Net:
    return python_net(tmp_path, python_layer("a", "data", "Times", "2"), python_layer("b", "a", "Times", "3"))


def test_a_python_layer_runs_forward(times_six: caffe.Net) -> None:
    times_six.blobs["data"].data[...] = 8
    assert (times_six.forward()["b"] == 48).all()


def test_a_python_layer_runs_backward_without_a_forward_pass(times_six: caffe.Net) -> None:
    times_six.blobs["b"].diff[...] = 7
    times_six.backward()
    assert (times_six.blobs["data"].diff == 42).all()


def test_a_python_layer_takes_another_shape(times_six: caffe.Net) -> None:
    times_six.blobs["data"].reshape(4, 4, 4, 4)
    times_six.forward()
    assert all(blob.data.shape == (4, 4, 4, 4) for blob in times_six.blobs.values())


def test_what_a_python_layer_raises_comes_out(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        python_net(tmp_path, python_layer("a", "data", "Broken"))


def test_a_python_layer_has_blobs_of_its_own(tmp_path: Path) -> None:
    net = python_net(tmp_path, python_layer("a", "data", "Learning"))
    net.forward()
    net.backward()
    layer = net.layers[list(net._layer_names).index("a")]
    assert isinstance(layer, python_layers.Learning)
    assert (layer.blobs[0].data[0], layer.blobs[0].diff[0]) == (5, 1)
    layer.blobs[0].data[0] += layer.blobs[0].diff[0]
    net.save(str(tmp_path / "weights"))
    layer.blobs[0].data[0] = -1
    net.copy_from(str(tmp_path / "weights"))
    assert layer.blobs[0].data[0] == 6


def test_loaded_weights_are_not_undone_by_what_setup_made(tmp_path: Path) -> None:
    first = python_net(tmp_path, python_layer("a", "data", "Learning"))
    first.params["a"][0].data[...] = 9
    first.save(str(tmp_path / "weights"))
    second = caffe.Net(str(tmp_path / "python.prototxt"), caffe.TRAIN, weights=str(tmp_path / "weights"))
    second.forward()
    assert second.params["a"][0].data[0] == 9


def test_a_python_layer_knows_its_phase(tmp_path: Path) -> None:
    for phase in (caffe.TRAIN, caffe.TEST):
        net = python_net(tmp_path, python_layer("a", "data", "Phase"), phase=phase)
        assert net.forward()["a"] == phase


def test_a_python_layer_can_be_a_loss(tmp_path: Path) -> None:
    loss = python_layer("a", "data", "HalfSquare").replace("top:", "loss_weight: 2 top:")
    net = python_net(tmp_path, loss)
    net.blobs["data"].data[...] = 3
    assert net.forward()["a"] == pytest.approx(720 * 4.5)
    net.backward()
    np.testing.assert_allclose(net.blobs["data"].diff, 6)


def test_a_missing_module_or_class_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match='has no layer "Nothing"'):
        python_net(tmp_path, python_layer("a", "data", "Nothing"))
