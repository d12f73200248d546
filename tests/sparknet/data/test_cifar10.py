"""Both layouts of CIFAR-10, against files made here byte by byte and against the real ones."""

from __future__ import annotations

import hashlib
import pickle
import pickletools
import struct
from pathlib import Path

import numpy as np
import pytest

from sparknet.data import cifar10
from sparknet.errors import DataError
from tests.sparknet.data.real import real_data

NAMES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


def pixel(record: int, channel: int, row: int, column: int) -> int:
    return (record * 7 + channel * 50 + row * 3 + column) % 256


def record_bytes(record: int, label: int) -> bytes:
    """One record as the authors describe it: label, 1,024 red, 1,024 green, 1,024 blue, row by row."""
    pixels = [pixel(record, c, y, x) for c in range(3) for y in range(32) for x in range(32)]
    return struct.pack("3073B", label, *pixels)


def binary_folder(root: Path, records: int = 2) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        content = b"".join(record_bytes(number * records + r, (number + r) % 10) for r in range(records))
        (folder / f"{name}.bin").write_bytes(content)
    return folder


def python_folder(root: Path, records: int = 2) -> Path:
    """The official Python batches: Python 2 pickles of protocol 2 with byte-string keys."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        content = [record_bytes(number * records + r, (number + r) % 10) for r in range(records)]
        (folder / name).write_bytes(python2_batch([c[0] for c in content], b"".join(c[1:] for c in content)))
    return folder


def python2_batch(labels: list[int], pixels: bytes) -> bytes:
    """A batch in the very opcodes of Python 2's cPickle with NumPy 1: strings are bytes, made by hand."""

    def text(value: bytes) -> bytes:
        """SHORT_BINSTRING, or BINSTRING where it is long."""
        size = len(value)
        return (b"U" + bytes([size]) if size < 256 else b"T" + struct.pack("<I", size)) + value

    def number(value: int) -> bytes:
        return b"K" + bytes([value]) if value < 256 else b"J" + struct.pack("<i", value)

    def entry(key: bytes, *parts: bytes) -> bytes:
        return text(key) + b"".join(parts)

    dtype = [b"cnumpy\ndtype\n(", text(b"u1"), number(0), number(1), b"tR("]
    dtype += [number(3), text(b"|"), b"NNN", b"J\xff\xff\xff\xff" * 2, number(0), b"tb"]
    array = [b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(", number(0), b"t", text(b"b")]
    array += [b"tR("]
    array += [number(1), b"(", number(len(labels)), number(3072), b"t", *dtype, b"\x89", text(pixels), b"tb"]
    items = entry(b"data", *array)
    items += entry(b"labels", b"](", *map(number, labels), b"e")
    items += entry(b"batch_label", text(b"training batch 1 of 5"))
    items += entry(b"filenames", b"](", text(b"a.png"), b"e")
    return b"\x80\x02}(" + items + b"u."


def check_pixels(folder: Path) -> None:
    loaded = cifar10.load(folder)
    assert (len(loaded.train), len(loaded.test)) == (10, 2)
    assert loaded.train.labels.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert loaded.test.labels.tolist() == [5, 6]
    assert loaded.train.images[9, 2, 30, 17] == pixel(9, 2, 30, 17)
    assert loaded.test.images[1, 0, 1, 31] == pixel(11, 0, 1, 31)
    assert loaded.classes[6] == "frog"


def test_the_binary_layout_is_read_as_its_authors_describe_it(tmp_path: Path) -> None:
    check_pixels(binary_folder(tmp_path))


def test_python_2_batches_are_read(tmp_path: Path) -> None:
    check_pixels(python_folder(tmp_path))


def test_hand_made_python_2_batches_are_real_pickles(tmp_path: Path) -> None:
    batch = (python_folder(tmp_path) / "test_batch").read_bytes()
    assert [name for name, argument, _ in pickletools.genops(batch) if name.name == "GLOBAL" and argument]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_batches_written_by_python_3_are_read_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    pixels = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072)
    file = tmp_path / "data_batch_1"
    file.write_bytes(pickle.dumps({b"data": pixels, b"labels": [3, 4]}, protocol))
    examples = cifar10.read_python(file)
    assert examples.labels.tolist() == [3, 4]
    assert np.array_equal(examples.images.reshape(2, 3072), pixels)


@pytest.mark.parametrize("given", ["", "parent", "cifar10"])
def test_the_folder_itself_or_one_above_may_be_given(tmp_path: Path, given: str) -> None:
    folder = binary_folder(tmp_path / "cifar10")
    assert len(cifar10.load({"": folder, "parent": folder.parent, "cifar10": tmp_path}[given]).train) == 10


class Explosive:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('the pickle was executed')",)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_pickle_that_would_run_code_is_refused_and_not_run(tmp_path: Path, protocol: int) -> None:
    file = tmp_path / "data_batch_1"
    file.write_bytes(pickle.dumps({b"data": Explosive(), b"labels": [0]}, protocol))
    with pytest.raises(DataError, match=r"asks for .*exec, which is refused"):
        cifar10.read_python(file)


def test_a_pickle_that_numbers_more_objects_than_it_can_hold_is_refused(tmp_path: Path) -> None:
    """Reading it would take 16 bytes for each number: 64 GB."""
    (tmp_path / "data_batch_1").write_bytes(b"\x80\x02}r\xff\xff\xff\xff.")
    with pytest.raises(DataError, match="it counts 4,294,967,295 objects"):
        cifar10.read_python(tmp_path / "data_batch_1")


def test_a_pickle_that_asks_for_another_codec_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "data_batch_1"
    file.write_bytes(b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R.")
    with pytest.raises(DataError, match="codec rot13, which is refused"):
        cifar10.read_python(file)


@pytest.mark.parametrize("cut", [1, 20, 3000])
def test_a_python_batch_cut_short_says_so(tmp_path: Path, cut: int) -> None:
    file = python_folder(tmp_path) / "data_batch_2"
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"data_batch_2 is (no|not a) CIFAR-10 batch,? or is cut short"):
        cifar10.load(tmp_path)


@pytest.mark.parametrize("batch", [b"not a pickle", pickle.dumps([1, 2]), pickle.dumps({"data": 1})])
def test_a_file_that_holds_something_else_is_refused(tmp_path: Path, batch: bytes) -> None:
    file = tmp_path / "data_batch_1"
    file.write_bytes(batch)
    with pytest.raises(DataError, match="CIFAR-10 batch"):
        cifar10.read_python(file)


@pytest.mark.parametrize("length", [0, 1, 3072, 2 * 3073 - 1])
def test_a_binary_file_of_the_wrong_size_is_refused_with_its_size(tmp_path: Path, length: int) -> None:
    folder = binary_folder(tmp_path)
    content = (folder / "data_batch_3.bin").read_bytes()[:length]
    (folder / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(DataError, match=rf"data_batch_3\.bin is {length:,} bytes long"):
        cifar10.load(folder)


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    folder = binary_folder(tmp_path)
    (folder / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"data_batch_4\.bin cannot be read"):
        cifar10.load(folder)


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_the_data_is_named_with_what_to_do(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path if exists else tmp_path / "nowhere"
    with pytest.raises(DataError, match="has no CIFAR-10 in it" if exists else "does not exist") as raised:
        cifar10.load(folder)
    assert str(folder) in str(raised.value)
    assert "--data synthetic" in str(raised.value)


def test_a_label_past_nine_is_refused_with_its_record(tmp_path: Path) -> None:
    file = tmp_path / "data_batch_1.bin"
    file.write_bytes(record_bytes(0, 3) + record_bytes(1, 10))
    with pytest.raises(DataError, match="record 1 has label 10"):
        cifar10.read_binary(file)


def test_what_is_written_is_read_back_the_same(tmp_path: Path) -> None:
    original = cifar10.load(binary_folder(tmp_path / "a", records=3))
    again = cifar10.load(cifar10.write_binary(original, tmp_path / "b"))
    assert np.array_equal(again.train.images, original.train.images)
    assert np.array_equal(again.train.labels, original.train.labels)
    assert np.array_equal(again.test.images, original.test.images)


def test_the_files_written_are_the_authors_byte_for_byte(tmp_path: Path) -> None:
    source = binary_folder(tmp_path / "a")
    target = cifar10.write_binary(cifar10.load(source), tmp_path / "b")
    for name in NAMES:
        assert (target / f"{name}.bin").read_bytes() == (source / f"{name}.bin").read_bytes()


def test_the_arrays_can_be_written_to(tmp_path: Path) -> None:
    loaded = cifar10.load(binary_folder(tmp_path))
    assert loaded.train.images.flags.writeable
    assert loaded.test.images.flags.writeable


def test_the_real_set_has_every_class_equally_often_and_the_bytes_of_its_files() -> None:
    folder = real_data() / "cifar10"
    loaded = cifar10.load(folder)
    assert np.bincount(loaded.train.labels).tolist() == [5000] * 10
    assert np.bincount(loaded.test.labels).tolist() == [1000] * 10
    file = folder / "cifar-10-batches-bin" / "data_batch_2.bin"
    second = loaded.train[10_000:20_000]
    rows = np.column_stack([second.labels.astype(np.uint8), second.images.reshape(10_000, -1)])
    assert hashlib.sha256(rows.tobytes()).digest() == hashlib.sha256(file.read_bytes()).digest()
