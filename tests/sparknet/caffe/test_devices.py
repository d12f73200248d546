"""Nets on other devices than the CPU.

Torch's ``meta`` device has shapes and no numbers, and refuses to mix its tensors with those of the CPU, as a
GPU does: what a layer makes in the wrong place is found without a GPU. Tests marked ``gpu`` compare numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from sparknet import caffe
from sparknet.caffe.net import Net
from sparknet.caffe.schema import TRAIN, parse_net
from sparknet.caffe.schema.caffe_pb2 import SolverParameter
from sparknet.caffe.solver import Solver
from tests.sparknet.caffe.layer_cases import LayerCase, layer_cases

CASES = layer_cases(Path(__file__).parents[2] / "golden" / "caffe_layers")
MODELS = Path(__file__).parents[3] / "apps" / "models"

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU here"),
]

NET = """
layer { name: "data" type: "Input" top: "data" top: "label"
        input_param { shape { dim: [8, 3, 12, 12] } shape { dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "norm" type: "LRN" bottom: "pool" top: "norm" }
layer { name: "drop" type: "Dropout" bottom: "norm" top: "norm" dropout_param { dropout_ratio: 0.1 } }
layer { name: "ip" type: "InnerProduct" bottom: "norm" top: "ip"
        inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
RULES = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")


class NumbersAreZero(TorchDispatchMode):
    """Where a number of a tensor without numbers is asked for, it is 0."""

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 0
        return func(*args, **(kwargs or {}))


def batch(device: str) -> dict[str, torch.Tensor]:
    return {
        "data": torch.randn(8, 3, 12, 12).to(device),
        "label": torch.randint(0, 10, (8,)).float().to(device),
    }


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_layer_makes_all_its_tensors_on_the_nets_device(case: LayerCase, precision: str) -> None:
    with NumbersAreZero():
        net = case.run("meta", precision)
    for name, blob in net.blobs.items():
        assert (blob.data.device.type, blob.diff.device.type) == ("meta", "meta"), name
    for blob in net.learnable:
        assert (blob.data.device.type, blob.diff.device.type) == ("meta", "meta"), blob.name


@pytest.mark.parametrize("rule", RULES)
def test_a_solver_keeps_everything_on_the_nets_device(rule: str) -> None:
    net = Net(parse_net(NET), TRAIN, device="meta")
    param = SolverParameter(type=rule, base_lr=0.1, lr_policy="fixed", weight_decay=0.1, clip_gradients=1)
    solver = Solver(param, net)
    with NumbersAreZero():
        loss = solver.step(2, lambda: batch("meta"))
    assert loss.device.type == "meta"
    assert {vector.device.type for vector in solver.history} == {"meta"}


class TestOnAGpu:
    pytestmark = needs_gpu

    @pytest.fixture(autouse=True)
    def _whole_float32(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        """Convolutions with all 24 bits, not with the 11 of TF32."""
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        yield
        caffe.set_mode_cpu()

    @pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
    def test_a_layer_computes_caffes_numbers(self, case: LayerCase) -> None:
        assert case.mismatches(case.run("cuda")) == []

    @pytest.mark.parametrize("rule", RULES)
    def test_a_solver_goes_the_way_it_goes_on_the_cpu(self, rule: str) -> None:
        text = NET.replace("dropout_ratio: 0.1", "dropout_ratio: 0")
        momentum = 0.0 if rule in ("AdaGrad", "RMSProp") else 0.9
        param = SolverParameter(type=rule, base_lr=0.01, lr_policy="fixed", momentum=momentum)
        nets = [Net(parse_net(text), TRAIN, device=device) for device in ("cpu", "cuda")]
        nets[1].weights.copy_(nets[0].weights)
        for net in nets:
            torch.manual_seed(1)
            Solver(param, net).step(5, lambda: batch("cpu"))
        torch.testing.assert_close(nets[1].weights.cpu(), nets[0].weights, rtol=1e-3, atol=1e-3)

    @pytest.mark.parametrize("precision", ["float32", "bf16", "fp16"])
    def test_a_net_learns(self, precision: str) -> None:
        torch.manual_seed(0)
        net = Net(parse_net(NET), TRAIN, device="cuda", precision=precision)
        solver, same = Solver(SolverParameter(base_lr=0.05, lr_policy="fixed"), net), batch("cuda")
        first = float(solver.step(1, lambda: same))
        solver.step(60, lambda: same)
        assert float(net.loss) < first / 2

    def test_pycaffes_arrays_follow_a_net_on_the_gpu(self, tmp_path: Path) -> None:
        (tmp_path / "net.prototxt").write_text(NET)
        caffe.set_device(0)
        caffe.set_mode_gpu()
        net = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
        net.params["ip"][0].data[...] = 0
        net.params["ip"][1].data[...] = np.arange(10)
        net.blobs["data"].data[...] = 1
        net.blobs["label"].data[...] = 9
        loss = net.forward()["loss"]
        assert np.array_equal(net.blobs["ip"].data[0], np.arange(10, dtype=np.float32))
        assert float(loss) == pytest.approx(0.4586, abs=1e-3)
        net.save(str(tmp_path / "net.caffemodel"))
        caffe.set_mode_cpu()
        again = caffe.Net(
            str(tmp_path / "net.prototxt"), caffe.TEST, weights=str(tmp_path / "net.caffemodel")
        )
        assert np.array_equal(again.params["ip"][1].data, np.arange(10))

    def test_a_model_of_the_apps_trains_in_every_precision(self) -> None:
        for precision in ("float32", "bf16", "fp16"):
            net = Net.for_file(
                MODELS / "cifar10_quick_train_test.prototxt", TRAIN, device="cuda", precision=precision
            )
            solver = Solver(SolverParameter(base_lr=0.001, lr_policy="fixed", momentum=0.9), net)
            images = {"data": torch.randn(100, 3, 32, 32), "label": torch.randint(0, 10, (100,)).float()}
            assert torch.isfinite(solver.step(3, lambda images=images: images))  # type: ignore[misc]
