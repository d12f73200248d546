"""CIFAR-10 files: the official binary layout and the official Python batches, read and written.

Binary: records of 3,073 bytes, one label then 1,024 bytes each of red, green and blue, row by row
(https://www.cs.toronto.edu/~kriz/cifar.html). A file may hold any whole number of records; the official ones
hold 10,000. The Python batches are pickles, and a pickle can run any code, so they are read by an unpickler
that knows the four names such a file needs and refuses every other.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparknet.data.dataset import Dataset, Examples
from sparknet.errors import DataError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (3, 32, 32)
RECORD_BYTES = 1 + 3 * 32 * 32
BINARY_FOLDER = "cifar-10-batches-bin"
PYTHON_FOLDER = "cifar-10-batches-py"
BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST_BATCH = "test_batch"


def load(folder: Path | str) -> Dataset:
    """The data set in ``folder``, in either layout.

    ``folder`` may be the one that holds the batches, its parent, or the parent of a ``cifar10`` folder.
    Raises DataError naming the folder or file that is missing, cut short or not CIFAR-10.
    """
    found = find(Path(folder))
    if found is None:
        raise DataError(missing(Path(folder)))
    read = read_python if _is_python(found) else read_binary
    suffix = "" if _is_python(found) else ".bin"
    parts = [read(found / f"{name}{suffix}") for name in BATCHES]
    train = Examples(np.concatenate([p.images for p in parts]), np.concatenate([p.labels for p in parts]))
    return Dataset(name="CIFAR-10", train=train, test=read(found / f"{TEST_BATCH}{suffix}"), classes=CLASSES)


def find(folder: Path) -> Path | None:
    """The folder at or below ``folder`` that holds batches in one of the two layouts, if there is one."""
    parents = (folder, folder / "cifar10", folder / "cifar-10")
    candidates = [p / sub for p in parents for sub in ("", BINARY_FOLDER, PYTHON_FOLDER)]
    return next((c for c in candidates if _is_binary(c) or _is_python(c)), None)


def missing(folder: Path) -> str:
    """The sentence for a folder without CIFAR-10 in it."""
    state = "has no CIFAR-10 in it" if folder.is_dir() else "does not exist"
    return (
        f"{folder} {state}: a folder with {BINARY_FOLDER}/ or {PYTHON_FOLDER}/ in it is needed "
        "(or --data synthetic for drawn pictures)"
    )


def read_binary(file: Path) -> Examples:
    """The records of one ``.bin`` file. Raises DataError if it is missing or not made of whole records."""
    raw = contents(file)
    if not raw or len(raw) % RECORD_BYTES:
        raise DataError(
            f"{file} is {len(raw):,} bytes long, not a whole number of {RECORD_BYTES}-byte records: "
            "it is cut short or is no CIFAR-10 batch; fetch it again"
        )
    records = np.frombuffer(raw, np.uint8).reshape(-1, RECORD_BYTES)
    return examples(file, records[:, 1:], records[:, 0], len(CLASSES))


def read_python(file: Path) -> Examples:
    """The records of one Python batch: a pickled dict with ``data`` uint8 (n, 3072) and ``labels``.

    Nothing in the file is executed. Raises DataError if it is missing or holds anything else.
    """
    return examples(file, *unpickled(file, "labels", len(CLASSES)), len(CLASSES))


def unpickled(file: Path, labels_key: str, classes: int) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Pixels (n, 3072) and labels (n,) of a pickled dict. Raises DataError if it holds anything else."""
    raw = contents(file)
    try:
        _check_memo(raw)
        batch = _BatchUnpickler(io.BytesIO(raw), encoding="bytes").load()
        values = {_text(key): value for key, value in batch.items()}
        data, labels = np.asarray(values["data"]), np.asarray(values[labels_key])
        if data.dtype != np.uint8 or data.shape != (len(labels), RECORD_BYTES - 1):
            raise ValueError(f"data is {data.dtype} {data.shape} for {len(labels)} labels")
    except _Refused as error:
        raise DataError(
            f"{file} is not a CIFAR-{classes} batch: it asks for {error}, which is refused"
        ) from error
    except Exception as error:
        raise DataError(
            f"{file} is not a CIFAR-{classes} batch, or is cut short ({error}): fetch it again"
        ) from error
    return data, labels


def write_binary(dataset: Dataset, folder: Path) -> Path:
    """Write ``dataset`` as the official six files and ``batches.meta.txt``; returns their folder.

    Raises DataError unless the pictures are 3 x 32 x 32 and there are at least five to train on.
    """
    if dataset.train.shape != SHAPE or len(dataset.train) < len(BATCHES):
        raise DataError(
            f"{dataset.name}: {len(dataset.train):,} pictures of {dataset.train.shape} "
            "cannot be written as CIFAR-10"
        )
    target = folder / BINARY_FOLDER
    target.mkdir(parents=True, exist_ok=True)
    for name, part in zip(BATCHES, np.array_split(np.arange(len(dataset.train)), len(BATCHES)), strict=True):
        _write_records(target / f"{name}.bin", dataset.train[part])
    _write_records(target / f"{TEST_BATCH}.bin", dataset.test)
    # the official file ends in an empty line
    (target / "batches.meta.txt").write_text("\n".join(dataset.classes) + "\n\n")
    return target


def _check_memo(raw: bytes) -> None:
    """Raises ValueError if a pickle numbers its objects beyond its own length.

    The unpickler would make as many places for them: gigabytes, for one damaged byte.
    """
    for opcode, argument, _ in pickletools.genops(raw):
        if "PUT" in opcode.name and argument is not None and argument > len(raw):
            raise ValueError(f"it counts {argument:,} objects")


class _Refused(Exception):  # noqa: N818 - carries the refused name
    """A pickle asked for a name that no CIFAR-10 batch needs."""


class _BatchUnpickler(pickle.Unpickler):
    """Knows an array, its dtype and the bytes of both; ``find_class`` is where a pickle gets its power."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None


def _latin1(text: str, encoding: str) -> bytes:
    """Python 3 writes bytes in an old pickle as ``_codecs.encode(text, 'latin1')``."""
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"the codec {encoding}")
    return text.encode("latin1")


# an array's own reduction names the function that rebuilds it, wherever this version of NumPy keeps it
_REBUILD: Callable[..., Any] = np.empty(0).__reduce__()[0]  # type: ignore[assignment]
_FROM_BUFFER: Callable[..., Any] = np.empty(0).__reduce_ex__(5)[0]  # type: ignore[assignment]
_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy.core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy._core.multiarray", "_reconstruct"): _REBUILD,
    ("numpy.core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy._core.numeric", "_frombuffer"): _FROM_BUFFER,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
}


def examples(file: Path, pixels: NDArray[np.uint8], labels: NDArray[Any], classes: int) -> Examples:
    """Pictures of pixels (n, 3072). Raises DataError for a label that is not below ``classes``."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        first = int(wrong[0])
        raise DataError(
            f"{file}: record {first} has label {int(labels[first])}, not 0 to {classes - 1}: "
            f"this is no CIFAR-{classes} batch"
        )
    # a copy: the bytes of a file cannot be written to, and torch warns of that
    return Examples(pixels.reshape(-1, *SHAPE).copy(), labels.astype(np.int64))


def _write_records(file: Path, examples: Examples) -> None:
    records = np.empty((len(examples), RECORD_BYTES), np.uint8)
    records[:, 0] = examples.labels
    records[:, 1:] = examples.images.reshape(len(examples), -1)
    file.write_bytes(records.tobytes())


def contents(file: Path) -> bytes:
    """Raises DataError if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(
            f"{file} cannot be read ({error.strerror}): all files of the set are needed"
        ) from error


def _text(key: object) -> str:
    return key.decode("ascii") if isinstance(key, bytes) else str(key)


def _is_binary(folder: Path) -> bool:
    return any((folder / f"{name}.bin").is_file() for name in (*BATCHES, TEST_BATCH))


def _is_python(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (*BATCHES, TEST_BATCH))
