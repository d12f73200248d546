"""A worker that gives its gradient to the average, not its weights, and takes the step with all the others.

    worker's thread   forward ─> backward ──────────────> REPORT ─> REDUCE: wait ─> REDUCED ─> COMMIT: step
    a thread              join ─> the end's mean ─> .. ─> the beginning's mean

The gradient stays where it is until all have the mean: if a member of the group is lost meanwhile, the others
average what they have once more, in a group of their own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import replace
from functools import partial

import numpy as np

from sparknet.distributed.averaging.host_allreduce import HostAllReduce
from sparknet.distributed.averaging.host_averager import Averaged
from sparknet.distributed.averaging.partial_gradient import PartialGradient
from sparknet.distributed.comm.channel import raw
from sparknet.gradients import Gradient, pieces
from sparknet.training import Report, RoundPlan
from sparknet.weights import Vector
from sparknet.worker import Worker

# Numbers in a bucket: a layer with fewer waits for the next ones, one with more is cut. The smallest takes
# about as long on a link of 10 Gbit/s as waking those who send it.
SMALLEST_BUCKET, LARGEST_BUCKET = 1 << 15, 1 << 22
# How often those who wait look whether some of a mean has come.
_LOOK_SECONDS = 0.1


class GradientAverager:
    """``make_allreduce`` makes what finds the others, and is given what it is to call when something has come
    of them; nobody is waited for longer than ``seconds``. ``moves`` is called by the worker's own thread when
    some of a mean that is waited for has come. With ``rounds_off`` differences travel, in fewer bits."""

    def __init__(
        self,
        worker: Worker,
        make_allreduce: Callable[[Callable[[], None]], HostAllReduce],
        *,
        seconds: float,
        rounds_off: bool,
        moves: Callable[[], None] = lambda: None,
    ) -> None:
        self._worker, self._seconds, self._moves = worker, seconds, moves
        self._make_allreduce: Callable[[], HostAllReduce] = partial(make_allreduce, self._moved)
        self._thread, self._last_move = 0, 0.0
        self._gradient = Gradient(worker.replica)
        self._rounds_off = rounds_off
        self._parts = pieces(self._gradient.travelling, SMALLEST_BUCKET, LARGEST_BUCKET)
        self._allreduce = self._make_allreduce()
        self._sent = 0  # by those before it
        self._mean: Vector = np.empty_like(self._gradient.vector)
        self._base: Vector | None = None
        self._making = self._new()
        self._key = ""
        self._travelling: Future[None] | None = None
        self._size = 0  # of the group that has a mean; 0 for none

    @property
    def start(self) -> memoryview:
        """The bytes of what the round started from."""
        return raw(self._gradient.start_of(self._worker.bring()))

    def train(self, plan: RoundPlan, *, key: str, rank: int, size: int) -> Report:
        """The gradient of a step, from the weights of the net; it travels to the group meanwhile."""
        self._leave()
        self._thread = threading.get_ident()
        self._size, self._sent_before = 0, self._sent + self._allreduce.sent
        self._gradient.begin()
        self._base = self._gradient.base() if self._rounds_off else None
        making = self._making = self._new()
        if size > 1:
            self._key, self._travelling = key, _started(self._averaging(key, rank, size))
        try:
            report = self._worker.train(
                None, plan, lambda batches: self._gradient.compute(batches, making.on_final)
            )
        except BaseException:
            making.fail()
            raise
        return replace(report, unused=self._gradient.unused)

    def reduce(self, *, key: str, rank: int, steps: Sequence[int], **_: object) -> Averaged:
        """Have the mean of the group's gradients. Raises RuntimeError if it could not be made."""
        self._size = 0
        if self._travelling is not None and key == self._key:
            self._wait_for(self._travelling)
        else:
            self._leave()
            self._making.complete()
            if len(steps) > 1:
                self._averaging(key, rank, len(steps))()
        self._size = len(steps)
        return Averaged(
            sent=self._sent + self._allreduce.sent - self._sent_before,
            moved=self._gradient.moved(self._making.squared),
        )

    def commit(self, unused: Sequence[int]) -> None:
        """All have the mean: take its step."""
        if self._size:
            self._gradient.take(self._mean if self._size > 1 else None, unused)
            self._worker.moved()
            self._size = 0

    def close(self) -> None:
        """Leave the group."""
        travelling = self._travelling
        self._leave()
        self._allreduce.leave()
        if travelling is not None:
            wait([travelling], self._seconds)

    def _new(self) -> PartialGradient:
        return PartialGradient(self._gradient, self._parts, self._worker.replica.weights.device)

    def _moved(self) -> None:
        self._last_move = time.monotonic()
        if threading.get_ident() == self._thread:
            self._moves()

    def _wait_for(self, travelling: Future[None]) -> None:
        """Until it has come, as long as some of it comes. Raises RuntimeError if it does not."""
        seen = time.monotonic()
        while True:
            try:
                travelling.result(_LOOK_SECONDS)
            except NotInTime:
                if self._last_move > seen:
                    seen = self._last_move
                    self._moves()
                if time.monotonic() > seen + self._seconds:
                    raise RuntimeError(f"no gradients came for {self._seconds:g} s") from None
            else:
                return

    def _averaging(self, key: str, rank: int, size: int) -> Callable[[], None]:
        """What makes the mean of the group's gradients, of what is here now: it may be given up."""
        allreduce, making, mean, base = self._allreduce, self._making, self._mean, self._base
        vector, statistics = self._gradient.vector, self._worker.replica.statistics

        def average() -> None:
            allreduce.join(key, rank, size)
            allreduce.follow(vector, base, self._parts, [1] * size, rank, mean, making)
            allreduce.widen(statistics, vector, 1, mean)

        return average

    def _leave(self) -> None:
        """Give up a gradient that is still on its way; what its thread works with is its own from now on."""
        if self._travelling is not None and not self._travelling.done():
            self._making.fail()
            self._allreduce.leave()
            self._sent += self._allreduce.sent
            self._allreduce = self._make_allreduce()
            self._mean = np.empty_like(self._mean)
        self._travelling = None


def _started(work: Callable[[], None]) -> Future[None]:
    """It is done in a thread, which nobody has to wait for."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            work()
            future.set_result(None)
        except BaseException as error:  # noqa: BLE001 - raised where the mean is asked for
            future.set_exception(error)

    threading.Thread(target=run, name="sparknet-gradient", daemon=True).start()
    return future
