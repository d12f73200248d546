"""pycaffe's ``Net``: its numbers are numpy arrays that share the net's memory, whoever writes to them."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from sparknet import caffe
from sparknet.errors import ModelError

NET = """
name: "small" force_backward: true
layer { name: "data" type: "DummyData" top: "data" top: "label"
        dummy_data_param { shape { dim: [5, 2, 3, 4] } shape { dim: 5 }
                           data_filler { type: "gaussian" } data_filler { type: "constant" } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
        param { decay_mult: 1 } param { decay_mult: 0 }
        convolution_param { num_output: 11 kernel_size: 2 pad: 3 weight_filler { type: "gaussian" }
                            bias_filler { type: "constant" value: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "scores"
        inner_product_param { num_output: 13 weight_filler { type: "gaussian" std: 0.05 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "scores" bottom: "label" top: "loss" }
"""

DEPLOY = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: [4, 3] } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
        inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
"""

STAGED = """
layer { name: "in" type: "Input" top: "x" input_param { shape { dim: [1, 3] } } }
layer { name: "a" type: "Power" bottom: "x" top: "a" include { stage: "A" } }
layer { name: "b" type: "Power" bottom: "x" top: "b" include { stage: "B" } }
layer { name: "high" type: "Power" bottom: "x" top: "high" include { min_level: 1 } }
"""


def written(folder: Path, text: str) -> str:
    path = folder / "net.prototxt"
    path.write_text(text)
    return str(path)


@pytest.fixture
def net(tmp_path: Path) -> caffe.Net:
    return caffe.Net(written(tmp_path, NET), caffe.TRAIN)


@pytest.fixture
def deploy(tmp_path: Path) -> caffe.Net:
    return caffe.Net(written(tmp_path, DEPLOY), caffe.TEST)


def test_a_net_names_what_it_is_made_of(net: caffe.Net) -> None:
    assert net.inputs == []
    assert net.outputs == ["loss"]
    assert list(net.blobs) == ["data", "label", "conv", "scores", "loss"]
    assert list(net.params) == ["conv", "ip"]
    assert list(net._layer_names) == ["data", "conv", "ip", "loss"]
    assert net.top_names == OrderedDict(data=["data", "label"], conv=["conv"], ip=["scores"], loss=["loss"])
    assert net.bottom_names == OrderedDict(data=[], conv=["data"], ip=["conv"], loss=["scores", "label"])
    assert [layer.type for layer in net.layers] == [
        "DummyData",
        "Convolution",
        "InnerProduct",
        "SoftmaxWithLoss",
    ]
    assert net.layer_dict["conv"] is net.layers[1]
    assert net.layer_dict["conv"].blobs[1].shape == (11,)
    assert net.blob_loss_weights["loss"] == 1
    assert net._blob_names[net._top_ids(2)[0]] == "scores"


def test_a_blob_tells_its_legacy_axes(net: caffe.Net) -> None:
    blob = net.params["ip"][0]
    assert (blob.num, blob.channels, blob.height, blob.width, blob.count) == (
        13,
        11 * 8 * 9,
        1,
        1,
        13 * 11 * 8 * 9,
    )
    data = net.blobs["data"]
    assert (data.num, data.channels, data.height, data.width) == (5, 2, 3, 4)


def test_parameters_are_written_through_their_arrays(deploy: caffe.Net) -> None:
    deploy.params["ip"][0].data[...] = [[1, 0, 0], [0, 2, 0]]
    deploy.params["ip"][1].data[1] = 10
    deploy.blobs["x"].data[...] = [[1, 2, 3]] * 4
    np.testing.assert_allclose(deploy.forward()["y"], [[1, 14]] * 4)


def test_inputs_can_be_given_by_name(deploy: caffe.Net) -> None:
    x = np.arange(12).reshape(4, 3)
    y = deploy.forward(x=x)["y"]
    weights, biases = (blob.data for blob in deploy.params["ip"])
    np.testing.assert_allclose(y, x @ weights.T + biases, rtol=1e-5, atol=1e-6)


def test_other_blobs_are_given_on_demand(deploy: caffe.Net) -> None:
    assert set(deploy.forward(blobs=["x"])) == {"x", "y"}
    assert set(deploy.backward(diffs=["y"])) == {"x", "y"}


def test_inputs_that_do_not_fit_are_refused(deploy: caffe.Net) -> None:
    with pytest.raises(RuntimeError, match="do not match net inputs"):
        deploy.forward(z=np.zeros((4, 3)))
    with pytest.raises(RuntimeError, match="not batch sized: 2 for 4"):
        deploy.forward(x=np.zeros((2, 3)))
    with pytest.raises(RuntimeError, match="do not match net outputs"):
        deploy.backward(z=np.zeros((4, 3)))


def test_the_labels_of_dummy_data_can_be_overwritten_before_the_first_pass(net: caffe.Net) -> None:
    labels = np.array([1, 12, 3, 4, 5], dtype=np.float32)
    net.blobs["label"].data[...] = labels
    loss = float(net.forward()["loss"])
    np.testing.assert_array_equal(net.blobs["label"].data, labels)
    scores = net.blobs["scores"].data.astype(np.float64)
    chosen = scores[np.arange(5), labels.astype(int)]
    highest = scores.max(axis=1)
    expected = (np.log(np.exp(scores - highest[:, None]).sum(axis=1)) + highest - chosen).mean()
    assert loss == pytest.approx(expected, rel=1e-4)


def test_one_layer_runs_forward_on_what_its_bottom_holds(net: caffe.Net) -> None:
    conv = net.blobs["conv"].data
    conv[...] = np.random.default_rng(1).random(conv.shape)
    scores = net.forward(start="ip", end="ip")["scores"]
    weights, biases = (blob.data for blob in net.params["ip"])
    np.testing.assert_allclose(scores, conv.reshape(5, -1) @ weights.T + biases, rtol=1e-3, atol=1e-3)


def test_one_layer_runs_backward_on_what_its_top_holds(net: caffe.Net) -> None:
    diff = np.random.default_rng(1).random((5, 13)).astype(np.float32)
    net.blobs["scores"].diff[...] = diff
    below = net.backward(start="ip", end="ip")["conv"]
    weights = net.params["ip"][0].data
    np.testing.assert_allclose(below.reshape(5, -1), diff @ weights, rtol=1e-3, atol=1e-3)


def test_top_diffs_can_be_given_by_name(tmp_path: Path) -> None:
    forced = caffe.Net(written(tmp_path, "force_backward: true " + DEPLOY), caffe.TEST)
    forced.forward(x=np.ones((4, 3)))
    forced.clear_param_diffs()
    forced.backward(y=np.ones((4, 2)))
    np.testing.assert_allclose(forced.params["ip"][0].diff, np.full((2, 3), 4))


def test_gradients_of_parameters_add_up_until_they_are_cleared(net: caffe.Net) -> None:
    net.forward()
    net.backward()
    diff = net.params["conv"][0].diff
    once = diff.copy()
    net.backward()
    np.testing.assert_allclose(diff, 2 * once, rtol=1e-5)
    net.clear_param_diffs()
    assert not diff.any()


def test_an_array_that_is_held_shows_each_new_pass(deploy: caffe.Net) -> None:
    x, y = deploy.blobs["x"].data, deploy.blobs["y"].data
    deploy.params["ip"][0].data[...] = 1
    for value in (1, 2):
        x[...] = value
        deploy.forward()
        np.testing.assert_allclose(y, np.full((4, 2), 3 * value))


def test_what_is_written_to_a_held_array_counts_even_after_a_pass(net: caffe.Net) -> None:
    scores = net.blobs["scores"].data
    net.forward()
    net.forward()
    scores[...] = 0
    np.testing.assert_allclose(net.forward(start="loss")["loss"], np.log(13), rtol=1e-5)


def test_arrays_outlive_their_net(net: caffe.Net) -> None:
    blobs, params = net.blobs.values(), [p for ps in net.params.values() for p in ps]
    weights = net.params["ip"][0].data
    del net
    total = sum(float(b.data.sum() + b.diff.sum()) for b in [*blobs, *params])
    assert np.isfinite(total)
    assert weights.any()


def test_an_input_of_another_size_reshapes_the_net(deploy: caffe.Net) -> None:
    deploy.blobs["x"].reshape(7, 3)
    deploy.reshape()
    assert deploy.blobs["y"].shape == (7, 2)
    assert deploy.forward(x=np.ones((7, 3)))["y"].shape == (7, 2)


def test_any_number_of_records_runs_in_batches(deploy: caffe.Net) -> None:
    x = np.random.default_rng(1).random((10, 3)).astype(np.float32)
    y = deploy.forward_all(x=x)["y"]
    weights, biases = (blob.data for blob in deploy.params["ip"])
    np.testing.assert_allclose(y, x @ weights.T + biases, rtol=1e-4, atol=1e-6)


def test_any_number_of_records_runs_forward_and_backward(deploy: caffe.Net, tmp_path: Path) -> None:
    forced = caffe.Net(written(tmp_path, "force_backward: true " + DEPLOY), caffe.TEST)
    x, dy = np.ones((6, 3), np.float32), np.random.default_rng(1).random((6, 2)).astype(np.float32)
    outs, diffs = forced.forward_backward_all(x=x, y=dy)
    assert outs["y"].shape == (6, 2)
    np.testing.assert_allclose(diffs["x"], dy @ forced.params["ip"][0].data, rtol=1e-5)


def test_weights_are_saved_and_loaded(net: caffe.Net, tmp_path: Path) -> None:
    file = str(tmp_path / "weights")
    net.save(file)
    model = written(tmp_path, NET)
    for other in (caffe.Net(model, caffe.TRAIN, weights=file), caffe.Net(model, file, caffe.TRAIN)):
        np.testing.assert_array_equal(other.params["conv"][0].data, net.params["conv"][0].data)


def test_weights_are_saved_and_loaded_as_hdf5_whatever_the_name(net: caffe.Net, tmp_path: Path) -> None:
    file = str(tmp_path / "weights")
    net.save_hdf5(file)
    other = caffe.Net(written(tmp_path, NET), caffe.TRAIN)
    held = other.params["ip"][0].data
    other.load_hdf5(file)
    np.testing.assert_array_equal(held, net.params["ip"][0].data)


def test_nets_can_share_their_weights(net: caffe.Net, tmp_path: Path) -> None:
    other = caffe.Net(written(tmp_path, NET), caffe.TEST)
    other.share_with(net)
    net.params["ip"][0].data[...] = 7
    assert (other.params["ip"][0].data == 7).all()


def test_level_and_stages_choose_layers(tmp_path: Path) -> None:
    file = written(tmp_path, STAGED)
    assert caffe.Net(file, caffe.TEST, stages=["A"]).outputs == ["a"]
    assert caffe.Net(file, caffe.TEST, stages=["A", "B"]).outputs == ["a", "b"]
    assert caffe.Net(file, caffe.TEST, level=1).outputs == ["high"]


def test_callbacks_are_called_for_every_layer_run(net: caffe.Net) -> None:
    calls: list[tuple[str, int]] = []
    net.before_forward(lambda layer: calls.append(("before", layer)))
    net.after_forward(lambda layer: calls.append(("after", layer)))
    net.before_backward(lambda layer: calls.append(("down", layer)))
    net.after_backward(lambda layer: calls.append(("up", layer)))
    net.forward(start="ip")
    assert calls == [("before", 2), ("after", 2), ("before", 3), ("after", 3)]
    calls.clear()
    net.backward(end="ip")
    assert calls == [("down", 3), ("up", 3), ("down", 2), ("up", 2)]


def test_a_callback_may_change_what_the_next_layer_reads(net: caffe.Net) -> None:
    def silence(layer: int) -> None:
        if layer == 2:
            net.blobs["scores"].data[...] = 0

    net.after_forward(silence)
    np.testing.assert_allclose(net.forward()["loss"], np.log(13), rtol=1e-5)


def test_memory_data_reads_the_arrays_it_is_given(tmp_path: Path) -> None:
    text = """layer { name: "d" type: "MemoryData" top: "data" top: "label"
              memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 } }"""
    net = caffe.Net(written(tmp_path, text), caffe.TEST)
    data = np.arange(12, dtype=np.float32).reshape(4, 1, 1, 3)
    net.set_input_arrays(data, np.arange(4, dtype=np.float32))
    for rows in (slice(0, 2), slice(2, 4), slice(0, 2)):
        outputs = net.forward()
        np.testing.assert_array_equal(outputs["data"], data[rows])
        np.testing.assert_array_equal(outputs["label"].ravel(), np.arange(4)[rows])
    with pytest.raises(RuntimeError, match="no multiple of batch_size"):
        net.set_input_arrays(data[:3], np.zeros(3, np.float32))
    with pytest.raises(RuntimeError, match="float32 and C contiguous"):
        net.set_input_arrays(data.astype(float), np.zeros(4, np.float32))


def test_only_memory_data_takes_arrays(deploy: caffe.Net) -> None:
    with pytest.raises(RuntimeError, match="first layer is a MemoryDataLayer"):
        deploy.set_input_arrays(np.zeros((4, 3), np.float32), np.zeros(4, np.float32))


def test_a_missing_file_is_a_runtime_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"Could not open file .*no\.prototxt"):
        caffe.Net(str(tmp_path / "no.prototxt"), caffe.TEST)
    with pytest.raises(RuntimeError, match="Could not open file nothing"):
        caffe.Net(written(tmp_path, DEPLOY), caffe.TEST, weights="nothing")


def test_an_unknown_layer_is_refused_with_the_nearest(net: caffe.Net) -> None:
    with pytest.raises(ModelError, match='nearest: "conv"'):
        net.forward(start="conv1")
