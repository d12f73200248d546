"""All workers in this process, one after the other: the reference for every other ``Workers``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType

from sparknet.codecs import get_codec
from sparknet.data.dataset import Shard
from sparknet.easgd import Exchanger, Exchanges
from sparknet.errors import DataError, WorkersLost
from sparknet.in_step import WorkersInStep
from sparknet.merge import merge
from sparknet.overlap import merge_late
from sparknet.rounding import RoundedExchange
from sparknet.training import Exchanged, Report, RoundPlan, RoundResult, Scores, WorkerState, mean_state
from sparknet.weights import Vector, Weights, fetch, mean_of
from sparknet.worker import Recipe, Worker


class LocalWorkers:
    """One worker for each shard; ``test`` is the test set, needed only for testing.

    Weights are rounded as they would be on the way to a driver and back, in the format ``wire``.
    """

    def __init__(
        self, recipe: Recipe, shards: Sequence[Shard], test: Shard | None = None, wire: str = "float32"
    ) -> None:
        codec = get_codec(wire)
        self._rounded = None if codec.is_lossless else RoundedExchange(codec)
        self._overlaps = False
        self.recipe, self.examples = recipe, test
        self.workers = [recipe.worker(number, shard) for number, shard in enumerate(shards)]
        self._history: Vector | None = None
        self._rejected: set[int] = set()
        self._sent: dict[int, Vector] = {}  # of those that have begun the next round, by worker
        self._in_step = WorkersInStep(codec)
        if not self._busy:
            raise WorkersLost("no worker has records to train on: every shard is empty")

    def __enter__(self) -> LocalWorkers:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def initial_weights(self) -> Vector:
        return self.workers[0].bring().copy()

    def train(self, weights: Weights, plan: RoundPlan, ahead: RoundPlan | None = None) -> RoundResult:
        if plan.gradients:
            return self._in_step.train(fetch(weights), plan, self._busy)
        weights = self._begun(fetch(weights), ahead)
        workers = self._busy
        if self._sent:
            workers = [worker for worker in workers if worker.number in self._sent]
            ahead = ahead if len(workers) == len(self._busy) else None  # the others come back after this one
        reports = [self._train(worker, weights, plan) for worker in workers]
        steps = [report.steps for report in reports]
        vectors = [self._returned(worker, weights) for worker in workers]
        merged = merge(weights, vectors, steps, workers[0].replica.statistics)
        if plan.momentum == "average":
            histories = [workers[k].replica.history().cpu().numpy() for k in merged.kept]
            self._history = mean_of(histories, [steps[k] for k in merged.kept])
        back = {worker.number for worker in workers}
        self._rejected = (self._rejected - back) | {workers[k].number for k in merged.rejected}
        kept = [workers[k] for k in merged.kept] if ahead else []
        self._sent = {worker.number: worker.bring().copy() for worker in kept}
        return RoundResult(
            mean=merged.mean,
            reports=tuple(reports[k] for k in merged.kept),
            lost=tuple(f"worker {workers[k].number}: {reason}" for k, reason in merged.rejected.items()),
        )

    def exchanges(self, exchanger: Exchanger, plan: Callable[[], RoundPlan]) -> Exchanges:
        """In turn, which is one of the orders that workers at their own pace could come in."""
        while True:
            for worker in self._busy:
                start = exchanger.start_of(worker.number)
                report = worker.train(start, plan())
                exchanger.exchange(worker.number, self._returned(worker, start), len(self._busy))
                yield Exchanged(report=report)

    def test(self, weights: Weights) -> Scores:
        weights = fetch(weights)
        self._sent.clear()
        if self.examples is None:
            raise DataError("there is no test set: give one, or set test_every to 0")
        worker, examples = self.workers[0], self.examples
        parts = (worker.test(weights, examples[part]) for part in self.recipe.slices(len(examples)))
        return sum(parts, Scores())

    def states(self) -> dict[int, WorkerState]:
        states = {worker.number: worker.state for worker in self._busy}
        if self._history is None:
            return states
        return {number: replace(state, history=self._history) for number, state in states.items()}

    def restore(self, states: Mapping[int, WorkerState]) -> None:
        mean = mean_state(states.values())
        self._sent.clear()
        self._in_step.restored(mean)
        for worker in self._busy:
            worker.restore(states.get(worker.number, mean))

    def close(self) -> None:
        self.workers.clear()

    @property
    def _busy(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.readers]

    def _begun(self, weights: Vector, ahead: RoundPlan | None) -> Vector:
        """What the workers have of the weights that a round begins with."""
        self._overlaps = self._overlaps or ahead is not None
        if self._rounded is None:
            return weights
        if self._overlaps and not self._sent:
            self._rounded.forget()
        return self._rounded.sent(weights)

    def _returned(self, worker: Worker, start: Vector) -> Vector:
        """What is known of a worker's weights, who began from ``start``, once they have travelled."""
        vector = worker.bring()
        return vector if self._rounded is None else self._rounded.returned(worker.number, vector, start)

    def _train(self, worker: Worker, weights: Vector, plan: RoundPlan) -> Report:
        if plan.momentum == "average" and self._history is not None:
            worker.restore_history(self._history)
        elif worker.number in self._rejected:  # what spoiled its weights is in its momentum too
            plan = replace(plan, momentum="reset")
        if worker.number not in self._sent:
            return worker.train(weights, plan)
        report = worker.train(None, plan)
        merge_late(worker.bring(), weights, self._sent[worker.number], worker.replica.statistics)
        worker.load(worker.vector)
        return report
