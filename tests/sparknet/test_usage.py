"""What a worker says of its machine, against what the kernel and psutil say of it."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from sparknet.data.growable import MemoryLimit, collect
from sparknet.data.records import Column
from sparknet.distributed.comm.channel import ExchangeError, Frame, Kind
from sparknet.distributed.messages import read_bare_report
from sparknet.rounds import Report, RoundPlan
from sparknet.usage import Gpu, Holding, Meter, gpu_fields
from tests.sparknet.small import pictures, small_recipe


def held(**changes: object) -> Holding:
    return Holding(records=7, bytes_=70, **changes)  # type: ignore[arg-type]


def test_a_reading_is_of_this_process_and_of_its_machine(tmp_path: Path) -> None:
    meter = Meter(seconds=0.2)
    assert meter.read(held) is None  # there is nothing yet to compare with
    until = time.monotonic() + 0.4
    while time.monotonic() < until:
        sum(range(1000))
    usage = meter.read(lambda: held(folder=str(tmp_path)))
    assert usage
    assert 0.02 < usage.busy_cores < 1.5
    assert 0 < usage.load <= 1
    assert usage.cores == os.cpu_count()
    assert usage.process == os.getpid()
    assert usage.memory == pytest.approx(psutil.Process().memory_info().rss, rel=0.2)
    assert usage.total_memory == psutil.virtual_memory().total
    assert 0 < usage.used_memory < usage.total_memory
    assert usage.spill_free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.2)
    assert (usage.records, usage.held_bytes, usage.gpu) == (7, 70, "")


def test_there_is_one_reading_a_second_whatever_is_asked() -> None:
    meter, asked = Meter(), 0

    def holding() -> Holding:
        nonlocal asked
        asked += 1
        return held()

    started = time.perf_counter()
    readings = [meter.read(holding) for _ in range(10_000)]
    seconds = time.perf_counter() - started
    assert len([each for each in readings if each]) == asked <= seconds
    assert seconds / 10_000 < 1e-4


def test_without_psutil_there_is_no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psutil", None)
    meter = Meter(seconds=0.0)
    assert [meter.read(held) for _ in range(3)] == [None] * 3


def test_what_lies_in_files_is_counted_apart(tmp_path: Path) -> None:
    rows = {"data": np.ones((100, 40), np.float32), "label": np.ones(100, np.int64)}
    schema = {name: Column.of(array) for name, array in rows.items()}
    small = collect([rows, rows], schema, MemoryLimit(memory_bytes=1 << 30, folder=tmp_path))
    large = collect([rows, rows], schema, MemoryLimit(memory_bytes=1 << 10, folder=tmp_path))
    assert (small.spilled_bytes, large.spilled_bytes) == (0, 200 * 40 * 4)


def test_a_report_travels_with_what_the_worker_uses() -> None:
    worker = small_recipe().worker(0, pictures(40))
    worker._meter = Meter(seconds=0.0)
    reports = [worker.train(None, RoundPlan(tau=1)) for _ in range(2)]
    assert [report.usage is not None for report in reports] == [False, True]
    assert reports[1].usage
    assert reports[1].usage.records == 40
    assert [Report.of(report.header) for report in reports] == reports


@pytest.mark.parametrize("usage", [{"host": "a"}, {"novelty": 1}, [1], "text", 7])
def test_a_report_of_a_usage_that_is_none_cannot_be_read(usage: object) -> None:
    header = {**Report(member=0, steps=1, images=1, loss=1, lr=1, iteration=1, position=1, seconds=1).header}
    frame = Frame(kind=Kind.REPORT, header={**header, "usage": usage}, size=0)
    with pytest.raises(ExchangeError, match="a report that cannot be read"):
        read_bare_report(None, [frame])  # type: ignore[arg-type]


def smi(folder: Path, text: str) -> None:
    """An nvidia-smi that says ``text``."""
    program = folder / "nvidia-smi"
    program.write_text(f'#!/bin/sh\necho "$@" > {folder}/asked\n{text}\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)


def read_by(gpu: Gpu) -> dict[str, object]:
    gpu.reading  # noqa: B018 - the first asks
    assert gpu._thread
    gpu._thread.join(30)
    return gpu.reading


def test_a_gpu_is_read_by_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smi(tmp_path, "echo 'NVIDIA L4, 87, 4096, 23034'")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4")
    assert read_by(Gpu()) == gpu_fields("NVIDIA L4, 87, 4096, 23034\n")
    assert (tmp_path / "asked").read_text().split()[-2:] == ["-i", "3"]


@pytest.mark.parametrize("text", ["exit 9", "echo nonsense", "echo 'NVIDIA L4, [N/A], 1, 2'"])
def test_a_gpu_that_cannot_be_read_is_left_out(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi(tmp_path, text)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert read_by(Gpu()) == {}
