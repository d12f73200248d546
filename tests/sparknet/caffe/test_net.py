"""What a net does with its layers: inputs, sharing, gradients, in-place layers, losses, errors."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from sparknet.caffe import schema
from sparknet.caffe.layers import TYPES
from sparknet.caffe.net import Net
from sparknet.caffe.node import UnusedSetting
from sparknet.errors import DataError, ModelError, SparkNetError

IP = 'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param { num_output: 2 } }'
INPUT = 'input: "x" input_shape { dim: 4 dim: 3 }'


def _net(text: str, phase: int = schema.TRAIN) -> Net:
    return Net(schema.parse_net(text), phase)


def test_parameters_are_views_of_one_vector_laid_out_by_layer() -> None:
    net = _net(INPUT + IP)
    assert [(slot.name, slot.shape, slot.offset) for slot in net.layout] == [
        ("ip/0", (2, 3), 0),
        ("ip/1", (2,), 6),
    ]
    net.weights.copy_(torch.arange(8.0))
    assert net.params["ip"][1].data.tolist() == [6, 7]
    net.params["ip"][0].diff.fill_(1)
    assert net.diffs.tolist() == [1] * 6 + [0] * 2


def test_inputs_may_have_any_batch_size() -> None:
    net = _net(INPUT + IP)
    assert net.forward({"x": torch.ones(7, 3)})["y"].shape == (7, 2)
    assert net.blobs["y"].shape == (7, 2)
    assert net.forward({"x": torch.ones(1, 3, dtype=torch.float64)})["y"].dtype == torch.float32


def test_an_unknown_input_is_an_error() -> None:
    with pytest.raises(ModelError, match='has no input "z"; its inputs are x'):
        _net(INPUT + IP).forward({"z": torch.ones(1)})


def test_gradients_add_up_until_they_are_cleared() -> None:
    net = _net(INPUT + IP.replace("inner_product_param", "loss_weight: 1 inner_product_param"))
    for _ in range(2):
        net.forward({"x": torch.ones(4, 3)})
        net.backward()
    assert net.diffs.tolist() == [8] * 8
    net.clear_diffs()
    assert not net.diffs.any()


def test_forward_and_backward_run_in_parts() -> None:
    text = (
        INPUT
        + IP
        + 'layer { name: "p" type: "Power" bottom: "y" top: "z" power_param { scale: 3 } loss_weight: 1 }'
    )
    net, whole = _net(text), _net(text)
    whole.weights.copy_(net.weights.normal_())
    x = torch.randn(4, 3)
    whole.forward({"x": x})
    whole.backward()
    net.feed({"x": x})
    assert net.forward_range(0, 1).item() == 0
    net.blobs["y"].data.mul_(2)
    assert net.forward_range(2, 2).item() == pytest.approx(2 * whole.loss.item(), rel=1e-5)
    net.backward_range(2, 2)
    assert net.blobs["y"].diff.unique().tolist() == [3]
    net.backward_range(1, 0)
    torch.testing.assert_close(net.diffs, whole.diffs)


def test_backward_uses_a_gradient_that_was_set_by_hand() -> None:
    net = _net("force_backward: true " + INPUT + IP)
    net.forward({"x": torch.ones(4, 3)})
    net.blobs["y"].diff = torch.full((4, 2), 5.0)
    net.backward()
    assert net.params["ip"][1].diff.tolist() == [20, 20]


def test_backward_may_run_twice_after_one_forward() -> None:
    net = _net(
        'force_backward: true input: "x" input_shape { dim: 2 }'
        ' layer { name: "s" type: "Sigmoid" bottom: "x" top: "y" loss_weight: 1 }'
    )
    net.forward({"x": torch.zeros(2)})
    for _ in range(2):
        net.backward()
    assert net.blobs["x"].diff.tolist() == [0.25, 0.25]


@pytest.mark.parametrize(
    "second", ["ReLU", "Dropout", "Sigmoid", "PReLU", "ELU", "BatchNorm", "Scale", "TanH"]
)
@pytest.mark.parametrize(
    "first", ["InnerProduct", "Split", "Reshape", "Scale", "BatchNorm"]
)  # not Sigmoid, Power: in Caffe, and here, their gradient is made of what the second has left in the blob
def test_an_in_place_layer_computes_what_it_computes_elsewhere(first: str, second: str) -> None:
    setting = {
        "InnerProduct": 'inner_product_param { num_output: 3 weight_filler { type: "xavier" } }',
        "Reshape": "reshape_param { shape { dim: 0 dim: 3 } }",
    }.get(first, "")
    text = (
        "force_backward: true "
        + INPUT
        + f' layer {{ name: "a" type: "{first}" bottom: "x" top: "a" {setting} }}'
        f' layer {{ name: "b" type: "{second}" bottom: "a" top: "%s" }}'
        ' layer { name: "c" type: "Power" bottom: "%s" top: "y" power_param { power: 2 } loss_weight: 1 }'
    )
    nets = []
    for top in ("a", "b"):
        torch.manual_seed(0)
        net = _net(text % (top, top))
        net.forward({"x": torch.linspace(-1, 1, 12).view(4, 3)})
        net.backward()
        nets.append(net)
    in_place, apart = nets
    assert torch.equal(in_place.blobs["y"].data, apart.blobs["y"].data)
    torch.testing.assert_close(in_place.blobs["x"].diff, apart.blobs["x"].diff)
    torch.testing.assert_close(in_place.diffs, apart.diffs)


def test_shared_parameters_are_one_blob_updated_once() -> None:
    share = 'param { name: "w" lr_mult: 3 } param { name: "b" }'
    text = (
        'input: "x" input_shape { dim: 4 dim: 2 }'
        + IP.replace("inner_product_param", share + " inner_product_param")
        + IP.replace('"ip"', '"ip2"')
        .replace('"x"', '"y"', 1)
        .replace('top: "y"', 'top: "z"')
        .replace(
            "inner_product_param",
            'param { name: "w" } param { name: "b" } loss_weight: 1 inner_product_param',
        )
    )
    net = _net(text)
    assert [blob.name for blob in net.learnable] == ["ip/0", "ip/1"]
    assert net.weights.numel() == 6
    assert net.params["ip2"][0].data.data_ptr() == net.params["ip"][0].data.data_ptr()
    assert [blob.lr_mult for blob in net.learnable] == [3, 1]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ('param { name: "w" }', r'parameter 0, "w", of shape \(5, 2\) cannot be that of layer "ip"'),
        ('param { name: "w" share_mode: PERMISSIVE }', "the number of elements differs"),
    ],
)
def test_sharers_of_other_shapes_are_refused(second: str, message: str) -> None:
    text = (
        INPUT
        + IP.replace("inner_product_param", 'param { name: "w" } inner_product_param')
        + IP.replace('"ip"', '"ip2"')
        .replace('"x"', '"y"', 1)
        .replace('top: "y"', 'top: "z"')
        .replace("inner_product_param { num_output: 2", f"{second} inner_product_param {{ num_output: 5")
    )
    with pytest.raises(ModelError, match=message):
        _net(text)


def test_sharers_that_disagree_on_a_multiplier_are_refused() -> None:
    text = 'input: "x" input_shape { dim: 4 dim: 2 }' + "".join(
        f'layer {{ name: "ip{i}" type: "InnerProduct" bottom: "x" top: "y{i}" param {{ name: "w"'
        f" lr_mult: {i} }}"
        " inner_product_param { num_output: 2 } }"
        for i in (1, 2)
    )
    with pytest.raises(ModelError, match=r'sharers of parameter "w" give different lr_mult: \[1\.0, 2\.0\]'):
        _net(text)


def test_a_test_net_shares_the_blobs_of_the_train_net() -> None:
    train, test = _net(INPUT + IP), _net(INPUT + IP, schema.TEST)
    test.share_with(train)
    train.weights.fill_(3)
    assert test.weights is train.weights
    assert test.forward({"x": torch.ones(1, 3)})["y"].tolist() == [[12, 12]]


def test_a_net_that_has_only_some_of_the_layers_shares_those() -> None:
    extra = IP.replace('"ip"', '"more"').replace('top: "y"', 'top: "z"')
    train, test = _net(INPUT + IP + extra), _net(INPUT + IP, schema.TEST)
    test.share_with(train)
    train.params["ip"][0].data.fill_(7)
    assert test.params["ip"][0].data.unique().tolist() == [7]
    with pytest.raises(ModelError, match="shares only some of its parameters"):
        _ = test.weights


def test_parameters_without_rate_get_no_gradient() -> None:
    frozen = IP.replace(
        "inner_product_param", "param { lr_mult: 0 } param { } loss_weight: 1 inner_product_param"
    )
    net = _net(INPUT + frozen)
    net.forward({"x": torch.ones(4, 3)})
    net.backward()
    assert net.diffs.tolist() == [0] * 6 + [4] * 2
    forced = _net("force_backward: true " + INPUT + frozen)
    forced.forward({"x": torch.ones(4, 3)})
    forced.backward()
    assert forced.diffs.tolist() == [4] * 8


def test_a_layer_that_leads_to_no_loss_does_not_run_backward() -> None:
    net = _net(INPUT + IP + 'layer { name: "t" type: "TanH" bottom: "y" top: "z" }')
    assert [node.flow.runs for node in net.nodes] == [False, False, False]


def test_a_loss_layer_may_leave_its_top_unnamed() -> None:
    net = _net(
        INPUT
        + ' input: "l" input_shape { dim: 4 }'
        + IP
        + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "l" }'
    )
    assert net.forward({"x": torch.ones(4, 3), "l": torch.zeros(4)}) == {}
    assert net.loss.item() == pytest.approx(np.log(2), rel=1e-6)


def test_softmax_with_loss_gives_its_probabilities_as_a_second_top() -> None:
    net = _net(
        'input: "y" input_shape { dim: 4 dim: 2 } input: "l" input_shape { dim: 4 }'
        ' layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "l" top: "loss" top: "p" }'
    )
    outputs = net.forward({"y": torch.zeros(4, 2), "l": torch.zeros(4)})
    assert outputs["p"].unique().tolist() == [0.5]
    assert net.loss.item() == outputs["loss"].item()


def test_debug_info_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    net = _net("debug_info: true force_backward: true " + INPUT + IP)
    with caplog.at_level(logging.INFO, "sparknet.caffe"):
        net.forward({"x": torch.ones(4, 3)})
        net.backward()
    assert "[Forward] Layer ip, top blob y data: 0" in caplog.messages
    assert any(m.startswith("[Backward] Layer ip, bottom blob x diff:") for m in caplog.messages)


# ---- errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (IP, 'layer "ip" (InnerProduct): bottom "x" is the top of no layer before it'),
        (INPUT + IP.replace("InnerProduct", "InerProduct"), 'no type "InerProduct"; the nearest is'
                                                            ' "InnerProduct"'),
        (INPUT + IP.replace("InnerProduct", "RELU"), 'no type "RELU"; the nearest is "ReLU"'),
        (INPUT + IP.replace('bottom: "x"', 'bottom: "x" bottom: "x"'), "takes 1 bottoms and has 2"),
        (INPUT + IP.replace('top: "y"', ""), "takes 1 tops and has 0"),
        (INPUT + IP.replace("num_output: 2", ""), "num_output must be positive"),
        (INPUT + IP + IP.replace('"ip"', '"again"'), 'top "y" is the top of a layer before it as well'),
        (INPUT + IP.replace("inner", "param { } param { } param { } inner"), "has 3 param and 2"
                                                                             " parameter blobs"),
        (INPUT + IP + IP.replace('top: "y"', 'top: "z"'), "another layer with parameters has this name"),
        (INPUT + IP.replace("inner", "loss_weight: 1 loss_weight: 2 inner"), "loss_weight is given 2"
                                                                             " times for 1 tops"),
        (INPUT + IP.replace("inner", "propagate_down: [1, 1] inner"), "propagate_down is given 2"),
        (INPUT + IP.replace("{ num", '{ weight_filler { type: "xaver" } num'), 'unknown filler "xaver"'),
        ('input: "x" input_shape { dim: 1 dim: 3 dim: 2 dim: 2 } layer { name: "c" type:'
         ' "Convolution" bottom: "x"'
         ' top: "y" convolution_param { num_output: 1 kernel_size: 3 } }', "a kernel of (3, 3) does not fit"),
        ('input: "x" input_shape { dim: 1 dim: 3 dim: 9 dim: 9 } layer { name: "c" type:'
         ' "Convolution" bottom: "x"'
         ' top: "y" convolution_param { num_output: 4 kernel_size: 3 group: 2 } }', "group 2 divides"
                                                                                    " not both"),
        ('input: "x" input_shape { dim: 1 dim: 3 dim: 9 dim: 9 } layer { name: "c" type:'
         ' "Convolution" bottom: "x"'
         ' top: "y" convolution_param { num_output: 4 kernel_size: 3 kernel_h: 2 kernel_w: 2 } }',
         "keep one"),
        ('input: "x" input_shape { dim: 1 dim: 3 dim: 9 dim: 9 } layer { name: "p" type: "Pooling"'
         ' bottom: "x"'
         ' top: "y" pooling_param { kernel_size: 3 pad: 3 } }', "must be smaller than the window"),
        ('input: "x" input_shape { dim: 2 dim: 3 } input: "l" input_shape { dim: 3 } layer { name: "s"'
         ' type: "SoftmaxWithLoss" bottom: "x" bottom: "l" top: "loss" }', "need 2 labels, and the"
                                                                           " labels have shape (3,)"),
        ('input: "x" input_shape { dim: 2 dim: 3 } layer { name: "b" type: "BatchNorm" bottom: "x" top: "y"'
         " param { lr_mult: 1 } }", "lr_mult must be 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_an_error_that_names_the_layer(text: str, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        _net(text)
    assert message in str(caught.value)


def test_the_file_of_a_net_is_named_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "net.prototxt"
    path.write_text(IP)
    with pytest.raises(ModelError, match=r'net\.prototxt: layer "ip"'):
        Net.for_file(path, schema.TEST)


def test_settings_of_another_type_are_named() -> None:
    with pytest.warns(UnusedSetting, match=r'layer "ip" \(InnerProduct\) does not read pooling_param'):
        _net(INPUT + IP.replace("inner", "pooling_param { stride: 2 } inner"))


@pytest.mark.parametrize("layer", sorted(set(TYPES) - {"Python", "HDF5Output"}))
@pytest.mark.parametrize("shape", ["", "dim: 3", "dim: 0 dim: 2", "dim: -1 dim: 2", "dim: [2, 3, 4, 5, 6]"])
def test_bottoms_of_any_shape_are_taken_or_refused_with_the_layers_name(layer: str, shape: str) -> None:
    arity = TYPES[layer].bottom_arity
    bottoms = " ".join(f'bottom: "x{i}"' for i in range(arity.least))
    tops = " ".join(f'top: "y{i}"' for i in range(TYPES[layer].top_arity.least))
    inputs = " ".join(f'input: "x{i}" input_shape {{ {shape} }}' for i in range(arity.least))
    setting = "clip_param { min: 0 max: 1 }" if layer == "Clip" else ""
    try:
        net = _net(
            f'force_backward: true {inputs} layer {{ name: "l" type: "{layer}" {bottoms} {tops} {setting} }}'
        )
        net.forward()
        net.backward()
    except SparkNetError as error:
        message = str(error)
    else:
        message = 'all is well with "l"'
    assert '"l"' in message or '"input"' in message


def test_what_torch_refuses_is_said_with_the_layers_name_and_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TYPES["HingeLoss"], "compute", lambda _, bottoms, __: [bottoms[0] @ bottoms[0]])
    net = _net(
        'input: "x" input_shape { dim: 2 dim: 3 } input: "l" input_shape { dim: 2 }'
        ' layer { name: "h" type: "HingeLoss" bottom: "x" bottom: "l" top: "loss" }'
    )
    with pytest.raises(ModelError, match=r'layer "h" \(HingeLoss\): cannot be computed .* "l" \(2,\): mat1'):
        net.forward({"x": torch.zeros(2, 3), "l": torch.tensor([0, 2])})


def test_a_bottom_of_another_width_is_an_error_when_it_comes() -> None:
    with pytest.raises(
        ModelError, match=r"the weights are for 3 inputs, and a bottom of shape \(4, 5\) has 5"
    ):
        _net(INPUT + IP).forward({"x": torch.ones(4, 5)})


def test_a_gradient_for_labels_is_refused() -> None:
    net = _net(
        INPUT + IP.replace("num_output: 2", "num_output: 1") + ' input: "s" input_shape { dim: 4 dim: 2 }'
        ' layer { name: "loss" type: "SoftmaxWithLoss" bottom: "s" bottom: "y" top: "loss" }'
    )
    net.forward({"x": torch.zeros(4, 3), "s": torch.zeros(4, 2)})
    with pytest.raises(ModelError, match=r'layer "loss" .* no gradient is possible for bottom 1'):
        net.backward()


# ---- layers written by users


@pytest.fixture
def user_module(monkeypatch: pytest.MonkeyPatch) -> str:
    module = ModuleType("layers_of_a_user")
    exec(
        "from sparknet.caffe.pycaffe.layer import Layer\n"
        "class Scale(Layer):\n"
        "    def setup(self, bottom, top):\n"
        "        self.blobs.add_blob(1)\n"
        "        self.blobs[0].data[...] = float(self.param_str)\n"
        "    def reshape(self, bottom, top):\n"
        "        top[0].reshape(*bottom[0].data.shape)\n"
        "    def forward(self, bottom, top):\n"
        "        top[0].data[...] = bottom[0].data * self.blobs[0].data[0]\n"
        "    def backward(self, top, propagate_down, bottom):\n"
        "        self.blobs[0].diff[...] += (top[0].diff * bottom[0].data).sum()\n"
        "        if propagate_down[0]:\n"
        "            bottom[0].diff[...] = top[0].diff * self.blobs[0].data[0]\n",
        module.__dict__,
    )
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def test_a_layer_in_python_is_trained_like_any_other(user_module: str) -> None:
    net = _net(
        "force_backward: true "
        + INPUT
        + ' layer { name: "u" type: "Python" bottom: "x" top: "y" loss_weight: 1'
        f' python_param {{ module: "{user_module}" layer: "Scale" param_str: "3" }} }}'
    )
    assert net.weights.tolist() == [3]
    first = net.forward({"x": torch.ones(2, 3)})["y"]
    net.backward()
    assert (net.loss.item(), net.diffs.tolist()) == (18, [6])
    assert net.blobs["x"].diff.unique().tolist() == [3]
    net.weights.fill_(5)
    assert net.forward({"x": torch.ones(4, 3)})["y"].unique().tolist() == [5]
    assert first.unique().tolist() == [3], "what was given out stays"


@pytest.mark.parametrize(
    ("module", "layer", "message"),
    [
        ("no_such_module", "A", 'cannot import module "no_such_module"'),
        ("json", "A", 'module "json" has no layer "A"'),
        ("json", "dumps", '"dumps" of module "json" is no class with setup, reshape, forward, backward'),
        ("json", "JSONDecoder", "is no class with setup"),
        ("", "A", '"" is no name of a module'),
        (".json", "A", '".json" is no name of a module'),
        ("a/b.py", "A", 'cannot import module "a/b.py"'),
    ],
)
def test_a_python_layer_that_is_not_there_is_named(module: str, layer: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        _net(
            f'layer {{ name: "u" type: "Python" top: "y" python_param {{ module: "{module}" layer:'
            f' "{layer}" }} }}'
        )


def test_a_python_layer_of_python_2_is_named_with_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old_layer.py").write_text('import caffe\nprint "loaded"\n')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=r"old_layer\.py:2: .*for Python 2"):
        _net('layer { name: "u" type: "Python" top: "y" python_param { module: "old_layer" layer: "A" } }')


@pytest.mark.parametrize(
    ("layer", "shape", "end"),
    [
        ("SoftmaxWithLoss", (2,), "the scores have 4 classes"),
        ("InfogainLoss", (2,), "the scores have 4 classes"),
        ("MultinomialLogisticLoss", (2,), "the scores have 4 classes"),
        ("HingeLoss", (2,), "the scores have 4 classes"),
        ("Accuracy", (2,), "there are 4 classes"),
        ("BatchReindex", (3,), "the bottom has 2 rows"),
    ],
)
@pytest.mark.parametrize("value", [7.0, -1.0, float("nan"), 1e30])
def test_labels_out_of_range_are_refused_in_a_sentence(
    layer: str, shape: tuple[int, ...], end: str, value: float
) -> None:
    """It is the data that is wrong, whatever the net."""
    third = ' input: "z" input_shape { dim: 4 dim: 4 }' if layer == "InfogainLoss" else ""
    bottoms = 'bottom: "x" bottom: "y"' + (' bottom: "z"' if third else "")
    net = _net(
        f'input: "x" input_shape {{ dim: 2 dim: 4 }} input: "y" input_shape {{ dim: {shape[0]} }}{third}'
        f' layer {{ name: "L" type: "{layer}" {bottoms} top: "t" }}'
    )
    is_number = abs(value) < 100
    with pytest.raises(DataError, match=f"and {end}" if is_number else r"not a number \(NaN\), or far"):
        net.forward({"x": torch.ones(2, 4), "y": torch.full(shape, value)})
