"""MNIST's idx files, plain or gzipped.

An idx file is two zero bytes, a type (8 = unsigned byte), the number of dimensions, each dimension as a
big-endian 32-bit number, then the bytes, last dimension fastest.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sparknet.data.archives import TooLargeError, gunzipped
from sparknet.data.dataset import Dataset, Examples
from sparknet.errors import DataError

LARGEST = 1 << 30  # bytes unpacked; the largest set of this form, EMNIST, has 0.5 GiB
MOST_AXES = 4
CLASSES = tuple("0123456789")
TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
FILES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)


def load(folder: Path | str) -> Dataset:
    """The data set in ``folder``, in ``folder/mnist`` or in ``folder/MNIST/raw``.

    Raises DataError naming the folder or file that is missing, cut short or not MNIST.
    """
    found = find(Path(folder))
    if found is None:
        raise DataError(missing(Path(folder)))
    return Dataset(
        name="MNIST",
        train=_examples(found, TRAIN_IMAGES, TRAIN_LABELS),
        test=_examples(found, TEST_IMAGES, TEST_LABELS),
        classes=CLASSES,
    )


def find(folder: Path) -> Path | None:
    """The folder at or below ``folder`` that holds idx files, if there is one."""
    candidates = (folder, folder / "mnist", folder / "MNIST" / "raw", folder / "raw")
    return next((c for c in candidates if any(_file(c, name) for name in FILES)), None)


def missing(folder: Path) -> str:
    """The sentence for a folder without MNIST in it."""
    state = "has no MNIST in it" if folder.is_dir() else "does not exist"
    return (
        f"{folder} {state}: a folder with {TRAIN_IMAGES} and its three companions, plain or .gz, is needed "
        "(or --data synthetic for drawn pictures)"
    )


def read_idx(file: Path) -> NDArray[np.uint8]:
    """The array in one idx file of unsigned bytes, gunzipped if it ends in ``.gz``.

    Raises DataError if the file is missing, is no such file, or is not as long as its header says.
    """
    raw = _bytes(file)
    if len(raw) < 4 or raw[:3] != b"\0\0\x08":
        raise DataError(f"{file} is no idx file of bytes: it begins with {raw[:4].hex(' ') or 'nothing'}")
    if not 1 <= raw[3] <= MOST_AXES:
        raise DataError(f"{file} is damaged: it says that it has {raw[3]} axes; fetch it again")
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise DataError(f"{file} is cut short inside its header; fetch it again")
    shape = struct.unpack(f">{raw[3]}I", raw[4:start])
    if not len(raw) - start == math.prod(shape) > 0:
        raise DataError(
            f"{file} should hold {' x '.join(map(str, shape))} = {math.prod(shape):,} bytes after its header "
            f"and holds {len(raw) - start:,}: it is cut short or damaged; fetch it again"
        )
    # a copy: the bytes of a file cannot be written to, and torch warns of that
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape).copy()


def read(images_file: Path, labels_file: Path) -> Examples:
    """The pictures in one idx file with the labels in another. Raises DataError if these do not fit."""
    images, labels = read_idx(images_file), read_idx(labels_file)
    if images.ndim != 3 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{images_file.parent}: {images_file.name} is {images.shape} and {labels_file.name} is "
            f"{labels.shape}: they do not belong together"
        )
    return Examples(images[:, None], labels.astype(np.int64))


def _examples(folder: Path, images_name: str, labels_name: str) -> Examples:
    return read(_required(folder, images_name), _required(folder, labels_name))


def _required(folder: Path, name: str) -> Path:
    file = _file(folder, name)
    if file is None:
        raise DataError(f"{folder / name} is missing, plain or .gz: all four files of MNIST are needed")
    return file


def _file(folder: Path, name: str) -> Path | None:
    return next((f for f in (folder / name, folder / f"{name}.gz") if f.is_file()), None)


def _bytes(file: Path) -> bytes:
    try:
        return gunzipped(file, LARGEST) if file.suffix == ".gz" else file.read_bytes()
    except TooLargeError as error:
        raise DataError(f"{file} is no idx file of MNIST's kind: unpacked {error}") from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{file} is damaged or cut short ({error}); fetch it again") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
