"""A worker's end of the connection: join the driver, and carry out its commands until it says stop.

A worker that loses the connection keeps its replica and its shard and comes back; one that the driver
refuses, because a newer attempt has its place, ends with an error so that Spark does not take its partition
for done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from typing import Protocol

import numpy as np

from sparknet.codecs import Float32, get_codec
from sparknet.data.dataset import Shard
from sparknet.data.handoff import Handoff
from sparknet.distributed.averaging.gradient_star import GradientSender
from sparknet.distributed.averaging.participant import Participant
from sparknet.distributed.averaging.run_ahead import RunAhead
from sparknet.distributed.averaging.star import DeltaSender
from sparknet.distributed.comm.channel import NOTHING, Channel, Frame, Header, Kind, raw
from sparknet.distributed.comm.handshake import Identity, introduce
from sparknet.distributed.comm.spread import AT_ONCE, SHARE, Spread
from sparknet.distributed.timeouts import Timeouts
from sparknet.errors import DataError, ModelError, TrainingError, UsageError
from sparknet.notice import Notice
from sparknet.traces import Tracer
from sparknet.training import Report, RoundPlan, WorkerState
from sparknet.worker import Recipe, Worker

log = logging.getLogger(__name__)

# A worker tries again this long to reach a driver it has lost, or has not found yet.
_RETRY_SECONDS = 30.0
_RETRY_PAUSE_SECONDS = 0.2
# Pings that may be missed before the driver is considered lost.
_MISSED_PINGS = 6

# What is wrong with a worker's input is wrong wherever it is tried again.
FINAL = (UsageError, ModelError, DataError)

_COMMANDS = (
    Kind.TRAIN,
    Kind.TEST,
    Kind.SAVE,
    Kind.RESTORE,
    Kind.DELTA,
    Kind.REDUCE,
    Kind.COMMIT,
    Kind.OUTER,
    Kind.MEMORY,
    Kind.FETCH,
    Kind.PING,
    Kind.ASSIGN,
    Kind.YIELD,
    Kind.STOP,
)


class TestSet(Protocol):
    """The test set wherever it is, as a broadcast of Spark's."""

    @property
    def value(self) -> Shard: ...


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What every task is given. ``token`` authenticates it to the driver; it is never shown. ``job`` is the
    name under which its workers hand shards over.
    """

    address: tuple[str, int]
    token: bytes = field(repr=False)
    recipe: Recipe
    test: TestSet | None
    timeouts: Timeouts
    wire: str = "float32"
    memory_bytes: int | None = None
    job: str = ""
    ring: tuple[str, int] | None = None
    trace_rounds: int = 0


class Service:
    """One worker's end, across lost connections; ``drain`` reads the shard that ``worker`` trains on,
    ``notice`` is that of its machine."""

    def __init__(
        self,
        assignment: Assignment,
        who: Identity,
        drain: Callable[[], Shard],
        notice: Notice | None = None,
    ) -> None:
        self.assignment, self.who, self.drain = assignment, who, drain
        self.notice = notice or Notice()
        self.worker: Worker | None = None
        self._channel: Channel | None = None
        self._said_busy = 0.0
        self._sender: DeltaSender | None = None
        self._participant: Participant | None = None
        self._run_ahead: RunAhead | None = None
        self._gradients: GradientSender | None = None
        self._handoff = Handoff(assignment.job)
        self.tracer = Tracer(assignment.trace_rounds)

    def run(self) -> None:
        try:
            self._serve()
        finally:
            if self._run_ahead:
                self._run_ahead.close()
            if self._participant:
                self._participant.close()

    def _serve(self) -> None:
        while True:
            with closing(self._connected()) as channel:
                try:
                    self._run_commands(channel)
                    return
                except (OSError, EOFError) as error:
                    log.warning("%s lost the driver: %s", self.who, error)
                    time.sleep(_RETRY_PAUSE_SECONDS)
                except FINAL as error:
                    # trying again would end the same way: Spark is not to
                    if not self._report_failure(channel, error, final=True):
                        raise
                    return
                except Exception as error:
                    self._report_failure(channel, error, final=False)
                    raise

    def _connected(self) -> Channel:
        """A channel to the driver. Raises Refused, or TrainingError if nobody answers in time."""
        deadline = time.monotonic() + _RETRY_SECONDS
        while True:
            try:
                return self._introduced(Channel.connect(self.assignment.address, _RETRY_SECONDS))
            except (OSError, EOFError) as error:
                # the driver listens for as long as it trains: a closed port means that it has ended
                if isinstance(error, ConnectionRefusedError) or time.monotonic() > deadline:
                    host, port = self.assignment.address
                    raise TrainingError(
                        f"{self.who} could not reach the driver at {host}:{port}: {error}. "
                        "Unless it has ended: is spark.driver.host reachable from the executors?"
                    ) from error
                time.sleep(_RETRY_PAUSE_SECONDS)

    def _introduced(self, channel: Channel) -> Channel:
        with ExitStack() as undo:
            undo.callback(channel.close)
            introduce(channel, self.assignment.token, self.who)
            undo.pop_all()
        return channel

    def _run_commands(self, channel: Channel) -> None:
        worker, self._channel = self.worker or self._built(), channel
        self.worker = worker
        participant = self._participant = self._participant or self._participant_of(worker, channel)
        timeouts = self.assignment.timeouts
        history = np.empty(worker.replica.history().numel(), np.float32)
        header = {
            **_holding(worker),
            "place": self._handoff.place,
            "gpu": participant.gpu if participant else "",
            "size": worker.vector.size,
            "history": history.size,
            "iteration": worker.replica.iteration,
        }
        channel.send(Kind.READY, header, seconds=timeouts.send)
        codec = Float32() if self.assignment.ring else get_codec(self.assignment.wire)
        sender = self._sender = self._sender or DeltaSender(worker.vector, codec)
        arriving = raw(self._run_ahead.arrived if self._run_ahead else worker.vector)
        into = {
            Kind.TRAIN: arriving,
            Kind.TEST: arriving,
            Kind.RESTORE: raw(history),
            Kind.DELTA: raw(sender.delta),
        }
        while True:
            silence = _MISSED_PINGS * timeouts.ping
            frame = channel.receive(*_COMMANDS, into=into, seconds=silence)
            if participant and frame.size and frame.kind in (Kind.TRAIN, Kind.TEST):
                participant.arrived()
            match frame.kind:
                case Kind.TRAIN if frame.header.get("gradients"):
                    with self.tracer.round():
                        self._step(channel, worker, frame)
                    if self._gradients:
                        into[Kind.COMMIT] = raw(self._gradients.arrived)
                case Kind.TRAIN if "ahead" in frame.header or self._run_ahead:
                    sender.begin(arrived=frame.size > 0)
                    if not self._run_ahead:
                        self._run_ahead = self._prepared(worker, sender, arrived=frame.size > 0)
                        into[Kind.TRAIN] = into[Kind.TEST] = raw(self._run_ahead.arrived)
                    self._train_ahead(channel, self._run_ahead, sender, frame)
                case Kind.TRAIN:
                    sender.begin(arrived=frame.size > 0)
                    with self.tracer.round():
                        self._train(channel, worker, sender, frame)
                case Kind.DELTA:
                    sender.apply_delta()
                case Kind.TEST:
                    self._test(channel, worker, frame)
                case Kind.REDUCE:
                    self._reduce(channel, frame)
                case Kind.COMMIT if participant:
                    participant.commit(**frame.header)
                case Kind.COMMIT if self._gradients:
                    self._gradients.commit(frame.header.get("unused", ()), arrived=frame.size > 0)
                case Kind.OUTER if participant:
                    into[Kind.MEMORY] = participant.follow(**frame.header)
                case Kind.MEMORY:
                    into.pop(Kind.MEMORY)  # it has been received into the optimiser's memory
                case Kind.FETCH if participant:
                    vector = participant.memory if frame.header["what"] == "memory" else participant.start
                    channel.send(Kind.WEIGHTS, {}, vector, seconds=timeouts.send)
                case Kind.FETCH if self._gradients:
                    channel.send(Kind.WEIGHTS, {}, self._gradients.start, seconds=timeouts.send)
                case Kind.SAVE:
                    self._send_state(channel, worker)
                case Kind.RESTORE:
                    if self._run_ahead:
                        self._run_ahead.drop()
                    worker.restore(WorkerState(**frame.header, history=history if frame.size else None))
                case Kind.ASSIGN:
                    self._assign(channel, worker, frame)
                case Kind.YIELD:
                    if self._yield(channel, worker, away=bool(frame.header.get("away"))):
                        return
                case Kind.STOP:
                    self._handoff.clear()
                    return

    def _built(self) -> Worker:
        """The net is built while the data is on its way."""
        recipe, number = self.assignment.recipe, self.who.partition
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="sparknet-drain") as thread:
            draining = thread.submit(self.drain)
            replica = recipe.build()
            try:
                return recipe.worker(number, draining.result(), replica, self.notice)
            except (OSError, EOFError) as error:
                raise TrainingError(f"partition {number} could not be read: {error}") from error

    def _train(self, channel: Channel, worker: Worker, sender: DeltaSender, frame: Frame) -> None:
        header = dict(frame.header)
        ring = header.pop("ring", False)
        plan = RoundPlan(**header)
        if ring and self._participant:
            report = self._participant.train(plan, arrived=frame.size > 0)
            self._answer(channel, Kind.REPORT, report.header)
            return
        report = worker.train(worker.vector, plan)
        worker.bring()
        self._answer(channel, Kind.REPORT, report.header, sender.result())
        if plan.momentum == "average":
            self._send_state(channel, worker)

    def _step(self, channel: Channel, worker: Worker, frame: Frame) -> None:
        """The first half of a step that all workers take together."""
        header = dict(frame.header)
        ring, group = header.pop("ring", False), header.pop("group", {})
        plan, arrived = RoundPlan(**header), frame.size > 0
        if ring and self._participant:
            report = self._participant.step(plan, arrived=arrived, group=group)
            self._answer(channel, Kind.REPORT, report.header)
            return
        report, moved, payload = self._gradient_sender_of(worker).train(plan, arrived=arrived)
        self._answer(channel, Kind.REPORT, {**report.header, "moved": moved}, payload)

    def _gradient_sender_of(self, worker: Worker) -> GradientSender:
        if self._gradients is None:
            self._gradients = GradientSender(worker, get_codec(self.assignment.wire))
        return self._gradients

    def _prepared(self, worker: Worker, sender: DeltaSender, *, arrived: bool) -> RunAhead:
        """What a worker needs that trains while averages travel; weights that have ``arrived`` are in its
        vector."""

        def train(plan: RoundPlan) -> Report:
            with self.tracer.round():
                return worker.train(None, plan)

        run_ahead = RunAhead(worker, worker.vector if arrived else worker.bring(), train)
        sender.receive_in(run_ahead.arrived)
        return run_ahead

    def _train_ahead(self, channel: Channel, run_ahead: RunAhead, sender: DeltaSender, frame: Frame) -> None:
        """A round, and the beginning of the next one before its average is known."""
        header = dict(frame.header)
        ahead, late, ring = header.pop("ahead", None), header.pop("late", False), header.pop("ring", False)
        fragments = header.pop("fragments", 1)
        if frame.size:
            sender.restart()
        report = run_ahead.round(RoundPlan(**header), late=late)
        run_ahead.begin(RoundPlan(**ahead) if ahead else None)
        if ring and self._participant:
            self._participant.begin(run_ahead)
        payload = NOTHING if ring else sender.result(run_ahead.sent)
        spread = AT_ONCE
        if payload and fragments > 1:
            spread = Spread.over(fragments, SHARE / 2 * report.seconds, self.assignment.timeouts)
        self._answer(channel, Kind.REPORT, report.header, payload, spread)

    def _reduce(self, channel: Channel, frame: Frame) -> None:
        assert self._participant is not None
        header: dict[str, object]
        self._said_busy = time.monotonic()  # what is soon over needs no word
        try:
            header = {"done": True, **vars(self._participant.reduce(**frame.header))}
        except RuntimeError as error:
            log.warning("%s could not average with the others: %s", self.who, error)
            header = {"done": False, "reason": str(error)[:500]}
        channel.send(Kind.REDUCED, header, seconds=self.assignment.timeouts.send)

    def _participant_of(self, worker: Worker, channel: Channel) -> Participant | None:
        assignment = self.assignment
        if assignment.ring is None:
            return None
        return Participant(
            worker,
            store=assignment.ring,
            host=channel.host,
            seconds=assignment.timeouts.send,
            wire=assignment.wire,
            moves=self._say_busy,
        )

    def _say_busy(self) -> None:
        """The driver waits for what this worker is at: it gets on with that, however slow links are."""
        timeouts, now = self.assignment.timeouts, time.monotonic()
        if self._channel and now >= self._said_busy + timeouts.ping:
            self._said_busy = now
            self._channel.send(Kind.BUSY, {}, seconds=timeouts.send)

    def _test(self, channel: Channel, worker: Worker, frame: Frame) -> None:
        if self.assignment.test is None:
            raise DataError("there is no test set: give one, or set test_every to 0")
        try:
            examples = self.assignment.test.value[frame.header["start"] : frame.header["stop"]]
        except (OSError, EOFError) as error:  # of Spark's files, not of the connection
            raise TrainingError(f"the test set could not be read on {self.who.host}: {error}") from error
        vector = worker.vector
        if self._run_ahead:
            self._run_ahead.drop()
            vector = self._run_ahead.arrived
        scores = worker.test(vector if frame.size else None, examples)
        self._answer(channel, Kind.SCORES, asdict(scores))

    def _assign(self, channel: Channel, worker: Worker, frame: Frame) -> None:
        """Train on these shards and no others; what is new has been handed over here by another."""
        due = {int(shard): int(position) for shard, position in frame.header["shards"].items()}
        if self._run_ahead and self._run_ahead.busy:
            self._run_ahead.pause()
            due.update((shard, at) for shard, at in worker.positions.items() if shard in due)
        for shard in worker.readers.keys() - due.keys():
            worker.drop_shard(shard)
        for shard, position in due.items():
            if shard in worker.readers:
                worker.readers[shard].sampler.position = position
            elif examples := self._handoff.take(shard):
                worker.add_shard(shard, examples, position)
        channel.send(Kind.ASSIGNED, _holding(worker), seconds=self.assignment.timeouts.send)

    def _answer(
        self,
        channel: Channel,
        kind: Kind,
        header: Header,
        payload: memoryview = NOTHING,
        spread: Spread = AT_ONCE,
    ) -> None:
        """Send the driver what it waits for, and whether this worker is about to leave."""
        leaving = {"leaving": True} if self.notice.leaves else {}
        seconds = self.assignment.timeouts.send
        channel.send(kind, {**header, **leaving}, payload, seconds=seconds, spread=spread)

    def _yield(self, channel: Channel, worker: Worker, *, away: bool) -> bool:
        """Leave the shards to the other workers of this executor, and the slot to another task; nothing to
        anybody where the machine goes ``away``. False if it stays, for its shards find no room."""
        stays = "" if away else self._hand_over(worker)
        if self._run_ahead and not stays:
            self._run_ahead.drop()
        self._send_state(channel, worker)
        header = {**_holding(worker), "place": self._handoff.place, "stays": stays}
        timeouts = self.assignment.timeouts
        channel.send(Kind.YIELDED, header, seconds=timeouts.send)
        if stays:
            return False
        # a task that ends before the driver knows of it would be done for Spark, and its shard nobody's
        while channel.receive(Kind.PING, Kind.STOP, seconds=_MISSED_PINGS * timeouts.ping).kind is Kind.PING:
            pass
        return True

    def _hand_over(self, worker: Worker) -> str:
        """Put its shards where the other workers of this executor find them; "", or why that cannot be."""
        try:
            for shard, reader in worker.readers.items():
                self._handoff.put(shard, reader.examples)
        except OSError as error:
            for shard in worker.readers:
                self._handoff.discard(shard)
            return f"its shards cannot be put on the spill volume: {error}"
        return ""

    def _send_state(self, channel: Channel, worker: Worker) -> None:
        if self._run_ahead:
            self._run_ahead.pause()
        state = worker.state
        header = {"iteration": state.iteration, "position": state.position}
        history = NOTHING if state.history is None else raw(state.history)
        channel.send(Kind.STATE, header, history, seconds=self.assignment.timeouts.send)

    def _report_failure(self, channel: Channel, error: Exception, *, final: bool) -> bool:
        """Send the driver why this worker ends; whether it was sent."""
        header = {"reason": f"{type(error).__name__}: {error}"[:2000], "final": final}
        try:
            channel.send(Kind.FAILED, header, seconds=self.assignment.timeouts.send)
        except OSError:
            return False
        return True


def _holding(worker: Worker) -> dict[str, object]:
    """The records of each of its shards, and how many bytes all of them have."""
    readers = worker.readers
    examples = [reader.examples for reader in readers.values()]
    return {
        "shards": {str(shard): reader.records for shard, reader in readers.items()},
        "shard_bytes": sum(shard.nbytes for shard in examples),
    }
