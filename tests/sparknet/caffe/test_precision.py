"""Training in bf16 and fp16 beside float32: they differ by what mantissas of 8 and 11 bits round."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from sparknet.caffe.net import Net
from sparknet.caffe.precision import Arithmetic, LossScale, cast
from sparknet.caffe.schema import TEST, TRAIN, parse_net
from sparknet.caffe.schema.caffe_pb2 import SolverParameter
from sparknet.caffe.solver import Solver
from sparknet.caffe_replica import CaffeModel
from sparknet.errors import ModelError

MODELS = Path(__file__).parents[3] / "apps" / "models"

NET = """
name: "small"
layer { name: "data" type: "Input" top: "data" top: "label" input_param { shape { dim: [8, 3, 12, 12] } shape { dim: 8 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 8 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "norm" type: "LRN" bottom: "conv" top: "norm" lrn_param { alpha: 0.1 } }
layer { name: "relu" type: "ReLU" bottom: "norm" top: "norm" }
layer { name: "pool" type: "Pooling" bottom: "norm" top: "pool" top: "mask" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "none" type: "Silence" bottom: "mask" }
layer { name: "group" type: "Convolution" bottom: "pool" top: "group" convolution_param { num_output: 8 kernel_size: 3 pad: 1 group: 2 bias_term: false weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "group" top: "group" }
layer { name: "scale" type: "Scale" bottom: "group" top: "group" scale_param { bias_term: true } }
layer { name: "sum" type: "Eltwise" bottom: "group" bottom: "pool" top: "sum" }
layer { name: "sigmoid" type: "Sigmoid" bottom: "sum" top: "sum" }
layer { name: "up" type: "Deconvolution" bottom: "sum" top: "up" convolution_param { num_output: 4 kernel_size: 2 stride: 2 weight_filler { type: "xavier" } } }
layer { name: "mean" type: "Pooling" bottom: "up" top: "mean" pooling_param { pool: AVE kernel_size: 2 stride: 2 } }
layer { name: "both" type: "Concat" bottom: "mean" bottom: "pool" top: "both" }
layer { name: "ip" type: "InnerProduct" bottom: "both" top: "ip" inner_product_param { num_output: 10 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""  # noqa: E501

EPSILON = {"bf16": 2.0**-8, "fp16": 2.0**-11}  # of one rounding


def batch(seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "data": torch.randn(8, 3, 12, 12, generator=draw),
        "label": torch.randint(0, 10, (8,), generator=draw).float(),
    }


def pair(precision: str, text: str = NET) -> tuple[Net, Net]:
    """The same net in float32 and in ``precision``."""
    torch.manual_seed(1)
    exact = Net(parse_net(text), TRAIN)
    low = Net(parse_net(text), TRAIN, precision=precision)
    low.weights.copy_(exact.weights)
    return exact, low


def solver(net: Net, **settings: object) -> Solver:
    fixed = {"base_lr": 0.01, "lr_policy": "fixed", "momentum": 0.9, "max_iter": 50, **settings}
    return Solver(SolverParameter(**fixed), net)  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_loss_and_gradients_differ_from_those_of_float32_by_its_rounding(precision: str) -> None:
    exact, low = pair(precision)
    for net in (exact, low):
        net.forward(batch())
        net.backward()
    # about ten roundings lie one after the other between data and loss
    assert float((low.loss - exact.loss).abs()) < 10 * EPSILON[precision]
    assert low.loss.dtype == torch.float32
    for mine, theirs in zip(low.learnable, exact.learnable, strict=True):
        if mine.lr_mult:
            assert (mine.diff - theirs.diff).norm() <= 20 * EPSILON[precision] * theirs.diff.norm(), mine.name


def test_bf16_really_computes_in_bf16_and_labels_and_masks_stay_exact() -> None:
    _, low = pair("bf16")
    label = torch.full((8,), 7.0)
    low.forward({"data": batch()["data"], "label": label})
    kinds = {name: blob.data.dtype for name, blob in low.blobs.items()}
    for name in ("conv", "up", "mean", "ip"):
        assert kinds[name] == torch.bfloat16, name
    for name in ("label", "mask", "norm", "sum", "loss"):
        assert kinds[name] == torch.float32, name
    assert {low.weights.dtype, low.diffs.dtype} == {torch.float32}
    exact = cast([label, torch.tensor([257.0])], Arithmetic.LOW, torch.bfloat16, {1})[1]
    assert float(exact) == 257  # which bf16 cannot hold


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_training_goes_the_way_of_float32(precision: str) -> None:
    exact, low = pair(precision)
    losses = []
    for net in (exact, low):
        running = solver(net)
        feed = iter([batch(i % 3) for i in range(60)])
        first = float(running.step(3, lambda feed=feed: next(feed)))  # type: ignore[misc]
        running.step(47, lambda feed=feed: next(feed))  # type: ignore[misc]
        losses.append((first, float(running.net.loss)))
        assert all(vector.dtype == torch.float32 for vector in running.history)
    (first, last), (_, low_last) = losses
    assert last < first / 2  # it learns at all
    assert abs(low_last - last) < 0.1 * first


def test_a_gradient_too_small_for_fp16_survives_by_the_loss_scale() -> None:
    text = NET.replace('top: "loss" }', 'top: "loss" loss_weight: 1e-7 }')
    exact, low = pair("fp16", text)
    for net in (exact, low):
        solver(net, base_lr=0).step(1, batch)  # the update leaves lr * gradient, 0, in the diffs
    exact.clear_diffs()
    exact.forward(batch())
    exact.backward()
    norm = exact.diffs.norm()
    for factor, most in ((1.0, 2.0), (2.0**16, 0.02)):
        low.clear_diffs()
        low.scale_losses(factor)
        low.forward(batch())
        low.backward()
        lost = float((low.diffs / factor - exact.diffs).norm() / norm)
        assert (lost > 0.1) if factor == 1 else (lost < most)


def test_an_update_with_an_infinite_gradient_is_left_out_and_the_scale_halved(
    caplog: pytest.LogCaptureFixture,
) -> None:
    _, low = pair("fp16")
    running = solver(low)
    assert running.loss_scale
    running.loss_scale.value = 2.0**40  # nothing survives this in fp16
    before = low.weights.clone()
    with caplog.at_level(logging.INFO, "caffe"):
        running.step(1, batch)
    for blob, kept in zip(low.learnable, low.layout.views(before).values(), strict=True):
        assert torch.equal(blob.data, kept) or not blob.lr_mult, blob.name
    assert running.loss_scale.value == 2.0**39
    assert not running.history[0].any()
    assert "no update" in caplog.text
    running.step(40, batch)  # it finds a scale that works
    assert running.history[0].any()
    assert torch.isfinite(low.weights).all()


def test_the_scale_moves_as_torchs_own_does() -> None:
    theirs = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=3)
    weight = torch.nn.Parameter(torch.ones(4))
    optimizer = torch.optim.SGD([weight], lr=0.0)
    mine = LossScale("cpu", start=1024.0, interval=3)
    for finite in (True, True, False, True, True, True, True, False, True):
        gradient = torch.ones(4) * theirs.scale(torch.ones(())).item()
        gradient[2] = gradient[2] if finite else torch.inf
        weight.grad = gradient.clone()
        theirs.step(optimizer)
        theirs.update()
        assert mine.unscale(gradient) is finite
        assert mine.value == theirs.get_scale()


def test_clipping_and_iter_size_see_the_gradients_without_the_scale() -> None:
    exact, low = pair("fp16")
    for net in (exact, low):
        solver(net, clip_gradients=0.1, iter_size=2, momentum=0.0, base_lr=1.0).step(1, batch)
    for mine, theirs in zip(low.learnable, exact.learnable, strict=True):
        if mine.lr_mult:
            assert (mine.diff - theirs.diff).norm() <= 0.02 * theirs.diff.norm() + 1e-6, mine.name


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_recurrent_layers_compute_in_bf16(kind: str) -> None:
    text = f"""
    layer {{ name: "x" type: "Input" top: "x" top: "cont" input_param {{ shape {{ dim: [3, 2, 5] }} shape {{ dim: [3, 2] }} }} }}
    layer {{ name: "r" type: "{kind}" bottom: "x" bottom: "cont" top: "h" recurrent_param {{ num_output: 4 weight_filler {{ type: "uniform" min: -0.5 max: 0.5 }} }} }}
    layer {{ name: "sum" type: "Reduction" bottom: "h" top: "sum" loss_weight: 1 }}
    """  # noqa: E501
    exact, low = pair("bf16", text)
    feed = {"x": torch.randn(3, 2, 5), "cont": torch.tensor([[0.0, 0], [1, 1], [1, 0]])}
    for net in (exact, low):
        net.forward(feed)
        net.backward()
    assert low.blobs["h"].data.dtype == torch.bfloat16
    assert (low.diffs - exact.diffs).norm() < 20 * EPSILON["bf16"] * exact.diffs.norm()


def test_a_replica_trains_low_and_scores_in_float32() -> None:
    replica = CaffeModel(
        net=parse_net(NET), solver=SolverParameter(base_lr=0.01, lr_policy="fixed"), precision="bf16"
    )()
    assert (replica.net.dtype, replica.test_net.dtype) == (torch.bfloat16, torch.float32)
    assert torch.isfinite(replica.step(iter([batch()])))


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(ModelError, match='unknown precision "fp8"'):
        Net(parse_net(NET), TEST, precision="fp8")
