"""Weight files: read, written, read again; of all ages; broken ones."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from sparknet.caffe import schema
from sparknet.caffe.files import blobs
from sparknet.caffe.files import weights as weight_files
from sparknet.caffe.net import Net
from sparknet.caffe.schema.caffe_pb2 import NetParameter
from sparknet.errors import ModelError

TEXT = """
name: "n" input: "x" input_shape { dim: 2 dim: 3 dim: 6 dim: 6 }
layer { name: "conv/a" type: "Convolution" bottom: "x" top: "c"
        convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "c" top: "b" }
layer { name: "ip1" type: "InnerProduct" bottom: "b" top: "i" param { name: "w" } param { name: "v" }
        inner_product_param { num_output: 64 axis: 1 weight_filler { type: "gaussian" } } }
layer { name: "ip2" type: "InnerProduct" bottom: "i" top: "y" param { name: "w" } param { name: "v" }
        inner_product_param { num_output: 64 } }
"""


def _net(text: str = TEXT) -> Net:
    return Net(schema.parse_net(text), schema.TEST)


@pytest.mark.parametrize("name", ["w.caffemodel", "w.caffemodel.h5"])
def test_weights_that_were_saved_come_back_bit_by_bit(name: str, tmp_path: Path) -> None:
    saved, loaded = _net(), _net()
    saved.weights.normal_()
    saved.save(tmp_path / name)
    loaded.weights.zero_()
    assert {"conv/a", "bn", "ip1"} <= set(loaded.copy_from(tmp_path / name))
    assert torch.equal(saved.weights, loaded.weights)
    loaded.save(tmp_path / f"again.{name}")
    if name.endswith(".caffemodel"):
        assert (tmp_path / name).read_bytes() == (tmp_path / f"again.{name}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"again.{name}"])


def test_a_binary_file_is_caffes_message_with_layers_and_floats(tmp_path: Path) -> None:
    net = _net()
    net.diffs.fill_(2)
    net.save(tmp_path / "w.caffemodel", with_diffs=True)
    message = NetParameter.FromString((tmp_path / "w.caffemodel").read_bytes())
    assert [(layer.name, layer.type) for layer in message.layer][:2] == [
        ("input", "Input"),
        ("conv/a", "Convolution"),
    ]
    blob = message.layer[1].blobs[0]
    assert list(blob.shape.dim) == [4, 3, 3, 3]
    assert list(blob.data) == net.params["conv/a"][0].data.flatten().tolist()
    assert list(blob.diff) == [2.0] * 108
    assert len(message.layer[-1].blobs) == 2, "sharers are written as well"


def test_an_hdf5_file_has_a_group_per_layer_and_shared_blobs_once(tmp_path: Path) -> None:
    net = _net()
    net.save(tmp_path / "w.caffemodel.h5", with_diffs=True)
    with h5py.File(tmp_path / "w.caffemodel.h5") as file:
        np.testing.assert_array_equal(file["data/conv/a/0"][()], net.params["conv/a"][0].data.numpy())
        assert sorted(file["data/ip1"]) == ["0", "1"]
        assert list(file["data/ip2"]) == []
        assert file["diff/bn/2"].shape == (1,)


def test_layers_unknown_to_either_side_are_left_alone(tmp_path: Path) -> None:
    _net().save(tmp_path / "w.caffemodel")
    other = _net(TEXT.replace('"conv/a"', '"conv_new"').replace("xavier", "constant"))
    assert "conv_new" not in other.copy_from(tmp_path / "w.caffemodel")
    assert not other.params["conv_new"][0].data.any()


def test_a_shape_that_does_not_fit_is_named_and_nothing_is_copied(tmp_path: Path) -> None:
    _net().save(tmp_path / "w.caffemodel")
    other = _net(
        TEXT.replace("num_output: 64", "num_output: 32", 1).replace(
            'param { name: "w" } param { name: "v" }', ""
        )
    )
    before = other.weights.clone()
    with pytest.raises(ModelError) as caught:
        other.copy_from(tmp_path / "w.caffemodel")
    assert 'w.caffemodel: layer "ip1" blob 0 has shape (64, 64) there and (32, 64) in the net' in str(
        caught.value
    )
    assert torch.equal(other.weights, before)


def test_another_number_of_blobs_is_an_error(tmp_path: Path) -> None:
    _net().save(tmp_path / "w.caffemodel")
    other = _net(TEXT.replace("kernel_size: 3", "kernel_size: 3 bias_term: false"))
    with pytest.raises(ModelError, match='layer "conv/a" has 2 blobs there and 1 in the net'):
        other.copy_from(tmp_path / "w.caffemodel")


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_file_cut_short_is_an_error(share: float, tmp_path: Path) -> None:
    net = _net()
    net.save(tmp_path / "w.caffemodel")
    data = (tmp_path / "w.caffemodel").read_bytes()
    (tmp_path / "w.caffemodel").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match=r"w\.caffemodel .* cut short"):
        net.copy_from(tmp_path / "w.caffemodel")


def test_what_is_no_weight_file_is_an_error(tmp_path: Path) -> None:
    net = _net()
    with pytest.raises(ModelError, match="there is no weight file"):
        net.copy_from(tmp_path / "absent.caffemodel")
    (tmp_path / "empty.caffemodel").write_bytes(b"")
    with pytest.raises(ModelError, match="holds no layers"):
        net.copy_from(tmp_path / "empty.caffemodel")
    (tmp_path / "net.h5").write_bytes(b"not HDF5 at all")
    with pytest.raises(ModelError, match="as HDF5"):
        net.copy_from(tmp_path / "net.h5")


def test_a_blob_whose_numbers_do_not_fill_its_shape_is_an_error(tmp_path: Path) -> None:
    message = NetParameter()
    message.layer.add(name="ip").blobs.add(data=[1, 2, 3]).shape.dim.extend([2, 2])
    (tmp_path / "w.caffemodel").write_bytes(message.SerializeToString())
    with pytest.raises(ModelError, match=r'layer "ip" blob 0: 3 numbers for a blob of shape \(2, 2\)'):
        weight_files.read(tmp_path / "w.caffemodel")


def _legacy(version: str) -> NetParameter:
    message = NetParameter()
    layer = message.layers.add()
    if version == "V0":
        layer.layer.name = "ip"
        blobs = layer.layer.blobs
    else:
        layer.name = "ip"
        blobs = layer.blobs
    blobs.add(num=1, channels=1, height=2, width=3, data=[1, 2, 3, 4, 5, 6])
    blobs.add(num=1, channels=1, height=1, width=2, data=[7, 8])
    return message


@pytest.mark.parametrize("version", ["V0", "V1"])
def test_files_of_old_give_blobs_four_axes_that_fit_fewer(version: str, tmp_path: Path) -> None:
    (tmp_path / "w.caffemodel").write_bytes(_legacy(version).SerializeToString())
    net = _net(
        'input: "x" input_shape { dim: 1 dim: 3 } layer { name: "ip" type: "InnerProduct" bottom: "x"'
        ' top: "y"'
        " inner_product_param { num_output: 2 } }"
    )
    assert net.copy_from(tmp_path / "w.caffemodel") == ["ip"]
    assert net.weights.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


def test_legacy_axes_fit_from_the_right_only(tmp_path: Path) -> None:
    (tmp_path / "w.caffemodel").write_bytes(_legacy("V1").SerializeToString())
    net = _net(
        'input: "x" input_shape { dim: 1 dim: 2 } layer { name: "ip" type: "InnerProduct" bottom: "x"'
        ' top: "y"'
        " inner_product_param { num_output: 3 } }"
    )
    with pytest.raises(ModelError, match=r"\(1, 1, 2, 3\) there and \(3, 2\) in the net"):
        net.copy_from(tmp_path / "w.caffemodel")


def test_doubles_and_numbers_one_by_one_are_read(tmp_path: Path) -> None:
    message = NetParameter()
    message.layer.add(name="d").blobs.add(double_data=[1.5, 2.5]).shape.dim.append(2)
    unpacked = b"\x3a\x04\x0a\x01\x02\x00"[:0] + b"".join(
        b"\x2d" + np.float32(v).tobytes() for v in (3.5, 4.5)
    )
    layer = b"\x0a\x01u" + b"\x3a" + bytes([len(unpacked) + 5]) + b"\x3a\x03\x0a\x01\x02" + unpacked
    body = message.SerializeToString() + b"\xa2\x06" + bytes([len(layer)]) + layer
    (tmp_path / "w.caffemodel").write_bytes(body)
    weights = weight_files.read(tmp_path / "w.caffemodel")
    assert weights["d"][0].data.tolist() == [1.5, 2.5]
    assert weights["u"][0].data.tolist() == [3.5, 4.5]


def test_a_mean_picture_comes_back(tmp_path: Path) -> None:
    mean = torch.randn(1, 3, 4, 5)
    blobs.write_blob(mean, tmp_path / "mean.binaryproto")
    assert torch.equal(blobs.read_blob(tmp_path / "mean.binaryproto"), mean)


def test_blobs_in_the_description_of_a_net_are_its_weights() -> None:
    text = (
        'input: "x" input_shape { dim: 1 dim: 2 } layer { name: "ip" type: "InnerProduct"'
        ' bottom: "x" top: "y" inner_product_param { num_output: 1 } blobs { %s data: [3, 4] } }'
    )
    assert _net(text % "shape { dim: 1 dim: 2 }").weights.tolist() == [3, 4, 0]
    assert _net(text % "num: 1 channels: 1 height: 1 width: 2").weights.tolist() == [3, 4, 0]
    with pytest.raises(ModelError, match=r"blobs 0 has shape \(2, 1\), and the parameter \(1, 2\)"):
        _net(text % "shape { dim: 2 dim: 1 }")
