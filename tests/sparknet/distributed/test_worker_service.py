"""A worker builds its net while it reads its partition, and says what went wrong with either."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from sparknet.distributed.worker_service import Service
from sparknet.errors import ModelError, TrainingError
from sparknet.replica import TorchReplica
from tests.sparknet.distributed.in_process import InProcessWorkers
from tests.sparknet.small import momentum_sgd, pictures, small_net, small_recipe


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

    workers = InProcessWorkers(small_recipe(), 1)
    try:
        assignment = workers.service(0, pictures(0), recipe=small_recipe(replica=build)).assignment
        worker = Service(assignment, workers.service(0, pictures(0)).who, drain)._built()
        assert worker.records == 30
    finally:
        workers.close()


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
    workers = InProcessWorkers(small_recipe(), 1)
    try:
        service = workers.service(0, pictures(0), recipe=recipe)
        service = Service(service.assignment, service.who, lambda: fails(drain, pictures(30)))
        with pytest.raises(kind, match=says):
            service._built()
    finally:
        workers.close()
