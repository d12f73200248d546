"""Layers that bring records into a net: LMDB, pictures, HDF5, windows, memory, dummies, and HDF5 output."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import lmdb
import numpy as np
import pytest
import torch

from sparknet.caffe import schema
from sparknet.caffe.files import blobs
from sparknet.caffe.layers import pictures
from sparknet.caffe.layers.source import MemoryData
from sparknet.caffe.net import Net
from sparknet.caffe.schema.caffe_pb2 import Datum
from sparknet.caffe.schema.unused import UnusedSetting
from sparknet.errors import DataError, ModelError
from tests.sparknet.caffe.oracle import oracle_file

ORACLE = oracle_file("data_layer")
CASES = ["plain", "scale", "meanfile", "meanvalue", "train_mirror_crop"]


@pytest.mark.skipif(ORACLE is None, reason="SPARKNET_ORACLE names no folder with Caffe's numbers")
@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("train")])
def test_batches_of_an_lmdb_are_those_of_caffe(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ORACLE is not None
    monkeypatch.chdir(ORACLE.parent)
    net = Net.for_file(ORACLE / f"{name}.prototxt", schema.TEST)
    batches = [{k: v.clone() for k, v in net.forward().items()} for _ in range(10)]
    with np.load(ORACLE / f"{name}.npz") as expected:
        np.testing.assert_array_equal(torch.cat([b["data"] for b in batches])[:30].numpy(), expected["data"])
        np.testing.assert_array_equal(torch.cat([b["label"] for b in batches]).numpy(), expected["labels"])


@pytest.mark.skipif(ORACLE is None, reason="SPARKNET_ORACLE names no folder with Caffe's numbers")
def test_random_cuts_and_mirrors_are_cuts_of_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ORACLE is not None
    monkeypatch.chdir(ORACLE.parent)
    records = np.load(ORACLE / "raw23.npy")[:, 1:].reshape(-1, 3, 32, 32).astype(np.float32) - 100
    net = Net.for_file(ORACLE / "train_mirror_crop.prototxt", schema.TRAIN)
    torch.manual_seed(1)
    cuts = [cut for _ in range(4) for cut in net.forward()["data"].numpy()]
    found = [_place(cut, record) for cut, record in zip(cuts, records, strict=False)]
    assert len({place[:2] for place in found}) > 5
    assert {place[2] for place in found} == {False, True}


def _place(cut: np.ndarray, record: np.ndarray) -> tuple[int, int, bool]:
    for row in range(5):
        for column in range(5):
            window = record[:, row : row + 28, column : column + 28]
            for is_mirrored, candidate in ((False, window), (True, window[:, :, ::-1])):
                if np.array_equal(cut, candidate):
                    return row, column, is_mirrored
    raise AssertionError("no cut of its record")


# ---- LMDB


def test_encoded_records_come_as_bgr_and_floats_as_they_are(tmp_path: Path) -> None:
    image = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)
    encoded = Datum(data=_png(image), label=7, encoded=True)
    floats = Datum(channels=3, height=4, width=5, float_data=np.linspace(-1, 1, 60), label=2)
    _write_lmdb(tmp_path / "db", [encoded, floats])
    net = Net(schema.parse_net(_data(tmp_path / "db", "batch_size: 1")), schema.TEST)
    np.testing.assert_array_equal(net.forward()["data"][0].numpy(), image[:, :, ::-1].transpose(2, 0, 1))
    assert net.blobs["label"].data.tolist() == [7]
    np.testing.assert_allclose(net.forward()["data"].flatten().numpy(), np.linspace(-1, 1, 60), rtol=1e-6)


def test_an_lmdb_can_be_read_by_two_layers_of_one_process(tmp_path: Path) -> None:
    _write_lmdb(
        tmp_path / "db", [Datum(channels=1, height=1, width=1, data=bytes([i]), label=i) for i in range(3)]
    )
    nets = [Net(schema.parse_net(_data(tmp_path / "db", "batch_size: 2")), schema.TEST) for _ in range(2)]
    assert [net.forward()["label"].tolist() for net in (*nets, nets[0])] == [[0, 1], [0, 1], [2, 0]]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("batch_size: 0", "batch_size must be given"),
        ("batch_size: 2 crop_size: 9", "crop_size is 9"),
        ("batch_size: 2 mean_file: 'absent.binaryproto'", "cannot read absent.binaryproto"),
    ],
)
def test_a_data_layer_refuses_what_it_cannot_honour(setting: str, message: str, tmp_path: Path) -> None:
    _write_lmdb(tmp_path / "db", [Datum(channels=1, height=2, width=2, data=b"1234")])
    with pytest.raises(ModelError, match=message):
        Net(schema.parse_net(_data(tmp_path / "db", setting)), schema.TEST)


def test_broken_databases_are_data_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot open"):
        Net(schema.parse_net(_data(tmp_path / "absent", "batch_size: 1")), schema.TEST)
    _write_lmdb(tmp_path / "short", [Datum(channels=3, height=2, width=2, data=b"1234")])
    with pytest.raises(DataError, match="4 values for a picture of shape"):
        Net(schema.parse_net(_data(tmp_path / "short", "batch_size: 1")), schema.TEST)


# ---- pictures


def test_listed_pictures_come_in_order_resized_and_less_their_mean(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(_png(np.full((6, 8, 3), [10 * i, 1, 2], np.uint8)))
    (tmp_path / "list.txt").write_text("0.png 4\n1.png 5\n2.png 6\n")
    setting = (
        f'image_data_param {{ source: "{tmp_path}/list.txt" root_folder: "{tmp_path}/" batch_size: 2'
        " new_height: 3 new_width: 4 } transform_param { mean_value: 1 scale: 2 }"
    )
    net = Net(schema.parse_net(_layer("ImageData", setting)), schema.TEST)
    assert net.blobs["data"].shape == (2, 3, 3, 4)
    net.forward()
    data, label = net.blobs["data"].data, net.blobs["label"].data
    assert label.tolist() == [4, 5]
    assert data[1, :, 0, 0].tolist() == [2.0, 0.0, 18.0]  # blue, green, red
    assert net.forward()["label"].tolist() == [6, 4]


def test_names_in_a_list_are_bytes_and_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    names = [b"Z\xfcrich.png", "Zürich.png".encode(), "two words\u2028.png".encode(), b"\x85\x0c.png"]
    for i, name in enumerate(names):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_bytes(
            _png(np.full((1, 1, 3), i, np.uint8))
        )
    lines = [name + b" %d" % i for i, name in enumerate(names)]
    (tmp_path / "list.txt").write_bytes(b"\r\n".join(lines) + b"\n\n")
    setting = f'image_data_param {{ source: "{tmp_path}/list.txt" root_folder: "{tmp_path}/" batch_size: 4 }}'
    net = Net(schema.parse_net(_layer("ImageData", setting)), schema.TEST)
    net.forward()
    assert net.blobs["data"].data[:, 0].flatten().tolist() == [0, 1, 2, 3]
    assert net.blobs["label"].data.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("label", ["", "x", "1_0", "１", "99999999999", "1.5"])
def test_a_label_that_is_none_is_named_with_its_line(label: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"\na.png {label}\n")
    with pytest.raises(DataError, match=r'list\.txt:2: not "path label"'):
        Net(schema.parse_net(_layer("ImageData", f'image_data_param {{ source: "{tmp_path}/list.txt" }}')), 0)


def test_shuffled_pictures_all_come_once_per_epoch(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_png(np.zeros((2, 2, 3), np.uint8)))
    (tmp_path / "list.txt").write_text("".join(f"{tmp_path}/a.png {i}\n" for i in range(8)))
    torch.manual_seed(0)
    setting = (
        f'image_data_param {{ source: "{tmp_path}/list.txt" batch_size: 8 shuffle: true is_color: false }}'
    )
    net = Net(schema.parse_net(_layer("ImageData", setting)), schema.TRAIN)
    epochs = [net.forward()["label"].tolist() for _ in range(3)]
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert epochs[0] != epochs[1] != list(range(8))
    assert net.blobs["data"].shape == (8, 1, 2, 2)


def test_a_picture_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a.png 0\n")
    with pytest.raises(DataError, match=r"a\.png: not a picture"):
        Net(
            schema.parse_net(_layer("ImageData", f'image_data_param {{ source: "{tmp_path}/list.txt" }}')),
            schema.TEST,
        )
    (tmp_path / "list.txt").write_text("no-label\n")
    with pytest.raises(DataError, match=r'list\.txt:1: not "path label"'):
        Net(
            schema.parse_net(_layer("ImageData", f'image_data_param {{ source: "{tmp_path}/list.txt" }}')),
            schema.TEST,
        )


def test_resizing_is_linear_between_pixels() -> None:
    image = torch.tensor([[[0, 100], [100, 200]]], dtype=torch.uint8)
    assert pictures.resize(image, 4, 2)[0, :, 0].tolist() == [0, 25, 75, 100]


# ---- HDF5


def test_hdf5_rows_come_file_after_file_and_wrap(tmp_path: Path) -> None:
    _write_h5(tmp_path / "a.h5", data=np.arange(6.0).reshape(3, 2), label=np.array([0, 1, 2]))
    _write_h5(tmp_path / "b.h5", data=np.arange(6.0, 10.0).reshape(2, 2), label=np.array([3, 4]))
    (tmp_path / "files.txt").write_text(f"{tmp_path}/a.h5\n{tmp_path}/b.h5\n")
    setting = f'hdf5_data_param {{ source: "{tmp_path}/files.txt" batch_size: 4 }}'
    net = Net(schema.parse_net(_layer("HDF5Data", setting)), schema.TEST)
    assert net.forward()["label"].tolist() == [0, 1, 2, 3]
    assert net.forward()["label"].tolist() == [4, 0, 1, 2]
    assert net.blobs["data"].data[0].tolist() == [8, 9]


def test_shuffled_hdf5_rows_all_come_once_per_epoch(tmp_path: Path) -> None:
    for i in range(2):
        _write_h5(tmp_path / f"{i}.h5", data=np.zeros((5, 1)), label=np.arange(5 * i, 5 * i + 5))
    (tmp_path / "files.txt").write_text(f"{tmp_path}/0.h5 {tmp_path}/1.h5")
    torch.manual_seed(0)
    setting = f'hdf5_data_param {{ source: "{tmp_path}/files.txt" batch_size: 10 shuffle: true }}'
    net = Net(schema.parse_net(_layer("HDF5Data", setting)), schema.TRAIN)
    epochs = [net.forward()["label"].tolist() for _ in range(4)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert all({x // 5 for x in epoch[:5]} in ({0}, {1}) for epoch in epochs), "files are not mixed"


def test_hdf5_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    _write_h5(tmp_path / "a.h5", data=np.zeros((3, 2)))
    (tmp_path / "files.txt").write_text(f"{tmp_path}/a.h5")
    setting = f'hdf5_data_param {{ source: "{tmp_path}/files.txt" batch_size: 4 }}'
    with pytest.raises(DataError, match=r"a\.h5 has .*label"):
        Net(schema.parse_net(_layer("HDF5Data", setting)), schema.TEST)
    with pytest.raises(ModelError, match="transform_param is not possible here; its data"):
        Net(schema.parse_net(_layer("HDF5Data", setting + " transform_param { scale: 2 }")), schema.TEST)


def test_hdf5_output_holds_the_rows_of_all_forwards(tmp_path: Path) -> None:
    net = Net(
        schema.parse_net(
            'input: "x" input_shape { dim: 2 dim: 3 } input: "l" input_shape { dim: 2 }'
            ' layer { name: "out" type: "HDF5Output" bottom: "x" bottom: "l"'
            f' hdf5_output_param {{ file_name: "{tmp_path}/out.h5" }} }}'
        ),
        schema.TEST,
    )
    batches = [torch.randn(2, 3) for _ in range(3)]
    for i, batch in enumerate(batches):
        net.forward({"x": batch, "l": torch.tensor([i, i])})
    with h5py.File(tmp_path / "out.h5") as file:
        np.testing.assert_array_equal(file["data"][()], torch.cat(batches).numpy())
        assert file["label"][()].tolist() == [0, 0, 1, 1, 2, 2]


# ---- windows


def test_windows_are_drawn_by_their_overlap_and_warped(tmp_path: Path) -> None:
    image = np.zeros((20, 30, 3), np.uint8)
    image[5:10, 8:18] = [50, 100, 150]
    (tmp_path / "a.png").write_bytes(_png(image))
    (tmp_path / "windows.txt").write_text("# 0\na.png\n3\n20\n30\n2\n3 0.9 8 5 17 9\n1 0.1 20 12 28 18\n")
    setting = (
        f'window_data_param {{ source: "{tmp_path}/windows.txt" root_folder: "{tmp_path}/" batch_size: 8 }}'
        " transform_param { crop_size: 6 mean_value: 10 scale: 0.5 }"
    )
    net = Net(schema.parse_net(_layer("WindowData", setting)), schema.TRAIN)
    net.forward()
    data, label = net.blobs["data"].data, net.blobs["label"].data
    assert label.tolist() == [0] * 6 + [3] * 2
    assert data[7, :, 3, 3].tolist() == [70.0, 45.0, 20.0]  # (blue 150, green 100, red 50) - 10, halved
    assert (data[0] == -5).all()


def test_context_beyond_the_picture_is_zero(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(_png(np.full((10, 10, 3), 8, np.uint8)))
    (tmp_path / "windows.txt").write_text("# 0\na.png\n3\n10\n10\n1\n1 1.0 0 0 9 9\n")
    setting = (
        f'window_data_param {{ source: "{tmp_path}/windows.txt" root_folder: "{tmp_path}/" batch_size: 1'
        " fg_fraction: 1 context_pad: 5 } transform_param { crop_size: 20 }"
    )
    net = Net(schema.parse_net(_layer("WindowData", setting)), schema.TEST)
    patch = net.forward()["data"][0, 0]
    assert (patch[:4] == 0).all()
    assert (patch[6:14, 6:14] == 8).all()


def test_a_window_file_that_is_none_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "windows.txt").write_text("# 0\na.png\n3\n10\n10\n2\n1 1.0 0 0 9 9\n")
    setting = f'window_data_param {{ source: "{tmp_path}/windows.txt" batch_size: 1 crop_size: 3 }}'
    with pytest.raises(DataError, match="is not a window file"):
        Net(schema.parse_net(_layer("WindowData", setting)), schema.TEST)


# ---- memory and dummies


def test_memory_data_gives_its_arrays_in_turns() -> None:
    setting = "memory_data_param { batch_size: 2 channels: 1 height: 1 width: 3 }"
    net = Net(schema.parse_net(_layer("MemoryData", setting)), schema.TEST)
    with pytest.raises(ModelError, match="has no images yet"):
        net.forward()
    layer = net.layers[0]
    assert isinstance(layer, MemoryData)
    images = torch.arange(12.0).view(4, 1, 1, 3)
    layer.reset(images, torch.arange(4))
    assert [net.forward()["label"].tolist() for _ in range(3)] == [[0, 1], [2, 3], [0, 1]]
    assert torch.equal(net.blobs["data"].data, images[:2])
    with pytest.raises(ModelError, match="no multiple of batch_size"):
        layer.reset(images[:3], torch.arange(3))


def test_memory_data_does_not_transform_and_says_so() -> None:
    setting = (
        "memory_data_param { batch_size: 1 channels: 1 height: 1 width: 2 } transform_param { scale: 9 }"
    )
    with pytest.warns(UnusedSetting, match=r"\(MemoryData\) does not read transform_param"):
        net = Net(schema.parse_net(_layer("MemoryData", setting)), schema.TEST)
    layer = net.layers[0]
    assert isinstance(layer, MemoryData)
    layer.reset(torch.ones(1, 1, 1, 2), torch.zeros(1))
    assert net.forward()["data"].tolist() == [[[[1, 1]]]]


def test_dummy_data_fills_constants_once_and_draws_the_rest_anew() -> None:
    setting = (
        "dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 4 }"
        ' data_filler { type: "gaussian" } data_filler { type: "constant" value: 7 } }'
    )
    net = Net(schema.parse_net(_layer("DummyData", setting)), schema.TEST)
    first = net.forward()["data"].clone()
    assert net.blobs["label"].data.tolist() == [7] * 4
    assert not torch.equal(first, net.forward()["data"])


def test_dummy_shapes_may_be_given_the_old_way() -> None:
    setting = (
        "dummy_data_param { num: 4 channels: 3 height: 10 width: 9 num: 4 channels: 1 height: 1 width: 1 }"
    )
    net = Net(schema.parse_net(_layer("DummyData", setting)), schema.TEST)
    assert net.blobs["data"].shape == (4, 3, 10, 9)
    assert net.blobs["label"].shape == (4, 1, 1, 1)


def test_a_mean_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    blobs.write_blob(torch.zeros(1, 3, 5, 5), tmp_path / "mean.binaryproto")
    _write_lmdb(tmp_path / "db", [Datum(channels=3, height=2, width=2, data=bytes(12))])
    setting = f'batch_size: 1 mean_file: "{tmp_path}/mean.binaryproto"'
    with pytest.raises(ModelError, match=r"the mean in .* has shape \(3, 5, 5\)"):
        Net(schema.parse_net(_data(tmp_path / "db", setting)), schema.TEST)


def _layer(layer: str, setting: str) -> str:
    return f'layer {{ name: "d" type: "{layer}" top: "data" top: "label" {setting} }}'


def _data(source: Path, setting: str) -> str:
    backend = "" if "backend" in setting else "backend: LMDB"
    return _layer("Data", f'data_param {{ source: "{source}" {setting} {backend} }}')


def _write_lmdb(path: Path, records: list[Datum]) -> None:
    with lmdb.open(str(path), map_size=1 << 20) as database, database.begin(write=True) as transaction:
        for i, record in enumerate(records):
            transaction.put(f"{i:08}".encode(), record.SerializeToString())


def _write_h5(path: Path, **datasets: np.ndarray) -> None:
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name] = values


def _png(pixels: np.ndarray) -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
