"""Arrays that grow: whole, never held twice, spilled past their budget, and gone afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sparknet.data.growable import (
    GrowableArray,
    MemoryLimit,
    available,
    collect,
    share_of_memory,
    spill_folder,
)
from sparknet.data.records import Column
from sparknet.errors import DataError, TrainingError

ROOT = Path(__file__).resolve().parents[3]


SCHEMA = {"data": Column(np.dtype(np.uint8), (2, 3, 5)), "label": Column(np.dtype(np.int64))}


def blocks(sizes: list[int], dtype: str = "uint8") -> list[dict[str, NDArray[Any]]]:
    rng = np.random.default_rng(1)
    return [
        {
            "data": rng.integers(256, size=(size, 2, 3, 5)).astype(dtype),
            "label": rng.integers(9, size=size),
        }
        for size in sizes
    ]


@pytest.mark.parametrize("memory_bytes", [0, 1000, 1 << 30], ids=["on disk", "some of it fits", "in memory"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("sizes", [[1], [3, 0, 200, 1], [40_000, 70_000]], ids=["one", "few", "many"])
def test_blocks_become_one_array(tmp_path: Path, memory_bytes: int, dtype: str, sizes: list[int]) -> None:
    made = blocks(sizes, dtype)
    found = collect(made, SCHEMA, MemoryLimit(memory_bytes=memory_bytes, folder=tmp_path))
    assert found.columns["data"].dtype == dtype
    for name, array in found.columns.items():
        assert np.array_equal(array, np.concatenate([block[name] for block in made]))
    assert list(tmp_path.iterdir()) == []  # the file has no name


def test_no_blocks_are_no_records(tmp_path: Path) -> None:
    found = collect([], SCHEMA, MemoryLimit(memory_bytes=0, folder=tmp_path))
    assert found.columns["data"].shape == (0, 2, 3, 5)
    assert len(found) == 0


def test_what_does_not_fit_into_memory_goes_to_disk(tmp_path: Path) -> None:
    growing = GrowableArray(np.uint8, (4,), limit=MemoryLimit(memory_bytes=100, folder=tmp_path))
    growing.append(np.zeros((25, 4), np.uint8))
    assert not growing.spilled
    growing.append(np.ones((1, 4), np.uint8))
    assert growing.spilled
    growing.close()


@pytest.mark.rig
def test_a_full_spill_volume_is_named(full_volume: Path) -> None:
    limit = MemoryLimit(memory_bytes=200_000, folder=full_volume)
    with pytest.raises(TrainingError, match=f"is full: .* in {full_volume}.*--shard-memory"):
        collect(blocks([1000] * 20), SCHEMA, limit)


def test_writing_to_a_spilled_array_is_private(tmp_path: Path) -> None:
    growing = GrowableArray(np.uint8, (4,), limit=MemoryLimit(memory_bytes=0, folder=tmp_path))
    growing.append(np.zeros((25, 4), np.uint8))
    first, second = growing.array(), growing.array()
    growing.close()
    first[:] = 7
    assert not second.any()


def test_pictures_unlike_those_before_are_refused(tmp_path: Path) -> None:
    mixed = [*blocks([2]), *blocks([2], "float32")]
    with pytest.raises(DataError, match=r"records of float32 \(2, 3, 5\) follow others of uint8"):
        collect(mixed, SCHEMA, MemoryLimit(memory_bytes=1 << 30, folder=tmp_path))


MEASURED = """
import resource, sys
from pathlib import Path
import numpy as np
from sparknet.data.growable import MemoryLimit, collect
from sparknet.data.records import Column

def anonymous():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))

megabytes, peak = int(sys.argv[1]), 0
def blocks():
    global peak
    for k in range(200):
        peak = max(peak, anonymous())
        yield {"data": np.full((256, 1, 64, 64), k, np.uint8), "label": np.zeros(256, np.int64)}  # 1 MiB

before = anonymous()
schema = {"data": Column(np.dtype(np.uint8), (1, 64, 64)), "label": Column(np.dtype(np.int64))}
found = collect(blocks(), schema, MemoryLimit(memory_bytes=megabytes << 20, folder=Path(sys.argv[2])))
images = found.columns["data"]
rows = len(found)
sampled = [int(images[row].max()) for row in range(0, rows, 256)]
assert sampled == list(range(200)), sampled
print((max(peak, anonymous()) - before) >> 20, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    ("budget", "least", "most"), [(1000, 195, 215), (32, 20, 50)], ids=["fits", "spills"]
)
def test_memory_is_bounded_by_the_shard_or_the_budget(
    tmp_path: Path, budget: int, least: int, most: int
) -> None:
    """200 MiB of records in blocks of 1 MiB: the process grows by them once, or by the budget (MiB)."""
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, str(budget), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stderr
    grown, _ = map(int, ran.stdout.split())
    assert least <= grown <= most


def test_the_spill_folder_is_one_of_sparks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARK_LOCAL_DIRS", f"{tmp_path / 'gone'},{tmp_path}")
    assert spill_folder() == tmp_path
    monkeypatch.delenv("SPARK_LOCAL_DIRS")
    assert spill_folder().is_dir()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Path]:
    for name, text in {
        "proc/meminfo": "MemTotal: 4096 kB\nMemAvailable: 2048 kB\n",
        "sys/fs/cgroup/memory.max": "max\n",
        "sys/fs/cgroup/memory.current": "1024\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_machine_says_what_is_free(machine: Path) -> None:
    assert available(machine) == 2 << 20
    assert share_of_memory(4, machine) == (2 << 20) // 8


def test_a_container_may_have_less(machine: Path) -> None:
    (machine / "sys/fs/cgroup/memory.max").write_text(f"{1 << 20}\n")
    assert available(machine) == (1 << 20) - 1024


def test_sparks_own_limit_counts(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSPARK_EXECUTOR_MEMORY_MB", "1")
    assert share_of_memory(1, machine) == 1 << 19


def test_this_machine_has_memory() -> None:
    assert 0 < available() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
