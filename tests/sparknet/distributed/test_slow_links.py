"""Weights that take longer over a link than any deadline there is, while their bytes flow."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from torch import nn

from sparknet.data import Examples
from sparknet.distributed.averaging.host_allreduce import HostAllReduce, Transfer
from sparknet.distributed.averaging.participant import Participant
from sparknet.distributed.comm.channel import Channel
from sparknet.distributed.timeouts import Timeouts
from sparknet.distributed.worker_service import Service
from sparknet.replica import TorchReplica
from sparknet.training import Settings, train
from sparknet.weights import fetch
from sparknet.worker import Worker
from tests.sparknet.distributed.fixtures import shards_of
from tests.sparknet.distributed.in_process import InProcessWorkers, in_process
from tests.sparknet.small import momentum_sgd, small_recipe

BYTES, PAUSE = 20_000, 0.1
"""What a link takes at a time, and how often: 400 kB take two seconds."""

TIMEOUTS = Timeouts(join=10, round=30, hang=1.0, ping=0.2, send=1.0, stop=2)


@contextmanager
def slow_link(to: tuple[str, int]) -> Iterator[tuple[str, int]]:
    """An address by which ``to`` is reached, slowly in both directions."""
    server, open_ends = socket.create_server(("127.0.0.1", 0)), list[socket.socket]()

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(BYTES):
                sink.sendall(data)
                time.sleep(PAUSE)
            sink.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                near = server.accept()[0]
                far = socket.create_connection(to)
                open_ends.extend((near, far))
                for ends in ((near, far), (far, near)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield server.getsockname()
    finally:
        for each in (server, *open_ends):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def large() -> TorchReplica:
    """100,000 weights, 400 kB."""
    return TorchReplica(nn.Sequential(nn.Flatten(), nn.Linear(16, 5000), nn.Linear(5000, 3)), momentum_sgd)


def join_over(link: tuple[str, int], workers: InProcessWorkers, shard: Examples) -> None:
    service = workers.service(0, shard)
    service.assignment = replace(service.assignment, address=link)
    workers.start(service)


@pytest.mark.parametrize("ring", [False, True], ids=["star", "ring"])
def test_weights_may_take_longer_than_any_deadline_on_their_way_to_a_worker_and_back(ring: bool) -> None:
    """The worker gives its driver up after 1.2 s of silence, the driver it after one; in a ring the driver
    fetches what only the worker has, which needs no computing and so has a second."""
    [shard] = shards_of(1)
    recipe = small_recipe(replica=large)
    with (
        in_process(recipe, [], workers=1, ring=ring, timeouts=TIMEOUTS) as workers,
        slow_link(workers.address) as link,
    ):
        join_over(link, workers, shard)
        began = time.monotonic()
        [done] = train(workers, Settings(rounds=1, tau=1))
        weights = fetch(done.result.mean)
        assert time.monotonic() - began > 3
        assert done.result.lost == ()
    assert not np.array_equal(weights, workers.initial)


class LateTransfer(Transfer):
    def wait(self) -> None:
        time.sleep(0.3)
        super().wait()


class SlowAllReduce(HostAllReduce):
    """Every part it receives takes a while."""

    def receive(self, data: Any, peer: int, tag: int) -> Transfer:
        return LateTransfer(**vars(super().receive(data, peer, tag)))


class SlowParticipant(Participant):
    def _host_allreduce(self) -> HostAllReduce:
        return SlowAllReduce(self._rendezvous, self._codec, self._moves)


class SlowService(Service):
    def _participant_of(self, worker: Worker, channel: Channel) -> Participant | None:
        ring, seconds = self.assignment.ring, self.assignment.timeouts.send
        assert ring is not None
        return SlowParticipant(
            worker, store=ring, host=channel.host, seconds=seconds, wire="float32", moves=self._say_busy
        )


def test_workers_may_average_for_longer_than_their_deadline_while_they_get_on() -> None:
    """Two parts come to each of three, and then two means: 1.2 s, where 2 x 0.5 are the deadline."""
    timeouts = Timeouts(join=10, round=30, ping=0.1, send=0.5, stop=2)
    with in_process(small_recipe(), shards_of(3), ring=True, timeouts=timeouts, kind=SlowService) as workers:
        began = time.monotonic()
        [done] = train(workers, Settings(rounds=1, tau=1))
        assert time.monotonic() - began > 1.1
        assert done.members == (0, 1, 2)
        assert done.result.lost == ()
        assert np.isfinite(fetch(done.result.mean)).all()
