"""A shard that was handed over is taken once, whole, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparknet.data import Column
from sparknet.data.growable import MemoryLimit, collect
from sparknet.data.handoff import Handoff
from tests.sparknet.small import pictures


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("memory_bytes", [0, 1 << 30], ids=["from disk", "from memory"])
def test_what_was_put_is_taken_once(folder: Path, memory_bytes: int) -> None:
    drawn = pictures(500)
    schema = {name: Column.of(array) for name, array in drawn.columns.items()}
    shard = collect([drawn.columns], schema, MemoryLimit(memory_bytes=memory_bytes, folder=folder))
    Handoff("job").put(3, shard)
    found = Handoff("job").take(3)
    assert found is not None
    assert np.array_equal(found.columns["data"], drawn.images)
    assert np.array_equal(found.columns["label"], drawn.labels)
    assert Handoff("job").take(3) is None
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_another_jobs_shards_are_not_there() -> None:
    Handoff("job").put(3, pictures(5))
    assert Handoff("other").take(3) is None


def test_putting_again_replaces_what_was_there() -> None:
    handoff = Handoff("job")
    handoff.put(3, pictures(5))
    handoff.put(3, pictures(7))
    found = handoff.take(3)
    assert found is not None
    assert len(found) == 7


def test_the_end_of_the_job_clears_the_place(folder: Path) -> None:
    handoff = Handoff("job")
    handoff.clear()
    handoff.put(3, pictures(5))
    handoff.clear()
    assert list(folder.iterdir()) == []


def test_all_of_one_executor_have_the_same_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = Handoff("job").place
    assert Handoff("job").place == here
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path / "other"))
    assert Handoff("job").place != here
