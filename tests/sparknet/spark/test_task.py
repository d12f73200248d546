"""What a task makes of what Spark gives it: its GPU, its memory, and building while it drains."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sparknet.distributed.worker_service import Service
from sparknet.errors import ModelError, TrainingError
from sparknet.replica import TorchReplica
from sparknet.spark.task import choose_gpu, memory_limit
from tests.sparknet.distributed.in_process import Crew
from tests.sparknet.small import momentum_sgd, pictures, small_net, small_recipe


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


def test_the_net_is_built_while_the_data_is_on_its_way() -> None:
    """Each waits for the other: one after the other they would never be done."""
    building, draining = threading.Event(), threading.Event()

    def build() -> TorchReplica:
        building.set()
        assert draining.wait(20)
        return TorchReplica(small_net(), momentum_sgd)

    def drain() -> Any:
        draining.set()
        assert building.wait(20)
        return pictures(30)

    crew = Crew(small_recipe(), 1)
    try:
        assignment = crew.service(0, pictures(0), recipe=small_recipe(replica=build)).assignment
        worker = Service(assignment, crew.service(0, pictures(0)).who, drain)._built()
        assert worker.records == 30
    finally:
        crew.close()


@pytest.mark.parametrize(
    ("build", "drain", "kind", "says"),
    [
        (ModelError("no such layer"), None, ModelError, "no such layer"),
        (None, OSError("disk full"), TrainingError, "partition 0 could not be read: disk full"),
    ],
    ids=["net", "data"],
)
def test_what_goes_wrong_on_the_way_is_raised(
    build: Exception | None, drain: Exception | None, kind: type[Exception], says: str
) -> None:
    def fails(error: Exception | None, result: Any) -> Any:
        if error:
            raise error
        return result

    recipe = small_recipe(replica=lambda: fails(build, TorchReplica(small_net(), momentum_sgd)))
    crew = Crew(small_recipe(), 1)
    try:
        service = crew.service(0, pictures(0), recipe=recipe)
        service = Service(service.assignment, service.who, lambda: fails(drain, pictures(30)))
        with pytest.raises(kind, match=says):
            service._built()
    finally:
        crew.close()


def test_deterministic_recipes_make_torch_so() -> None:
    try:
        small_recipe(deterministic=True).build()
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.use_deterministic_algorithms(False)
        del os.environ["CUBLAS_WORKSPACE_CONFIG"]
    small_recipe().build()
    assert not torch.are_deterministic_algorithms_enabled()
