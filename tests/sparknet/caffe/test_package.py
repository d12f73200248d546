"""The public surface of ``sparknet.caffe``: the names that scripts for pycaffe know, imported on use."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from sparknet import caffe
from sparknet.caffe import glog
from sparknet.caffe.pycaffe import mode
from sparknet.errors import UsageError

PYCAFFE = (
    {"Net", "SGDSolver", "NesterovSolver", "AdaGradSolver", "RMSPropSolver", "AdaDeltaSolver", "AdamSolver"}
    | {"NCCL", "Layer", "get_solver", "set_mode_cpu", "set_mode_gpu", "set_device", "set_random_seed"}
    | {"layer_type_list", "has_nccl", "init_log", "log", "TRAIN", "TEST", "Classifier", "Detector", "io"}
    | {"Timer", "solver_count", "set_solver_count", "solver_rank", "set_solver_rank", "set_multiprocess"}
    | {"layers", "params", "NetSpec", "to_proto", "draw", "coord_map", "net_spec", "proto"}
)


def test_every_public_name_is_there_and_is_imported_on_demand() -> None:
    for name in caffe.__all__:
        assert getattr(caffe, name) is not None
    assert set(caffe.__all__) <= set(dir(caffe))


def test_the_names_of_pycaffe_are_public() -> None:
    assert set(caffe.__all__) >= PYCAFFE


def test_no_public_name_is_a_private_thing() -> None:
    homes = {name: getattr(getattr(caffe, name), "__module__", "sparknet.caffe") for name in caffe.__all__}
    assert all(home.startswith("sparknet.caffe") for home in homes.values())


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nett'"):
        _ = caffe.Nett


def test_importing_the_package_imports_neither_torch_nor_image_libraries() -> None:
    heavy = "{'torch', 'PIL', 'h5py', 'matplotlib', 'numpy', 'pyspark', 'lmdb'}"
    code = f"import sys; from sparknet import caffe; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_layers_write_layers_and_modules_stay_modules() -> None:
    from sparknet.caffe import layers

    assert isinstance(layers, ModuleType)
    assert layers.Convolution(layers.Input(), num_output=1).fn.type_name == "Convolution"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = layers.nothing


def test_the_messages_are_those_of_the_schema() -> None:
    from sparknet.caffe.proto import caffe_pb2
    from sparknet.caffe.schema import caffe_pb2 as schema

    assert caffe_pb2.NetParameter is schema.NetParameter
    assert (caffe_pb2.TRAIN, caffe_pb2.TEST) == (caffe.TRAIN, caffe.TEST) == (0, 1)


def test_the_types_have_the_standard_layers() -> None:
    types = caffe.layer_type_list()
    assert {"Data", "Convolution", "InnerProduct", "Python", "SoftmaxWithLoss"} <= set(types)
    assert types == sorted(types)


def test_a_seed_begins_the_random_numbers_anew() -> None:
    draws = []
    for _ in range(2):
        caffe.set_random_seed(7)
        draws.append(torch.rand(3).tolist())
    assert draws[0] == draws[1]


def test_the_mode_is_where_nets_compute() -> None:
    caffe.set_mode_cpu()
    assert mode.device().type == "cpu"
    caffe.set_device(1)
    assert mode.device().type == "cpu"
    caffe.set_device(0)


def test_a_timer_measures_from_start_to_stop() -> None:
    timer = caffe.Timer()
    assert timer.ms == 0
    timer.start()
    time.sleep(0.02)
    timer.stop()
    assert 20 <= timer.ms < 2000
    assert timer.ms == timer.ms
    timer.start()
    assert timer.ms < 2000, "reading it stops it"


def test_the_count_and_the_rank_of_solvers_are_what_the_script_said() -> None:
    assert (caffe.solver_count(), caffe.solver_rank()) == (1, 0)
    caffe.set_solver_count(4)
    caffe.set_solver_rank(3)
    caffe.set_multiprocess(True)
    assert (caffe.solver_count(), caffe.solver_rank()) == (4, 3)
    caffe.set_solver_count(1)
    caffe.set_solver_rank(0)


PYTHON_LAYER = """
import caffe
import caffe.io
from caffe import layers as L, params as P
from caffe.proto import caffe_pb2

class Double(caffe.Layer):
    def setup(self, bottom, top):
        assert caffe_pb2.TEST == caffe.TEST and L.ReLU and P.Pooling and caffe.io.Transformer
    def reshape(self, bottom, top): top[0].reshape(*bottom[0].data.shape)
    def forward(self, bottom, top): top[0].data[...] = 2 * bottom[0].data
    def backward(self, top, propagate_down, bottom): bottom[0].diff[...] = 2 * top[0].diff
"""
PYTHON_NET = """
layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 }
        data_filler { type: "constant" value: 3 } } }
layer { name: "p" type: "Python" bottom: "x" top: "y"
        python_param { module: "layers_of_old" layer: "Double" } }
"""
PYTHON_SOLVER = 'net: "net.prototxt" base_lr: 1 lr_policy: "fixed" max_iter: 1 snapshot_after_train: false'


@pytest.mark.parametrize(
    "command",
    [
        "summary net.prototxt",
        "time --model net.prototxt --iterations 1",
        "train --solver solver.prototxt",
        "test --model net.prototxt --weights empty.caffemodel --iterations 1",
    ],
)
def test_a_python_layer_that_imports_caffe_works_under_every_command(command: str, tmp_path: Path) -> None:
    (tmp_path / "layers_of_old.py").write_text(PYTHON_LAYER)
    (tmp_path / "net.prototxt").write_text(PYTHON_NET)
    (tmp_path / "solver.prototxt").write_text(PYTHON_SOLVER)
    (tmp_path / "empty.caffemodel").write_bytes(
        caffe.proto.caffe_pb2.NetParameter(layer=[{"name": "p"}]).SerializeToString()
    )
    ran = subprocess.run(
        [sys.executable, "-m", "sparknet.cli", "caffe", *command.split()],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    if command.startswith("test"):
        assert "y = 6" in ran.stdout


def test_import_caffe_gives_this_package_and_no_second_copy(tmp_path: Path) -> None:
    code = (
        "from sparknet import caffe; import sparknet.caffe.io as io;"
        "from sparknet.caffe.pycaffe.alias import install; install(); install();"
        "import caffe as other, caffe.io;"
        "print(other is caffe, caffe.io is io, caffe.__spec__.name, io.__spec__.name);"
        "import caffe.nothing"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ran.stdout.split() == ["True", "True", "sparknet.caffe", "sparknet.caffe.io"]
    assert "ModuleNotFoundError: No module named 'caffe.nothing'" in ran.stderr


def test_what_was_imported_as_caffe_before_stays(tmp_path: Path) -> None:
    (tmp_path / "caffe.py").write_text("mark = 'the real one'")
    code = (
        "import caffe; from sparknet.caffe.pycaffe.alias import install; install();"
        "import caffe; print(caffe.mark)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.stdout.strip() == "the real one"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpu_mode_without_a_gpu_warns_and_stays() -> None:
    with pytest.warns(UserWarning, match="no CUDA GPU"):
        caffe.set_mode_gpu()
    assert mode.device().type == "cpu"


def test_there_is_no_nccl_and_it_says_what_to_use() -> None:
    assert not caffe.has_nccl()
    for use in (caffe.NCCL, caffe.NCCL.new_uid):
        with pytest.raises(UsageError, match="NCCL is not part of this package"):
            use()


@pytest.fixture
def _bare_log() -> Iterator[None]:
    logger = logging.getLogger("caffe")
    before = logger.handlers[:], logger.propagate, logger.level
    logger.handlers.clear()
    yield
    logger.handlers[:], logger.propagate = before[:2]
    logger.setLevel(before[2])


@pytest.mark.usefixtures("_bare_log")
def test_the_log_goes_to_stderr_in_the_form_of_glog(capsys: pytest.CaptureFixture[str]) -> None:
    glog.init_log(0)
    glog.init_log(0)
    caffe.log("a line of mine")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("I")
    assert line.endswith("] a line of mine")
    assert "test_package.py:" in line


@pytest.mark.usefixtures("_bare_log")
def test_a_higher_level_keeps_lines_back(capsys: pytest.CaptureFixture[str]) -> None:
    glog.init_log(2)
    caffe.log("not this")
    assert capsys.readouterr().err == ""
