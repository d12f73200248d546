"""How traces come to the driver: with the results of the workers' tasks, by an accumulator of Spark's."""

from __future__ import annotations

from pyspark import SparkContext
from pyspark.accumulators import AccumulatorParam

from sparknet.distributed.comm.handshake import Identity
from sparknet.errors import UsageError
from sparknet.traces import Tracer

Traces = dict[str, bytes]


class Profile:
    """``rounds`` rounds of each worker are to be traced. Travels with the assignment of the tasks."""

    def __init__(self, context: SparkContext, rounds: int) -> None:
        if rounds < 1:
            raise UsageError(f"{rounds} rounds are to be traced: at least 1 is needed")
        self.rounds = rounds
        self._collected = context.accumulator({}, _Union())

    def keep(self, who: Identity, tracer: Tracer) -> None:
        """In a task, when it ends: send what has been traced."""
        tracer.finish()
        if tracer.trace:
            self._collected.add({f"worker-{who.partition}-attempt-{who.attempt}": tracer.trace})

    @property
    def traces(self) -> Traces:
        """In the driver: what the tasks that have ended have sent, by worker and attempt."""
        return dict(sorted(self._collected.value.items()))


class _Union(AccumulatorParam[Traces]):
    def zero(self, value: Traces) -> Traces:  # noqa: ARG002 - Spark's signature
        return {}

    def addInPlace(self, value1: Traces, value2: Traces) -> Traces:  # noqa: N802 - Spark's name
        return {**value1, **value2}
