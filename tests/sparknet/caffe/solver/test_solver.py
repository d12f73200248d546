"""The solver beyond its arithmetic: where it finds nets, what it refuses, how it is fed and tested."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import count
from pathlib import Path

import pytest
import torch

from sparknet.caffe.files import solver_state
from sparknet.caffe.files import weights as weight_files
from sparknet.caffe.net import Net
from sparknet.caffe.schema import parse_net, parse_solver
from sparknet.caffe.schema.caffe_pb2 import TEST, TRAIN, NetParameter, SolverParameter
from sparknet.caffe.solver import Solver, nets
from sparknet.errors import ModelError
from tests.sparknet.caffe.oracle import weights_file

NET = """
name: "small"
layer { name: "in" type: "Input" top: "x" top: "label"
        input_param { shape { dim: [4, 3] } shape { dim: 4 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
        inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "label" top: "loss" loss_weight: 2 }
layer { name: "accuracy" type: "Accuracy" bottom: "y" bottom: "label" top: "accuracy"
        include { phase: TEST } }
"""
BASE = 'base_lr: 0.1 lr_policy: "fixed" '


def solver(more: str = "", net: str = NET) -> Solver:
    return Solver.for_param(parse_solver(f"net_param {{ {net} }} {BASE} {more}"))


def batch(seed: int = 0, size: int = 4) -> Mapping[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(size, 3, generator=draw),
        "label": torch.randint(0, 2, (size,), generator=draw).float(),
    }


# -- feeding and losses


def test_the_feed_is_called_before_every_forward_pass() -> None:
    calls = count()
    small = solver("iter_size: 3")
    small.step(2, feed=lambda: batch(next(calls)))
    assert next(calls) == 6


def test_a_step_gives_the_mean_loss_of_its_iterations() -> None:
    calls, small = count(), solver()
    small.param.base_lr = 0
    losses = []
    for seed in range(3):
        small.net.forward(batch(seed))
        losses.append(float(small.net.loss))
    assert float(small.step(3, feed=lambda: batch(next(calls)))) == pytest.approx(sum(losses) / 3)


def test_the_loss_is_smoothed_over_a_window_that_each_step_begins_anew() -> None:
    calls, small = count(), solver("average_loss: 2")
    small.step(5, feed=lambda: batch(next(calls)))
    losses = [float(loss) for loss in small._losses]
    assert small.smoothed_loss == pytest.approx(sum(losses) / 2)
    small.step(1, feed=lambda: batch(7))
    assert len(small._losses) == 1


def test_solving_runs_to_max_iter_on_what_it_is_fed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="caffe")
    small, calls = solver("max_iter: 4 display: 2 snapshot_after_train: false"), count()
    small.solve(feed=lambda: batch(next(calls)))
    assert small.iter == 4
    assert next(calls) == 5  # one more pass shows the loss at the end
    assert "Iteration 4, loss = " in caplog.text


def test_debug_info_is_shown_where_the_loss_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    solver("display: 3 debug_info: true").step(4, feed=lambda: batch())
    shown = [line for line in caplog.messages if line.startswith("[Forward] Layer ip, top blob y data:")]
    assert len(shown) == 2


def test_no_steps_cost_nothing() -> None:
    small = solver()
    assert float(small.step(0)) == 0
    assert small.smoothed_loss == 0


def test_a_batch_may_have_any_size() -> None:
    small = solver()
    small.step(1, feed=lambda: batch(size=7))
    small.step(1, feed=lambda: batch(size=2))
    assert small.net.blobs["y"].shape == (2, 2)


def test_a_seed_makes_the_same_net() -> None:
    first, second = solver("random_seed: 5"), solver("random_seed: 5")
    assert torch.equal(first.net.weights, second.net.weights)
    assert first.net.weights.any()


# -- testing


def test_scores_are_plain_means_over_batches() -> None:
    small = solver("test_iter: 3 test_interval: 100 test_compute_loss: true")
    calls = count()
    scores = {score.output: score for score in small.test(feed=lambda: batch(next(calls)))}
    means = torch.zeros(2)
    for seed in range(3):
        outputs = small.test_nets[0].forward(batch(seed))
        means += torch.stack([outputs["accuracy"], outputs["loss"]]) / 3
    assert (scores["accuracy"].value, scores["loss"].value) == pytest.approx(means.tolist())
    assert scores["loss"].loss_weight == 2
    assert str(scores["loss"]).endswith(f" (* 2 = {2 * scores['loss'].value:g} loss)")


def test_test_nets_see_what_training_learns() -> None:
    small = solver("test_iter: 1 test_interval: 100")
    small.step(3, feed=lambda: batch())
    outputs, trained = small.test_nets[0].forward(batch(1)), small.net.forward(batch(1))
    assert float(outputs["loss"]) == pytest.approx(float(trained["loss"]))


# -- which nets


def read_nothing(path: str) -> NetParameter:
    return parse_net(f'name: "{path}"')


def all_nets(param: SolverParameter) -> list[NetParameter]:
    return [nets.train_net(param, read_nothing), *nets.test_nets(param, read_nothing)]


def test_test_nets_come_in_caffes_order() -> None:
    param = parse_solver(
        'net: "both" test_net: "b" test_net: "c" test_net_param { name: "a" } test_interval: 1 '
        "test_iter: [1, 2, 3, 4] "
        'test_state { stage: "s" } test_state { } test_state { level: 3 } test_state { }'
    )
    tested = nets.test_nets(param, read_nothing)
    assert [net.name for net in tested] == ["a", "b", "c", "both"]
    assert [net.state.phase for net in tested] == [TEST] * 4
    assert (list(tested[0].state.stage), tested[2].state.level) == (["s"], 3)


def test_the_state_of_the_solver_goes_before_that_of_the_net() -> None:
    param = parse_solver(
        'net_param { name: "n" state { level: 1 stage: "a" } } train_state { level: 2 stage: "b" }'
    )
    net = nets.train_net(param, read_nothing)
    assert (net.state.phase, net.state.level, list(net.state.stage)) == (TRAIN, 2, ["a", "b"])
    assert list(param.net_param.state.stage) == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found none"),
        ('net: "a" train_net: "b"', "found net and train_net"),
        ('train_net: "a" test_iter: 1 test_interval: 1', "one test_iter per test net: 1 for 0"),
        ('net: "a" test_net: "b" test_net: "c" test_iter: 1 test_interval: 1', "1 for 2 nets"),
        ('net: "a" test_iter: 1', "needs test_interval"),
        ('net: "a" test_iter: 1 test_interval: 1 test_state { } test_state { }', "2 for 1"),
    ],
)
def test_a_solver_whose_nets_do_not_fit_is_refused(text: str, message: str) -> None:
    param = parse_solver(text)
    with pytest.raises(ModelError, match=message):
        all_nets(param)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('type: "Adagrad"', "the types are"),
        ("iter_size: 0", "iter_size must be at least 1"),
        ("average_loss: 0", "average_loss must be at least 1"),
        ('regularization_type: "L3"', "L1 or L2"),
        ('type: "RMSProp" momentum: 0.9', "momentum cannot be used"),
    ],
)
def test_a_solver_that_cannot_be_is_refused_when_it_is_made(more: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        solver(more)


def test_an_unknown_policy_is_refused_when_the_solver_is_made() -> None:
    param = parse_solver(f'net_param {{ {NET} }} base_lr: 1 lr_policy: "stairs"')
    with pytest.raises(ModelError, match='unknown lr_policy "stairs"'):
        Solver.for_param(param)


# -- files


def written(folder: Path, more: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "net.prototxt").write_text(NET)
    (folder / "small_solver.prototxt").write_text(f'net: "net.prototxt" {BASE} {more}')
    return folder / "small_solver.prototxt"


def test_a_net_is_found_beside_its_solver(tmp_path: Path) -> None:
    assert Solver.for_file(written(tmp_path)).net.name == "small"


def test_a_net_is_found_from_the_working_folder_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "solvers")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(NET.replace("small", "here"))
    assert Solver.for_file(path).net.name == "here"


def test_weights_named_in_the_solver_are_loaded(tmp_path: Path) -> None:
    source = Net(parse_net(NET), TRAIN)
    source.weights.fill_(0.5)
    weight_files.save(source, tmp_path / "start.caffemodel")
    loaded = Solver.for_file(written(tmp_path, 'weights: "start.caffemodel" test_iter: 1 test_interval: 1'))
    assert (loaded.net.weights == 0.5).all()
    assert (loaded.test_nets[0].params["ip"][0].data == 0.5).all()


@pytest.mark.parametrize(
    ("prefix", "name"),
    [
        ("", "small_solver_iter_0.solverstate"),
        ('snapshot_prefix: "{folder}"', "small_solver_iter_0.solverstate"),
        ('snapshot_prefix: "{folder}/x"', "x_iter_0.solverstate"),
    ],
)
def test_snapshots_are_named_as_caffe_names_them(tmp_path: Path, prefix: str, name: str) -> None:
    path = written(tmp_path, prefix.replace("{folder}", str(tmp_path)))
    assert Solver.for_file(path).snapshot() == tmp_path / name


def test_a_snapshot_may_hold_gradients(tmp_path: Path) -> None:
    small = Solver.for_file(written(tmp_path, "snapshot_diff: true snapshot_format: HDF5"))
    small.step(1, feed=lambda: batch())
    state = solver_state.read(small.snapshot())
    import h5py

    with h5py.File(state.learned_net) as file:
        assert file["diff/ip/0"].shape == (2, 3)


def test_a_missing_net_is_named(tmp_path: Path) -> None:
    path = written(tmp_path)
    (tmp_path / "net.prototxt").unlink()
    with pytest.raises(ModelError, match=r"net\.prototxt"):
        Solver.for_file(path)


# -- states as values


def test_a_state_as_a_value_goes_on_exactly() -> None:
    settings = 'type: "Adam" momentum: 0.9 random_seed: 3'
    straight, resumed = solver(settings), solver(settings)
    for seed in range(3):
        straight.step(1, feed=lambda seed=seed: batch(seed))
    resumed.net.weights.copy_(straight.net.weights)
    resumed.load_state(straight.save_state())
    for one in (straight, resumed):
        one.step(2, feed=lambda: batch(9))
    assert torch.equal(straight.net.weights, resumed.net.weights)
    assert resumed.iter == 5


def test_a_state_that_was_saved_does_not_change_with_the_solver() -> None:
    small = solver("momentum: 0.9")
    small.step(1, feed=lambda: batch())
    saved = small.save_state()
    before = [blob.clone() for blob in saved.history]
    small.step(1, feed=lambda: batch(1))
    assert all(torch.equal(a, b) for a, b in zip(before, saved.history, strict=True))


STATE = weights_file("cifar10_quick_iter_4000.solverstate")


@pytest.mark.parametrize("batches", [0, -1])
def test_a_test_of_no_batches_runs_none_and_training_goes_on(
    batches: int, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("INFO", "caffe")
    net = (
        'layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 } } }'
        'layer { name: "l" type: "Reduction" bottom: "x" top: "l" loss_weight: 1 }'
    )
    param = parse_solver(
        f'net_param {{ {net} }} base_lr: 1 lr_policy: "fixed" max_iter: 2'
        f" test_iter: {batches} test_interval: 1"
        f' test_compute_loss: true snapshot_prefix: "{tmp_path}/s"'
    )
    solver = Solver.for_param(param)
    passes = []
    monitored = solver.test_nets[0].nodes[0].layer
    monitored.forward = lambda bottoms: passes.append(bottoms)  # type: ignore[method-assign,assignment]
    solver.solve()
    assert (solver.iter, passes, solver.test()) == (2, [], [])
    assert "Test loss: nan" in caplog.text


def test_of_several_solvers_only_the_root_tests_and_snapshots(tmp_path: Path) -> None:
    param = parse_solver(
        'net_param { layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 } } } }'
        ' base_lr: 1 lr_policy: "fixed" test_iter: 1 test_interval: 1 snapshot: 1 max_iter: 1'
        f' snapshot_prefix: "{tmp_path}/s"'
    )
    solver = Solver.for_param(param)
    solver.is_root = False
    solver.step(1)
    assert list(tmp_path.iterdir()) == []
    solver.is_root = True
    solver.step(1)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.skipif(STATE is None, reason="SPARKNET_WEIGHTS does not name a folder with published weights")
def test_a_published_state_is_gone_on_from() -> None:
    models = Path(__file__).parents[4] / "apps" / "models"
    solver = Solver.for_file(models / "cifar10_quick_solver.prototxt")
    assert STATE is not None
    solver.restore(STATE)
    assert solver.iter == 4000
    assert solver.net.weights.abs().max() > 0
    assert solver.history[0].any()


WITHOUT_EFFECT = {
    "layer_wise_reduce": "a solver here runs on one device",
    "solver_type": "became type when the file was read",
}


def test_every_setting_of_a_solver_is_read_or_known_to_have_no_effect() -> None:
    folder = Path(nets.__file__).parent
    source = "".join(file.read_text() for file in folder.glob("*.py"))
    read = set(re.findall(r"(?:param|solver|settings|schedule)\.(\w+)", source)) | set(nets.TRAIN_FIELDS)
    assert {field.name for field in SolverParameter.DESCRIPTOR.fields} - read == set(WITHOUT_EFFECT)


def test_the_parameters_that_a_solver_reads_are_caffes_defaults() -> None:
    param = SolverParameter()
    assert (param.delta, param.momentum2, param.rms_decay) == pytest.approx((1e-8, 0.999, 0.99))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("average_loss: 0", "average_loss must be at least 1"),
        ('type: "RMSProp" rms_decay: 1.2', "rms_decay"),
        ('train_net: "x"', "names its train net in one of"),
        ("test_iter: 1", "test_iter needs test_interval"),
    ],
)
def test_what_is_wrong_with_a_solver_is_said_with_its_file(
    setting: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "s.prototxt"
    path.write_text(f'net_param {{ }} base_lr: 1 lr_policy: "fixed" {setting}')
    with pytest.raises(ModelError, match=f"^{path}: .*{message}"):
        Solver.for_file(path)
