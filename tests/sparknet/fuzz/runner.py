"""Cases: a file is made, damaged by a seed, and read; whatever is neither read nor refused is noted."""

from __future__ import annotations

import resource
import shutil
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.sparknet.fuzz import nets, records, sets, sources
from tests.sparknet.fuzz.damage import Change, bytes_changed, gzip_changed, sealed_again, text_changed

MEMORY, SECONDS = 3 << 30, 20


@dataclass(frozen=True)
class Reader:
    """How a valid file is made in a folder, how it is damaged, and how it is read.

    ``make`` gives the files that may be damaged, of which each case takes one.
    """

    make: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    change: Change


READERS = {
    "prototxt": Reader(nets.layer_nets, nets.run_net, text_changed),
    "tolerant": Reader(nets.layer_nets, nets.read_tolerantly, text_changed),
    "solver": Reader(nets.solvers, nets.run_solver, text_changed),
    "caffemodel": Reader(nets.weights("caffemodel"), nets.copy_weights, bytes_changed),
    "caffemodel.h5": Reader(nets.weights("caffemodel.h5"), nets.copy_weights, bytes_changed),
    "old-caffemodel": Reader(nets.old_weights, nets.copy_weights, bytes_changed),
    "upgrade": Reader(nets.old_weights, nets.upgrade_weights, bytes_changed),
    "solverstate": Reader(nets.states("solverstate"), nets.restore, bytes_changed),
    "solverstate.h5": Reader(nets.states("solverstate.h5"), nets.restore, bytes_changed),
    "mean": Reader(nets.mean, nets.read_mean, bytes_changed),
    "lmdb": Reader(records.lmdb, records.read_database("LMDB"), bytes_changed),
    "leveldb": Reader(records.leveldb, records.read_database("LEVELDB"), bytes_changed),
    "hdf5": Reader(records.hdf5, records.read_hdf5, bytes_changed),
    "pictures": Reader(records.make_pictures, records.read_picture, bytes_changed),
    "lists": Reader(records.lists, records.read_list, text_changed),
    "windows": Reader(records.windows, records.read_windows, text_changed),
    "mnist": Reader(sets.mnist, sets.read_mnist, gzip_changed),
    "cifar": Reader(sets.cifar, sets.read_cifar, bytes_changed),
    "archives": Reader(sets.archives, sets.read_archive, bytes_changed),
    "checkpoint": Reader(sets.checkpoint, sets.read_checkpoint, sealed_again),
    "source-csv": Reader(sources.written("folder with a CSV", "*.csv"), sources.read, text_changed),
    "source-tar": Reader(sources.written("tar, PNG"), sources.read, bytes_changed),
    "source-raw-tar": Reader(sources.written("tar, raw"), sources.read, bytes_changed),
    "source-lmdb": Reader(sources.written("LMDB, PNG"), sources.read, bytes_changed),
    "source-leveldb": Reader(sources.written("LevelDB, raw"), sources.read, bytes_changed),
    "source-hdf5": Reader(sources.written("HDF5"), sources.read, bytes_changed),
    "source-parquet": Reader(sources.written("Parquet, PNG"), sources.read, bytes_changed),
    "source-raw-parquet": Reader(sources.written("Parquet, raw"), sources.read, bytes_changed),
    "source-cifar": Reader(sources.written("CIFAR, binary"), sources.read, bytes_changed),
}


@dataclass
class Outcome:
    """What became of the cases: how many were read and refused, and what else happened, by seed."""

    well: int = 0
    refused: int = 0
    escaped: list[str] = field(default_factory=list)


@contextmanager
def limits() -> Iterator[None]:
    """Little more memory than there is, and an alarm after ``SECONDS``."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not read within {SECONDS} s")

    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = Path("/proc/self/statm")
    if pages.exists():
        taken = int(pages.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, before[1]))
    handler = signal.signal(signal.SIGALRM, late)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
        resource.setrlimit(resource.RLIMIT_AS, before)


def attempt(reader: Reader, folder: Path, seed: int, outcome: Outcome) -> None:
    """One case: a file made in ``folder``, damaged, and read."""
    from sparknet.errors import SparkNetError

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    random = Random(seed)
    path = random.choice(reader.make(folder))
    path.write_bytes(reader.change(path.read_bytes(), random))
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings(action="ignore"):
            reader.read(path)
        outcome.well += 1
    except SparkNetError as error:
        outcome.refused += 1
        if not str(error).strip():
            raise AssertionError("refused without a word") from error
    finally:
        signal.alarm(0)


def _read_whole(reader: Reader, folder: Path) -> None:
    """Read a file that is not damaged, which must succeed; and import what the reader needs, untimed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with warnings.catch_warnings(action="ignore"):
        reader.read(reader.make(folder)[0])


def run(name: str, first: int, cases: int, folder: Path) -> Outcome:
    """The cases of one reader, in this process. A case that escapes is noted, and its file kept."""
    outcome = Outcome()
    _read_whole(READERS[name], folder)
    with limits():
        for seed in range(first, first + cases):
            (folder.parent / f"{name}.seed").write_text(str(seed))
            try:
                attempt(READERS[name], folder, seed, outcome)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
                last = traceback.extract_tb(error.__traceback__)[-1]
                where = f"{Path(last.filename).name}:{last.lineno}"
                outcome.escaped.append(f"{name} {seed}: {type(error).__name__} at {where}: {error}")
                shutil.copytree(folder, folder.parent / f"{name}-{seed}", dirs_exist_ok=True)
    return outcome
