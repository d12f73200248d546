"""Layers against numbers of real Caffe: a few cases committed here, all where the oracle is at hand."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
import torch

from sparknet.caffe import schema
from sparknet.caffe.net import Net
from tests.sparknet.caffe.layer_cases import LayerCase, layer_cases
from tests.sparknet.caffe.oracle import oracle_file

GOLDEN = Path(__file__).parents[2] / "golden" / "caffe_layers"
ORACLE = oracle_file("layers")


@pytest.mark.parametrize("case", layer_cases(GOLDEN), ids=lambda case: case.name)
def test_a_layer_computes_the_committed_numbers_of_caffe(case: LayerCase) -> None:
    assert case.mismatches(case.run()) == []


@pytest.mark.skipif(ORACLE is None, reason="SPARKNET_ORACLE names no folder with Caffe's numbers")
@pytest.mark.parametrize("case", layer_cases(ORACLE) if ORACLE else [], ids=lambda case: case.name)
def test_a_layer_computes_all_the_numbers_of_caffe(case: LayerCase) -> None:
    if case.name.startswith("dropout_train"):
        pytest.skip("random: see the test of dropout")
    assert case.mismatches(case.run()) == []


@pytest.mark.parametrize("case", layer_cases(GOLDEN), ids=lambda case: case.name)
def test_blobs_may_be_written_to_between_forward_and_backward(case: LayerCase) -> None:
    assert case.mismatches(case.run(touched=True)) == []


@pytest.mark.parametrize("tops", [1, 2, 3])
def test_the_tops_of_a_slice_take_gradients_set_by_hand(tops: int) -> None:
    names = "abc"[:tops]
    text = " ".join(f'top: "{name}"' for name in names)
    net = Net(
        schema.parse_net(
            'force_backward: true input: "x" input_shape { dim: 2 dim: 6 }'
            f' layer {{ name: "s" type: "Slice" bottom: "x" {text} }}'
        ),
        schema.TRAIN,
    )
    net.forward({"x": torch.arange(12.0).view(2, 6)})
    for i, name in enumerate(names):
        net.blobs[name].data.copy_(net.blobs[name].data.clone())
        net.blobs[name].diff = torch.full_like(net.blobs[name].data, i + 1.0)
    net.backward()
    expected = torch.arange(1.0, tops + 1).repeat_interleave(6 // tops).expand(2, 6)
    assert torch.equal(net.blobs["x"].diff, expected)


def test_what_is_written_to_a_top_of_a_slice_leaves_the_bottom_alone() -> None:
    net = _net("Slice", 'top: "z"', (2, 6), schema.TRAIN)
    net.forward({"x": torch.ones(2, 6)})
    net.blobs["y"].data.fill_(7)
    assert torch.equal(net.blobs["x"].data, torch.ones(2, 6))


def test_dropout_keeps_its_share_scaled_and_passes_the_same_elements_back() -> None:
    torch.manual_seed(3)
    net = _net("Dropout", "dropout_param { dropout_ratio: 0.4 }", (50, 400), schema.TRAIN)
    x = torch.rand(50, 400) + 0.5
    net.forward({"x": x})
    net.blobs["y"].diff = torch.ones(50, 400)
    net.backward()
    kept = net.blobs["y"].data != 0
    torch.testing.assert_close(net.blobs["y"].data[kept], (x / 0.6)[kept])
    torch.testing.assert_close(net.blobs["x"].diff, kept / 0.6)
    assert kept.float().mean().item() == pytest.approx(0.6, abs=0.015)


def test_stochastic_pooling_draws_in_proportion_in_train_and_takes_the_mean_in_test() -> None:
    setting = "pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 }"
    x = torch.tensor([[1.0, 3.0], [0.0, 4.0]]).expand(4000, 1, 2, 2).contiguous()
    torch.manual_seed(0)
    train = _net("Pooling", setting, (4000, 1, 2, 2), schema.TRAIN)
    y = train.forward({"x": x})["y"].flatten()
    shares = [(y == value).float().mean().item() for value in (0.0, 1.0, 3.0, 4.0)]
    assert shares == pytest.approx([0, 1 / 8, 3 / 8, 4 / 8], abs=0.03)
    train.blobs["y"].diff = torch.ones(4000, 1, 1, 1)
    train.backward()
    assert torch.equal((train.blobs["x"].diff * x).flatten(1).sum(1), y)
    test = _net("Pooling", setting, (4000, 1, 2, 2), schema.TEST)
    assert test.forward({"x": x})["y"][0].item() == pytest.approx((1 + 9 + 16) / 8)


def test_stochastic_pooling_windows_may_reach_beyond_the_picture() -> None:
    net = _net(
        "Pooling", "pooling_param { pool: STOCHASTIC kernel_size: 3 stride: 2 }", (2, 3, 6, 7), schema.TRAIN
    )
    x = torch.rand(2, 3, 6, 7)
    y = net.forward({"x": x})["y"]
    assert y.shape == (2, 3, 3, 3)
    net.blobs["y"].diff = torch.ones_like(y)
    net.backward()
    assert net.blobs["x"].diff.shape == x.shape
    assert net.blobs["x"].diff.sum().item() == y.numel()


def test_convolution_over_three_spatial_axes_is_a_sum_over_windows() -> None:
    net = _net(
        "Convolution", "convolution_param { num_output: 2 kernel_size: 2 }", (1, 3, 3, 4, 5), schema.TEST
    )
    net.weights.copy_(torch.randn(net.weights.shape))
    x = torch.randn(1, 3, 3, 4, 5)
    y = net.forward({"x": x})["y"]
    weight, bias = (blob.data for blob in net.params["L"])
    assert y.shape == (1, 2, 2, 3, 4)
    expected = (x[0, :, 1:3, 2:4, 0:2] * weight[1]).sum() + bias[1]
    torch.testing.assert_close(y[0, 1, 1, 2, 0], expected)


def test_several_bottoms_share_the_kernels_of_one_convolution() -> None:
    net = Net(
        schema.parse_net(
            'force_backward: true input: "a" input_shape { dim: 2 dim: 3 dim: 5 dim: 5 }'
            ' input: "b" input_shape { dim: 1 dim: 3 dim: 4 dim: 6 }'
            ' layer { name: "c" type: "Convolution" bottom: "a" bottom: "b" top: "ya" top: "yb"'
            ' convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "xavier" } } }'
        ),
        schema.TEST,
    )
    a, b = torch.randn(2, 3, 5, 5), torch.randn(1, 3, 4, 6)
    tops = net.forward({"a": a, "b": b})
    weight, bias = (blob.data for blob in net.params["c"])
    torch.testing.assert_close(tops["yb"], torch.nn.functional.conv2d(b, weight, bias))
    for name in ("ya", "yb"):
        net.blobs[name].diff = torch.ones_like(tops[name])
    net.backward()
    assert net.params["c"][1].diff.tolist() == [2 * 9 + 8] * 2


@pytest.mark.parametrize("pad", [1, 2])
@pytest.mark.parametrize("pool", ["MAX", "AVE"])
def test_pooling_pads_by_more_than_half_a_window(pool: str, pad: int) -> None:
    setting = f"pooling_param {{ pool: {pool} kernel_size: 3 stride: 2 pad: {pad} }}"
    net = _net("Pooling", setting, (1, 1, 5, 6), schema.TEST)
    x = torch.arange(30.0).view(1, 1, 5, 6) - 40
    y = net.forward({"x": x})["y"]
    filler = -torch.inf if pool == "MAX" else 0.0
    whole = torch.nn.functional.pad(x, (pad, pad + 3, pad, pad + 3), value=filler)
    for (row, column), value in zip(((0, 0), (1, 1)), (y[0, 0, 0, 0], y[0, 0, 1, 1]), strict=True):
        window = whole[0, 0, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3]
        expected = window.max() if pool == "MAX" else window.sum() / 9
        assert value.item() == pytest.approx(expected.item(), rel=1e-6)


def _net(layer: str, setting: str, shape: tuple[int, ...], phase: int) -> Net:
    dims = " ".join(f"dim: {n}" for n in shape)
    return Net(
        schema.parse_net(
            f'force_backward: true input: "x" input_shape {{ {dims} }}'
            f' layer {{ name: "L" type: "{layer}" bottom: "x" top: "y" {setting} }}'
        ),
        phase,
    )


def test_of_equal_maxima_the_first_gets_the_gradient_whatever_the_memory_layout() -> None:
    x = torch.ones(2, 16, 5, 5)
    for layout in (torch.contiguous_format, torch.channels_last):
        net = _net(
            "Pooling", "pooling_param { pool: MAX kernel_size: 3 stride: 2 }", (2, 16, 5, 5), schema.TEST
        )
        net.forward({"x": x.contiguous(memory_format=layout)})
        net.blobs["y"].diff = torch.ones(2, 16, 2, 2)
        net.backward()
        expected = torch.zeros(2, 16, 5, 5)
        expected[:, :, 0:3:2, 0:3:2] = 1
        assert torch.equal(net.blobs["x"].diff, expected)


def test_axes_before_the_channels_are_all_a_batch() -> None:
    setting = "convolution_param { num_output: 2 kernel_size: 2 axis: 2 weight_filler { type: 'xavier' } }"
    net = _net("Convolution", setting, (2, 3, 4, 5, 5), schema.TEST)
    x = torch.randn(2, 3, 4, 5, 5)
    y = net.forward({"x": x})["y"]
    weight, bias = (blob.data for blob in net.params["L"])
    expected = torch.nn.functional.conv2d(x.flatten(0, 1), weight, bias).view(2, 3, 2, 4, 4)
    torch.testing.assert_close(y, expected)
    net.blobs["y"].diff = torch.ones_like(y)
    net.backward()
    assert net.blobs["x"].diff.shape == x.shape


@pytest.mark.parametrize(
    ("power", "scale", "shift", "expected"),
    [(0, 2, 3, 1.0), (2, 0, -3, 9.0), (-1, 0, 0, float("inf"))],
)
def test_a_power_that_does_not_depend_on_its_bottom_is_constant(
    power: float, scale: float, shift: float, expected: float
) -> None:
    net = _net("Power", f"power_param {{ power: {power} scale: {scale} shift: {shift} }}", (2,), schema.TEST)
    assert net.forward({"x": torch.tensor([float("inf"), 1.0])})["y"].tolist() == [expected] * 2
    net.backward()
    assert net.blobs["x"].diff.tolist() == [0, 0]


@pytest.mark.parametrize(
    "layer", ["Scale", "Bias", "PReLU", "ReLU", "Pooling", "Convolution", "Softmax", "Eltwise"]
)
def test_an_empty_batch_passes_forward_and_back(layer: str) -> None:
    setting = {
        "Scale": "scale_param { bias_term: true }",
        "Pooling": "pooling_param { kernel_size: 2 stride: 2 }",
        "Convolution": "convolution_param { num_output: 3 kernel_size: 2 stride: 2 }",
    }.get(layer, "")
    bottom = 'bottom: "x"' if layer == "Eltwise" else ""
    net = _net(layer, bottom + setting, (2, 3, 4, 4), schema.TRAIN)
    y = net.forward({"x": torch.zeros(0, 3, 4, 4)})["y"]
    assert y.shape[:2] == (0, 3)
    net.blobs["y"].diff = torch.zeros_like(y)
    net.backward()
    assert net.blobs["x"].diff.shape == (0, 3, 4, 4)
    assert not net.diffs.any()


GEOMETRY = "kernel_size: 2 kernel_size: 3 stride: 2 stride: 1 pad: 1 pad: 2 dilation: 1 dilation: 2"


def test_columns_of_pictures_are_those_of_unfold() -> None:
    net = _net("Im2col", f"convolution_param {{ {GEOMETRY} }}", (2, 3, 5, 6), schema.TEST)
    x = torch.randn(2, 3, 5, 6)
    columns = net.forward({"x": x})["y"]
    expected = torch.nn.functional.unfold(x, (2, 3), (1, 2), (1, 2), (2, 1))
    assert torch.equal(columns.flatten(2), expected)


def test_columns_over_three_axes_times_kernels_are_the_convolution_and_its_gradient() -> None:
    x, weight = torch.randn(2, 3, 5, 6, 4), torch.randn(7, 3, 2, 3, 2)
    net = _net(
        "Im2col",
        f"convolution_param {{ {GEOMETRY} kernel_size: 2 stride: 3 pad: 0 dilation: 1 }}",
        (2, 3, 5, 6, 4),
        schema.TEST,
    )
    columns = net.forward({"x": x})["y"]
    x.requires_grad_()
    expected = torch.nn.functional.conv3d(x, weight, None, (2, 1, 3), (1, 2, 0), (1, 2, 1))
    found = torch.einsum("ok,nk...->no...", weight.flatten(1), columns)
    torch.testing.assert_close(found, expected.detach())
    diff = torch.randn_like(expected)
    expected.backward(diff)
    net.blobs["y"].diff = torch.einsum("ok,no...->nk...", weight.flatten(1), diff)
    net.backward()
    torch.testing.assert_close(net.blobs["x"].diff, x.grad)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layer", ["Convolution", "Deconvolution"])
def test_a_stride_with_nowhere_to_go_changes_nothing(layer: str, channels: int) -> None:
    kernel, side = ("kernel_size: 6", 6) if layer == "Convolution" else ("kernel_size: 3", 1)
    results = []
    for stride in (1, 65536, 2147483647):
        torch.manual_seed(3)
        setting = f'num_output: 2 {kernel} stride: {stride} weight_filler {{ type: "xavier" }}'
        net = _net(layer, f"convolution_param {{ {setting} }}", (2, channels, side, side), schema.TRAIN)
        top = net.forward({"x": torch.randn(2, channels, side, side)})["y"]
        net.blobs["y"].diff = torch.randn_like(top)
        net.backward()
        results.append((top, net.blobs["x"].diff, net.diffs))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def _by_definition(x: torch.Tensor, weight: torch.Tensor, s: int, p: int, d: int) -> torch.Tensor:
    """A convolution as a sum over the elements of each window; zeros outside, positions counted as in C++."""
    size = weight.shape[2]
    outputs = [int((n + 2 * p - d * (size - 1) - 1) / s) + 1 for n in x.shape[2:]]  # int() cuts towards 0
    y = x.new_zeros(len(x), len(weight), *outputs)
    for i, j, u, v in product(range(outputs[0]), range(outputs[1]), range(size), range(size)):
        row, column = i * s - p + u * d, j * s - p + v * d
        if 0 <= row < x.shape[2] and 0 <= column < x.shape[3]:
            y[:, :, i, j] += x[:, :, row, column] @ weight[:, :, u, v].T
    return y


@pytest.mark.parametrize(
    ("height", "width", "size", "stride", "pad", "dilation"),
    [(2, 2, 3, 2, 0, 1), (2, 5, 3, 2, 0, 1), (1, 1, 3, 3, 0, 1), (2, 3, 3, 4, 0, 2), (1, 2, 5, 4, 1, 1)],
)
def test_a_kernel_larger_than_its_bottom_by_less_than_a_stride_has_one_position(
    height: int, width: int, size: int, stride: int, pad: int, dilation: int
) -> None:
    """Caffe divides towards 0; what the window has beyond the bottom is 0."""
    window = f"kernel_size: {size} stride: {stride} pad: {pad} dilation: {dilation}"
    setting = f"convolution_param {{ num_output: 4 bias_term: false {window} }}"
    net = _net("Convolution", setting, (2, 3, height, width), schema.TRAIN)
    net.weights.copy_(torch.randn(net.weights.shape))
    x = torch.randn(2, 3, height, width)
    y = net.forward({"x": x})["y"]
    mine, weight = x.clone().requires_grad_(), net.params["L"][0].data.clone().requires_grad_()
    expected = _by_definition(mine, weight, stride, pad, dilation)
    torch.testing.assert_close(y, expected)
    diff = torch.randn_like(expected)
    net.blobs["y"].diff = diff.clone()
    net.backward()
    for_x, for_weight = torch.autograd.grad(expected, (mine, weight), diff)
    torch.testing.assert_close(net.blobs["x"].diff, for_x)
    torch.testing.assert_close(net.params["L"][0].diff, for_weight)
    columns = _net("Im2col", f"convolution_param {{ {window} }}", (2, 3, height, width), schema.TEST)
    found = columns.forward({"x": x})["y"].reshape(2, 3 * size * size, -1)
    torch.testing.assert_close((weight.detach().reshape(4, -1) @ found).reshape(y.shape), y)


@pytest.mark.parametrize("axes", [1, 3, 4])
def test_so_it_is_over_any_number_of_axes(axes: int) -> None:
    setting = "convolution_param { num_output: 1 kernel_size: 3 stride: 2 }"
    net = _net("Convolution", setting, (2, 3, *[2] * axes), schema.TRAIN)
    net.weights.fill_(1)
    x = torch.randn(2, 3, *[2] * axes)
    y = net.forward({"x": x})["y"]
    torch.testing.assert_close(y.flatten(), x.flatten(1).sum(1) + 1)
    net.blobs["y"].diff = torch.ones_like(y)
    net.backward()
    assert torch.equal(net.blobs["x"].diff, torch.ones_like(x))


@pytest.mark.parametrize(("pool", "value"), [("MAX", 4.0), ("AVE", 2.5)])
def test_a_pooling_window_larger_than_its_bottom_is_cut(pool: str, value: float) -> None:
    setting = f"pooling_param {{ pool: {pool} kernel_size: 3 stride: 2 }}"
    net = _net("Pooling", setting, (1, 1, 2, 2), schema.TRAIN)
    assert net.forward({"x": torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])})["y"].tolist() == [[[[value]]]]
