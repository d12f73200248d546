"""A worker's part when the workers average among themselves: on its GPU, or on its host.

It knows on which GPU the worker could average (``rendezvous.py``), which the driver asks of all before it
forms a group, and has the averager for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import numpy as np

from sparknet.codecs import get_codec
from sparknet.distributed.averaging.device_allreduce import DeviceAllReduce
from sparknet.distributed.averaging.device_averager import DeviceAverager
from sparknet.distributed.averaging.gradient_averager import GradientAverager
from sparknet.distributed.averaging.host_allreduce import HostAllReduce
from sparknet.distributed.averaging.host_averager import Averaged, HostAverager
from sparknet.distributed.averaging.rendezvous import MakeGroup, Rendezvous, averaging_gpu
from sparknet.distributed.averaging.run_ahead import RunAhead
from sparknet.distributed.comm.channel import NOTHING, raw
from sparknet.outer import Repeatable, from_settings
from sparknet.training import Report, RoundPlan
from sparknet.weights import Vector, fetch
from sparknet.worker import Worker


class Participant:
    """For ``worker``, whose weights travel as ``wire``.

    ``store`` is the address where a group's members find each other, ``host`` that by which they reach this
    worker, ``seconds`` how long they are waited for; ``moves`` is called when some of an average has come.
    """

    def __init__(
        self,
        worker: Worker,
        *,
        store: tuple[str, int],
        host: str,
        seconds: float,
        wire: str,
        moves: Callable[[], None] = lambda: None,
    ) -> None:
        self._worker, self._codec, self._moves = worker, get_codec(wire), moves
        self._rendezvous = Rendezvous(store, host, seconds)
        self._groups = ExitStack()
        self._outer: Repeatable | None = None
        self._run_ahead: RunAhead | None = None
        self._gradients: GradientAverager | None = None
        self._in_step = False  # whether the round is one of gradients

    @cached_property
    def gpu(self) -> str:
        """The one on which it can average; "" for none."""
        return averaging_gpu(self._worker.replica.weights.device, self._codec)

    @property
    def start(self) -> memoryview:
        """The bytes of what the round started from."""
        if self._in_step and self._gradients:
            return self._gradients.start
        return self._averager.start

    def arrived(self) -> None:
        """The driver has sent weights."""
        self._averager.arrived()

    def train(self, plan: RoundPlan, *, arrived: bool) -> Report:
        """A round, from the weights that have ``arrived`` or those of the net."""
        worker, averager = self._worker, self._averager
        if self._in_step:
            self._in_step = False
            averager.arrived()  # what it has is older than the net
        if arrived:
            worker.load(worker.vector)
        averager.begin()
        report = worker.train(None, plan)
        if not self.gpu:
            worker.bring()
        return report

    def step(self, plan: RoundPlan, *, arrived: bool, group: Mapping[str, Any]) -> Report:
        """The gradient of a step, which is averaged with a ``group`` in host memory meanwhile. Raises
        UsageError for a replica that has none to give."""
        worker = self._worker
        if arrived:
            worker.load(worker.vector)
        if self._gradients is None:
            self._gradients = GradientAverager(
                worker,
                lambda moved: HostAllReduce(self._rendezvous, self._codec, moved),
                moves=self._moves,
                seconds=self._rendezvous.seconds,
                rounds_off=not self._codec.is_lossless,
            )
        self._in_step = True
        return self._gradients.train(plan, **group)

    def begin(self, run_ahead: RunAhead) -> None:
        """A round of a worker that does not wait for its average has started from what has arrived there.

        It averages in host memory from now on, also where it has a GPU, which goes on training meanwhile.
        """
        if self._run_ahead is None:
            self._run_ahead = run_ahead
            allreduce = self._host_allreduce()
            self._averager = HostAverager(
                self._worker, allreduce, origin=run_ahead.arrived, vector=run_ahead.sent
            )
        self._averager.begin()

    def reduce(self, *, backend: str, **group: Any) -> Averaged:
        """Average with a group. Raises RuntimeError if it could not be done."""
        if self._in_step and self._gradients:
            return self._gradients.reduce(**group)
        averager = self._averager
        if isinstance(averager, DeviceAverager):
            return averager.reduce(backend=backend, **group)
        return averager.reduce(**group)

    def commit(self, lr: float | None = None, unused: Sequence[int] = ()) -> None:
        """All have the mean: go on from it, or with the workers' rate ``lr`` from an outer step there. Of
        gradients it is taken by a step, in which parameters that are ``unused`` stay."""
        if self._in_step and self._gradients:
            self._gradients.commit(unused)
            return
        averager = self._averager
        start = NOTHING if lr is None else averager.start  # the averager lets it be until the next mean
        averager.commit()
        if lr is not None:
            self._step(_vector(start), _vector(averager.start), lr)
        elif self._run_ahead:
            self._run_ahead.committed()
        elif not self.gpu:
            self._worker.load(self._worker.vector)

    def follow(self, *, outer: dict[str, dict[str, float]], memory: bool) -> memoryview:
        """Take this outer optimiser's steps from now on; returns the buffer for its memory, if it has any."""
        self._outer = from_settings(outer)
        if not memory:
            return NOTHING
        remembered = np.empty_like(self._worker.vector)
        self._outer.memory = remembered
        return raw(remembered)

    @property
    def memory(self) -> memoryview:
        """The bytes of the outer optimiser's memory."""
        remembered = self._outer.memory if self._outer else None
        return NOTHING if remembered is None else raw(fetch(remembered))

    def close(self) -> None:
        """Leave the group."""
        self._groups.close()
        if self._gradients:
            self._gradients.close()

    def _step(self, start: Vector, mean: Vector, lr: float) -> None:
        assert self._outer is not None
        worker, stepped = self._worker, self._outer.step(start, mean, lr)
        if self._run_ahead:
            np.copyto(self._run_ahead.arrived, stepped)
            self._run_ahead.committed()
        else:
            np.copyto(worker.vector, stepped)
            worker.load(worker.vector)
        self._averager.arrived()
        self._averager.begin()

    @cached_property
    def _averager(self) -> HostAverager | DeviceAverager:
        if not self.gpu:
            return self._on_host()
        replica, rendezvous = self._worker.replica, self._rendezvous
        allreduce = DeviceAllReduce(
            self._make_group(),
            replica.weights.device,
            rendezvous.seconds,
            replica.statistics,
            abort_flag=rendezvous.abort_flag,
            moves=self._moves,
        )
        self._groups.callback(allreduce.leave)
        return DeviceAverager(self._worker, allreduce, self._on_host)

    def _on_host(self) -> HostAverager:
        return HostAverager(self._worker, self._host_allreduce())

    def _host_allreduce(self) -> HostAllReduce:
        return HostAllReduce(self._rendezvous, self._codec, self._moves)

    def _make_group(self) -> MakeGroup:
        """How those that average on their GPUs make a group."""
        return self._rendezvous.nccl(self._worker.replica.weights.device)


def _vector(data: memoryview) -> Vector:
    return np.frombuffer(data, np.float32)
