"""A worker that begins the next round before it knows the average of the last (``sparknet/overlap.py``).

    the worker's thread   TRAIN ─> sent = x ─> REPORT(x) ──> TRAIN(late, w) ──> wait ─> merge, sent = z ─> ..
    a thread of its own              └─> round r + 1 ............................ ┘         └─> round r + 2

Only the thread of its own trains, and only between ``begin`` and the end of that round: otherwise
the net is the worker's thread's alone, as without overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from sparknet.overlap import merge_late
from sparknet.training import Report, RoundPlan
from sparknet.weights import Vector
from sparknet.worker import Worker


class RunAhead:
    """``arrived`` float32 (P,) is where weights are received, ``sent`` what the worker gave to the average.

    ``train`` takes a plan's steps with ``worker`` from the weights its net has.
    """

    def __init__(self, worker: Worker, arrived: Vector, train: Callable[[RoundPlan], Report]) -> None:
        self._worker, self._train = worker, train
        self.arrived: Vector = arrived.copy()
        self.sent: Vector = np.empty_like(self.arrived)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sparknet-ahead")
        self._round: Future[Report] | None = None

    @property
    def busy(self) -> bool:
        """Whether a round has been begun whose report has not been taken."""
        return self._round is not None

    def round(self, plan: RoundPlan, *, late: bool) -> Report:
        """A round from what has ``arrived``, or if that is ``late``, the round that was begun, which it is
        merged into. What the worker ends with is in ``sent``.
        """
        worker = self._worker
        if late and self._round:
            report, self._round = self._round.result(), None
            merge_late(worker.bring(), self.arrived, self.sent, worker.replica.statistics)
            worker.load(worker.vector)
        else:
            self.drop()
            worker.load(self.arrived)
            report = self._train(plan)
        np.copyto(self.sent, worker.bring())
        return report

    def begin(self, plan: RoundPlan | None) -> None:
        """Begin the next round, if there is a plan for it."""
        if plan:
            self._round = self._thread.submit(self._train, plan)

    def pause(self) -> None:
        """Wait for the end of the round that was begun."""
        if self._round:
            self._round.result()

    def drop(self) -> None:
        """Wait for the end of the round that was begun, and forget it: the net gets what has ``arrived``."""
        if self._round:
            self.pause()
            self._round = None
            self._worker.load(self.arrived)

    def committed(self) -> None:
        """The average has ``arrived``; where no round was begun the net goes on from it."""
        if not self._round:
            self._worker.load(self.arrived)

    def close(self) -> None:
        """Wait for the end of the round that was begun, whatever it was."""
        self._thread.shutdown(wait=True)
