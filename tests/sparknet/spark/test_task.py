"""What a task makes of what Spark gives it: its GPU and its memory."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sparknet.errors import TrainingError
from sparknet.spark.task import choose_gpu, memory_limit


def context(addresses: list[str] | None = None, cpus: int = 1) -> Any:
    """A TaskContext with these GPUs."""
    resources = {} if addresses is None else {"gpu": SimpleNamespace(name="gpu", addresses=addresses)}
    return SimpleNamespace(resources=lambda: resources, cpus=lambda: cpus)


@pytest.fixture(autouse=True)
def _devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")  # restored afterwards


def test_a_task_sees_the_gpu_that_spark_gave_it() -> None:
    choose_gpu(context(["3"]))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"
    choose_gpu(context(["0", "1"]))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_without_gpus_among_the_resources_the_machine_is_left_as_it_is() -> None:
    choose_gpu(context())
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"


def test_a_process_that_computes_on_another_gpu_makes_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python worker that Spark uses again: CUDA does not look at the variable twice."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    choose_gpu(context(["7"]))
    with pytest.raises(TrainingError, match="computes on GPU 7 and was given 3"):
        choose_gpu(context(["3"]))
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"


@pytest.mark.parametrize(("cores", "cpus", "tasks"), [(8, 1, 8), (8, 4, 2), (2, 4, 1)])
def test_memory_is_shared_by_as_many_tasks_as_there_are_cores_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cores: int, cpus: int, tasks: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr("sparknet.data.growable.available", lambda root: 1 << 30)
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    limit = memory_limit(context(cpus=cpus), None)
    assert limit.memory_bytes == (1 << 30) // tasks // 2
    assert limit.folder == tmp_path
    given = memory_limit(context(), 12)
    assert given.memory_bytes == 12
