"""Workers of one process that take every step together, by the mean of their gradients (``gradients.py``)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from sparknet.codecs import Codec
from sparknet.gradients import Gradient, unused_by_all
from sparknet.merge import Merged, merge_moved
from sparknet.rounding import RoundedExchange, RoundedMean
from sparknet.rounds import Report, RoundPlan, RoundResult, WorkerState
from sparknet.weights import Vector, fetch
from sparknet.worker import Worker


class WorkersInStep:
    """Gradients are rounded as they would be on the way to a driver and back, by ``codec``."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._gradients: dict[int, Gradient] = {}
        self._exchange = None if codec.is_lossless else RoundedExchange(codec)
        self._mean: RoundedMean | None = None
        self._state: WorkerState | None = None

    def restored(self, state: WorkerState) -> None:
        """All workers go on from the iteration and the history of this state."""
        self._state = state

    def train(self, weights: Vector, plan: RoundPlan, workers: Sequence[Worker]) -> RoundResult:
        """A step of all ``workers`` from ``weights``, float32 (P,).

        Raises UsageError for a replica that has no gradients to give, TrainingError if none of them is
        finite.
        """
        reports, moved, vectors, bases = [], [], [], []
        for worker in workers:
            gradient = self._gradient(worker)
            worker.load(weights)
            self._align(worker)
            gradient.begin()
            bases.append(gradient.base())
            reports.append(self._report(worker, plan))
            moved.append(gradient.moved(gradient.bring_all()))
            vectors.append(gradient.vector)
        self._state = None
        alone = len(workers) == 1
        if self._exchange and not alone:
            numbers = [worker.number for worker in workers]
            vectors = [self._exchange.returned(*each) for each in zip(numbers, vectors, bases, strict=True)]
        merged = merge_moved(vectors, moved, [1] * len(vectors), workers[0].replica.statistics, math.inf)
        self._take(merged, bases[0], reports, workers)
        return RoundResult(
            mean=workers[0].bring().copy(),
            reports=tuple(reports[k] for k in merged.kept),
            lost=tuple(f"worker {workers[k].number}: {reason}" for k, reason in merged.rejected.items()),
        )

    def _take(
        self, merged: Merged, base: Vector, reports: Sequence[Report], workers: Sequence[Worker]
    ) -> None:
        """All take the step that the mean of those that are kept asks for."""
        mean = None if len(workers) == 1 else fetch(merged.mean)
        if mean is not None and self._exchange:
            self._mean = self._mean or RoundedMean(self._codec, len(base))
            mean = self._mean.sent(mean, base)
        unused = unused_by_all(reports[k].unused for k in merged.kept)
        for worker in workers:
            self._gradients[worker.number].take(mean, unused)
            worker.moved()

    def _report(self, worker: Worker, plan: RoundPlan) -> Report:
        gradient = self._gradients[worker.number]
        return replace(worker.train(None, plan, gradient.compute), unused=gradient.unused)

    def _gradient(self, worker: Worker) -> Gradient:
        if worker.number not in self._gradients:
            self._gradients[worker.number] = Gradient(worker.replica)
        return self._gradients[worker.number]

    def _align(self, worker: Worker) -> None:
        if self._state is not None:
            worker.replica.iteration = self._state.iteration
            if self._state.history is not None:
                worker.restore_history(self._state.history)
