"""What the tests of the engine share: a problem, slow replicas, and waiting for things to come true."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from sparknet.data import Examples, contiguous
from sparknet.data.dataset import Batch
from sparknet.distributed.comm.channel import Channel, Frame
from sparknet.distributed.messages import Member
from sparknet.distributed.worker_service import Service
from sparknet.local import LocalWorkers
from sparknet.replica import TorchReplica
from sparknet.training import Round, Settings, train
from tests.sparknet.distributed.in_process import InProcessWorkers
from tests.sparknet.small import momentum_sgd, pictures, small_net, small_recipe

EXAMPLES, TEST = pictures(), pictures(70, seed=1)
SETTINGS = Settings(rounds=8, tau=5, test_every=4)

WAYS = pytest.mark.parametrize("ring", [False, True], ids=["star", "ring"])
WIRES = pytest.mark.parametrize("wire", ["float32", "bfloat16", "int8"])


def shards_of(workers: int) -> list[Examples]:
    return [EXAMPLES[part] for part in contiguous(len(EXAMPLES), workers)]


def reference(workers: int, settings: Settings = SETTINGS) -> list[Round]:
    with LocalWorkers(small_recipe(test_batch_size=8), shards_of(workers), TEST) as local:
        return list(train(local, settings))


class Paused(TorchReplica):
    """Waits ``pause`` seconds in a step, or fails in it, on request."""

    pause = 0.0
    error: Exception | None = None

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        time.sleep(self.pause)
        if self.error:
            raise self.error
        return super().step(batches)


def paused(pause: float = 0.0, error: Exception | None = None) -> TorchReplica:
    replica = Paused(small_net(), momentum_sgd)
    replica.pause, replica.error = pause, error
    return replica


def slowly() -> TorchReplica:
    return paused(0.02)


class Explodes(TorchReplica):
    """Its third step blows its weights up, once."""

    def step(self, batches: Iterator[Batch]) -> torch.Tensor:
        loss = super().step(batches)
        if self.iteration == 3:
            self.weights.fill_(torch.inf)
        return loss


def exploding() -> Explodes:
    return Explodes(small_net(), momentum_sgd)


class DropsOut(Service):
    """It fails, and its place in ``group`` is empty, when it is asked to average for the ``at``-th time."""

    at = 2
    group = ""

    def _reduce(self, channel: Channel, frame: Frame) -> None:
        self.at -= 1
        if not self.at:
            type(self).group = frame.header["key"]
            raise RuntimeError("power failure")
        super()._reduce(channel, frame)


def join_as(kind: type[Service], workers: InProcessWorkers, partition: int, shard: Examples) -> None:
    service = workers.service(partition, shard, attempt=partition)
    workers.start(kind(service.assignment, service.who, service.drain))


def members_of(workers: InProcessWorkers) -> list[Member]:
    return list(workers.coordinator.membership.all)


def wait_for(workers: InProcessWorkers, *attempts: int) -> None:
    wait_until(lambda: set(attempts) <= {who.attempt for who in workers.coordinator.members})


def wait_until(true: object, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
