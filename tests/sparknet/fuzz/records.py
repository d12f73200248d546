"""What data layers read: databases, HDF5 files, pictures and lists; valid ones, and what reads them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np


def _datum(i: int, picture: bytes) -> bytes:
    from sparknet.caffe.schema.caffe_pb2 import Datum

    if i % 2:
        return Datum(encoded=True, data=picture, label=i).SerializeToString()
    return Datum(channels=3, height=4, width=4, data=bytes(range(48)), label=i).SerializeToString()


def png() -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def lmdb(folder: Path) -> list[Path]:
    import lmdb

    picture = png()
    with lmdb.open(str(folder / "db"), map_size=1 << 24) as database:
        with database.begin(write=True) as transaction:
            for i in range(150):
                transaction.put(b"%08d" % i, _datum(i, picture))
            transaction.put(b"big", bytes(9000))
        with database.begin(write=True) as transaction:
            transaction.delete(b"big")
    return [folder / "db" / "data.mdb"]


def leveldb(folder: Path) -> list[Path]:
    import plyvel

    picture = png()
    database = plyvel.DB(str(folder / "db"), create_if_missing=True)
    for i in range(150):
        database.put(b"%08d" % i, _datum(i, picture))
    database.compact_range()
    for i in range(150, 200):
        database.put(b"%08d" % i, _datum(i, picture))
    database.close()
    return sorted(path for path in (folder / "db").iterdir() if path.name not in ("LOCK", "LOG", "LOG.old"))


def read_database(backend: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        from sparknet.caffe import schema
        from sparknet.caffe.net import Net

        setting = f'data_param {{ source: "{path.parent}" batch_size: 20 backend: {backend} }}'
        net = Net(
            schema.parse_net(f'layer {{ name: "d" type: "Data" top: "data" top: "label" {setting} }}'), 1
        )
        for _ in range(10):
            net.forward()

    return read


def hdf5(folder: Path) -> list[Path]:
    import h5py

    with h5py.File(folder / "rows.h5", "w") as file:
        file["data"] = np.arange(60, dtype=np.float32).reshape(5, 3, 4)
        file.create_dataset("label", data=np.arange(5), compression="gzip", chunks=(2,))
    (folder / "list.txt").write_text(f"{folder / 'rows.h5'}\n")
    return [folder / "rows.h5"]


def read_hdf5(path: Path) -> None:
    from sparknet.caffe import schema
    from sparknet.caffe.net import Net

    setting = f'hdf5_data_param {{ source: "{path.parent / "list.txt"}" batch_size: 4 }}'
    text = f'layer {{ name: "d" type: "HDF5Data" top: "data" top: "label" {setting} }}'
    net = Net(schema.parse_net(text), 1)
    for _ in range(3):
        net.forward()


def make_pictures(folder: Path) -> list[Path]:
    from PIL import Image

    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = {"a.png": {}, "b.jpg": {"exif": exif}, "c.bmp": {}, "d.tif": {}, "e.gif": {}, "f.webp": {}}
    for name, settings in kinds.items():
        Image.fromarray(pixels).save(folder / name, **settings)  # type: ignore[arg-type]
    Image.fromarray(pixels).quantize(4).save(folder / "g.png", transparency=1)
    names = [*kinds, "g.png"]
    (folder / "pictures.txt").write_text("".join(f"{folder}/{name} {i}\n" for i, name in enumerate(names)))
    return [folder / name for name in names]


def read_picture(path: Path) -> None:
    from sparknet.caffe.layers import pictures

    for color in (None, True, False):
        pictures.decode(path.read_bytes(), str(path), color=color)
    pictures.read(path, color=True, height=3, width=5)


def lists(folder: Path) -> list[Path]:
    """Names below a root folder: a seed's damage must not depend on how long the folder's own name is."""
    names = [path.name for path in make_pictures(folder)]
    (folder / "pictures.txt").write_text("".join(f"{name} {i}\n" for i, name in enumerate(names)))
    return [folder / "pictures.txt"]


def read_list(path: Path) -> None:
    from sparknet.caffe import schema
    from sparknet.caffe.net import Net

    setting = (
        f'image_data_param {{ source: "{path}" root_folder: "{path.parent}/" batch_size: 3'
        " new_height: 4 new_width: 4 }"
    )
    Net(
        schema.parse_net(f'layer {{ name: "d" type: "ImageData" top: "data" top: "label" {setting} }}'), 1
    ).forward()


def windows(folder: Path) -> list[Path]:
    make_pictures(folder)
    (folder / "windows.txt").write_text(
        "# 0\na.png\n3\n4\n4\n2\n1 0.9 0 0 3 3\n0 0.1 1 1 2 2\n# 1\nc.bmp\n3\n4\n4\n1\n2 0.8 0 1 3 2\n"
    )
    return [folder / "windows.txt"]


def read_windows(path: Path) -> None:
    from sparknet.caffe import schema
    from sparknet.caffe.net import Net

    for mode in ("warp", "square"):
        setting = (
            f'window_data_param {{ source: "{path}" root_folder: "{path.parent}/" batch_size: 4'
            " fg_fraction: 0.5 context_pad: 1"
            f' crop_mode: "{mode}" }} transform_param {{ crop_size: 5 }}'
        )
        Net(
            schema.parse_net(f'layer {{ name: "d" type: "WindowData" top: "data" top: "label" {setting} }}'),
            1,
        ).forward()
