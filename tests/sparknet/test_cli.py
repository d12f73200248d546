"""The ``sparknet caffe`` commands, run as a user runs them, on nets that make their own data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sparknet import cli
from sparknet.caffe.schema import load_net
from sparknet.caffe.schema.caffe_pb2 import NetParameter
from sparknet.errors import SchemaError

NET = """
name: "small"
layer { name: "data" type: "DummyData" top: "data" top: "label"
        dummy_data_param { shape { dim: [5, 2, 6, 6] } shape { dim: 5 }
                           data_filler { type: "gaussian" } data_filler { type: "constant" value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip"
        inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
        include { phase: TEST } }
layer { name: "silence" type: "Silence" bottom: "conv" include { stage: "quiet" } }
"""

SOLVER = """
net: "net.prototxt" test_iter: 2 test_interval: 5 base_lr: 0.1 lr_policy: "fixed" momentum: 0.9
display: 2 max_iter: 10 snapshot: 6 snapshot_prefix: "{prefix}" solver_mode: CPU random_seed: 1
"""

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(SOLVER.replace("{prefix}", str(tmp_path / "snap")))
    return tmp_path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.cli, ["caffe", *map(str, arguments)], catch_exceptions=False)


def status(*arguments: str | Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["sparknet", "caffe", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


def test_training_tests_displays_and_snapshots(folder: Path) -> None:
    assert run("train", "--solver", folder / "solver.prototxt").exit_code == 0
    for name in ("snap_iter_6.caffemodel", "snap_iter_6.solverstate", "snap_iter_10.caffemodel"):
        assert (folder / name).exists()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_training_and_timing_in_low_precision(folder: Path, precision: str) -> None:
    assert run("train", "--solver", folder / "solver.prototxt", "--precision", precision).exit_code == 0
    assert (folder / "snap_iter_10.caffemodel").exists()
    timed = run("time", "--model", folder / "net.prototxt", "--iterations", "1", "--precision", precision)
    assert "conv" in timed.output


def test_training_goes_on_from_a_snapshot(folder: Path) -> None:
    solver = folder / "solver.prototxt"
    run("train", "--solver", solver, "--iterations", "7")
    (folder / "snap_iter_7.caffemodel").unlink()
    result = run(
        "train", "--solver", solver, "--snapshot", folder / "snap_iter_6.solverstate", "--iterations", "8"
    )
    assert result.exit_code == 0
    assert (folder / "snap_iter_8.caffemodel").exists()
    assert not (folder / "snap_iter_7.caffemodel").exists()


def test_training_begins_with_weights(folder: Path) -> None:
    solver = folder / "solver.prototxt"
    run("train", "--solver", solver)
    result = run(
        "train", "--solver", solver, "--weights", folder / "snap_iter_10.caffemodel", "--iterations", "1"
    )
    assert result.exit_code == 0


def test_a_net_is_scored(folder: Path) -> None:
    run("train", "--solver", folder / "solver.prototxt")
    weights = folder / "snap_iter_10.caffemodel"
    result = run("test", "--model", folder / "net.prototxt", "--weights", weights, "--iterations", "3")
    lines = dict(line.split(" = ")[:2] for line in result.output.splitlines() if " = " in line)
    assert float(lines["accuracy"]) == 1  # every label is 1, which is soon learned
    assert float(lines["loss"].split()[0]) < 0.5


def test_every_layer_is_timed(folder: Path) -> None:
    lines = run("time", "--model", folder / "net.prototxt", "--iterations", "1").output.splitlines()
    assert [line.split()[0] for line in lines] == ["layer", "data", "conv", "ip", "loss", "forward"]


def test_a_net_is_summed_up(folder: Path) -> None:
    output = run("summary", folder / "net.prototxt").output
    conv = next(line for line in output.splitlines() if line.startswith("conv"))
    assert conv.split() == ["conv", "Convolution", "5x4x4x4", "76", "5,760"]
    assert "271 parameters (0.0 MB)" in output
    assert "6,720 multiply-adds a pass" in output


def test_phase_and_stage_choose_the_layers(folder: Path) -> None:
    assert "accuracy" in run("summary", folder / "net.prototxt", "--phase", "TEST").output
    assert "silence" in run("summary", folder / "net.prototxt", "--stage", "quiet").output


def test_a_net_is_drawn(folder: Path) -> None:
    run("draw", folder / "net.prototxt", folder / "net.svg", "--phase", "TRAIN")
    drawn = (folder / "net.svg").read_text()
    assert "(Convolution)" in drawn
    assert "accuracy" not in drawn


def test_an_old_net_is_brought_up_to_date(folder: Path) -> None:
    (folder / "old.prototxt").write_text(
        'input: "x" input_dim: [1, 2, 3, 4] layers { name: "r" type: RELU bottom: "x" top: "x" }'
    )
    output = run("upgrade", folder / "old.prototxt").output
    assert load_net(output) == load_net(folder / "old.prototxt")
    run("upgrade", folder / "old.prototxt", folder / "new.prototxt")
    assert (folder / "new.prototxt").read_text() == output
    assert "layers" not in output


def test_the_net_of_a_fork_is_written_without_what_is_the_forks(folder: Path) -> None:
    (folder / "fork.prototxt").write_text(
        'layer {\n name: "p" type: "Pooling" fork_param { a: 1 } pooling_param { ceil_mode: false } }'
    )
    with pytest.raises(SchemaError, match="upgrade --tolerant"):
        run("upgrade", folder / "fork.prototxt")
    ran = run("upgrade", "--tolerant", folder / "fork.prototxt")
    assert "round_mode: FLOOR" in ran.stdout
    assert "fork_param" not in ran.stdout
    assert ran.stderr == f"left out: {folder / 'fork.prototxt'}:2:28: LayerParameter.fork_param\n"


def test_a_setting_that_an_old_layer_never_had_is_named_in_a_line(folder: Path) -> None:
    (folder / "old.prototxt").write_text('layers { layer { name: "r" type: "relu" kernelsize: 3 } }')
    ran = run("upgrade", folder / "old.prototxt")
    said = 'V0 layer "r" of type relu has no setting kernelsize: left out, as in Caffe'
    assert ran.stderr == f"{folder / 'old.prototxt'}: {said}\n"


def test_an_old_solver_is_brought_up_to_date(folder: Path) -> None:
    (folder / "old.prototxt").write_text("solver_type: ADAGRAD base_lr: 0.1")
    assert 'type: "AdaGrad"' in run("upgrade", "--solver", folder / "old.prototxt").output


def test_old_weights_are_brought_up_to_date(folder: Path) -> None:
    old = NetParameter()
    layer = old.layers.add(name="ip", type=14)  # INNER_PRODUCT
    layer.blobs.add(data=[1, 2])
    (folder / "old.caffemodel").write_bytes(old.SerializeToString())
    run("upgrade", folder / "old.caffemodel", folder / "new.caffemodel")
    new = NetParameter.FromString((folder / "new.caffemodel").read_bytes())
    assert (new.layer[0].type, list(new.layer[0].blobs[0].data)) == ("InnerProduct", [1, 2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "--solver", "no.prototxt"), "no.prototxt"),
        (("train",), "Missing option '--solver'"),
        (("summary", "no.prototxt"), "no.prototxt"),
        (("upgrade", "no.caffemodel", "x"), "no file no.caffemodel"),
        (("time", "--model", "net.prototxt", "--gpu", "99"), "there is no GPU 99"),
        (("test", "--model", "input.prototxt", "--weights", "x"), "must be fed by a program"),
        (("train", "--solver", "input_solver.prototxt"), "x of the net must be fed by a program"),
        (("train", "--solver", "x", "--weights", "a", "--snapshot", "b"), "not both"),
        (("summary", "broken.prototxt"), "broken.prototxt:1:"),
        (("upgrade", "broken.caffemodel", "x"), "not a .caffemodel"),
        (("draw", "net.prototxt", "x.xyz"), "use svg, png or dot"),
    ],
)
def test_input_that_cannot_be_used_leaves_with_2_and_one_sentence(
    folder: Path,
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (folder / "input.prototxt").write_text('input: "x" input_shape { dim: 1 }')
    (folder / "input_solver.prototxt").write_text('net: "input.prototxt" base_lr: 1 lr_policy: "fixed"')
    (folder / "broken.prototxt").write_text("layer { nmae: 1 }")
    (folder / "broken.caffemodel").write_bytes(b"\xff\xff")
    monkeypatch.chdir(folder)
    assert status(*arguments, monkeypatch=monkeypatch) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_an_error_of_the_system_ends_with_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder stands where the drawing would be written."""
    (folder / "net.svg").mkdir()
    assert status("draw", folder / "net.prototxt", folder / "net.svg", monkeypatch=monkeypatch) == 7
    said = capsys.readouterr().err
    assert said.startswith("sparknet: ")
    assert "Is a directory" in said


def test_an_interrupt_stops_training_with_a_snapshot(folder: Path) -> None:
    forever = (folder / "solver.prototxt").read_text().replace("max_iter: 10", "max_iter: 10000000")
    (folder / "solver.prototxt").write_text(forever.replace("snapshot: 6", "snapshot: 0"))
    command = [sys.executable, "-m", "sparknet.cli", "caffe", "train", "--solver", "solver.prototxt"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    with process.stderr as log:
        for line in log:
            if "Iteration 2 (" in line:
                process.send_signal(signal.SIGHUP)
                process.send_signal(signal.SIGINT)
                break
        rest = log.read()
    assert process.wait(timeout=60) == 0
    assert "Optimization stopped early." in rest
    assert len(list(folder.glob("snap_iter_*.caffemodel"))) >= 1
