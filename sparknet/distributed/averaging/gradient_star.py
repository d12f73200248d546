"""Gradients that are averaged in the driver: they come with the reports, and their mean goes out to all.

    worker   forward ─> backward ─> REPORT(gradient) ─┐             ┌─> COMMIT(mean): the step
    driver                                            └─> the mean ─┘

The weights are the workers' (``kept_weights.py``). A gradient has to come whole before the mean can be made
of all of them, and that before the step, so that nothing of it overlaps: a ring is for that. With a wire
format of fewer bits gradients and means are rounded, and what that took away is added to the next ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sparknet.codecs import Bytes, Codec
from sparknet.deltas import DeltaEncoder, apply_delta
from sparknet.distributed.averaging.kept_weights import KeptWeights, WorkerWeights
from sparknet.distributed.averaging.remote_weights import Versions
from sparknet.distributed.comm.channel import NOTHING, Frame, Header, Kind, raw
from sparknet.distributed.comm.spread import Spread
from sparknet.distributed.membership import Membership
from sparknet.distributed.messages import Answered, Member, Message, read_report
from sparknet.gradients import Gradient, unused_by_all
from sparknet.merge import Merged, Statistics, merge_moved
from sparknet.rounding import RoundedMean
from sparknet.training import Report, RoundPlan
from sparknet.weights import Vector, fetch
from sparknet.worker import Worker


class GradientStar(KeptWeights):
    """The driver's end. ``moving`` says which values a forward pass moves by itself."""

    name = "star"
    answers: tuple[Kind, ...] = (Kind.REPORT,)

    def __init__(
        self,
        versions: Versions,
        members: Membership,
        codec: Codec,
        statistics: Sequence[Statistics],
        moving: Sequence[slice],
        copy_every: int,
    ) -> None:
        super().__init__(versions, members, members.timeouts, copy_every)
        self.codec = codec
        self._statistics, self._moving = statistics, moving
        self._base: Vector = np.empty(0, np.float32)
        self._rounded: RoundedMean | None = None
        self._is_alone = False

    def form(self, members: Sequence[Member], plan: RoundPlan) -> None:  # noqa: ARG002 - of gradients it is
        """These begin a round."""
        self._is_alone = len(members) == 1

    def whole(self, member: Member) -> memoryview:
        payload = super().whole(member)
        if payload:  # the driver has the weights of now
            self._move_to(self._versions.vector)
        return payload

    def train(self, member: Member, header: Header) -> list[Message]:
        payload = self.whole(member)
        member.version, member.start_version = 0, self._versions.number
        return [Message(Kind.TRAIN, header, payload)]

    def read(self, member: Member, frames: Sequence[Frame]) -> Report:
        header = dict(frames[0].header)
        member.moved = float(header.pop("moved", math.nan))
        report = read_report(member, [replace(frames[0], header=header)])
        if self.codec.is_lossless:
            member.vector = member.buffer.view(np.float32)
        else:
            member.vector = np.empty_like(self._base)
            apply_delta(self.codec, member.buffer, self._base, member.vector)
        return report

    def merge(self, done: Sequence[Answered], reports: Sequence[Report], _plan: RoundPlan) -> Merged | None:
        """The mean of those that are finite, whose step all take that have reported."""
        vectors = [answer.member.vector for answer in done]
        moved = [answer.member.moved for answer in done]
        merged = merge_moved(vectors, moved, [1] * len(done), self._statistics, math.inf)
        unused = unused_by_all(reports[k].unused for k in merged.kept)
        payload = NOTHING if self._is_alone else self._payload(fetch(merged.mean))
        number = self._versions.made_by_workers()
        for answer in done:
            message = Message(Kind.COMMIT, {"unused": unused} if unused else {}, payload)
            answer.member.pending.append(message)
            answer.member.version = answer.member.start_version = number
        took = [answer.member for answer in done]
        for member in self._members.all:
            member.is_new = member.is_new or member not in took
        return replace(merged, mean=WorkerWeights(self, number))

    def overlap(self, members: Sequence[Member]) -> None:
        """No worker runs ahead."""

    def spread(self, over: Spread) -> None:
        """Nothing travels meanwhile."""

    def _payload(self, mean: Vector) -> memoryview:
        """What all are sent of it."""
        if self.codec.is_lossless:
            return raw(mean)
        self._rounded = self._rounded or RoundedMean(self.codec, mean.size)
        mean = self._rounded.sent(mean, self._base)
        self._move_to(mean)
        return raw(self._rounded.data)

    def _move_to(self, vector: Vector) -> None:
        """The workers' moving values are now those of ``vector``, float32 (P,)."""
        if not self.codec.is_lossless:
            self._base = np.zeros_like(vector)  # what has been given out stays as it is
            for moving in self._moving:
                self._base[moving] = vector[moving]


class GradientSender:
    """A worker's end."""

    def __init__(self, worker: Worker, codec: Codec) -> None:
        self._worker, self._codec = worker, codec
        self._gradient = Gradient(worker.replica)
        size = self._gradient.vector.size
        self._encoder = None if codec.is_lossless else DeltaEncoder(codec, size)
        self._encoded: Bytes = np.empty(codec.size(size) if self._encoder else 0, np.uint8)
        self._base: Vector = self._gradient.base()
        self.arrived: Bytes = np.empty(codec.size(size), np.uint8)
        """Where means are received, as the codec writes them."""

    @property
    def start(self) -> memoryview:
        """The bytes of what the round started from."""
        return raw(self._gradient.start_of(self._worker.bring()))

    def train(self, plan: RoundPlan, *, arrived: bool) -> tuple[Report, float, memoryview]:
        """The gradient of a step, from the weights that have ``arrived`` or those of the net.

        Gives the report, how far the worker wants to go, and what to send.
        """
        worker, gradient = self._worker, self._gradient
        if arrived:
            worker.load(worker.vector)
        gradient.begin()
        if self._encoder:
            self._base = gradient.base()
        report = replace(worker.train(None, plan, gradient.compute), unused=gradient.unused)
        moved = gradient.moved(gradient.bring_all())
        if self._encoder is None:
            return report, moved, raw(gradient.vector)
        self._encoder.encode(gradient.vector, self._base, self._encoded)
        return report, moved, raw(self._encoded)

    def commit(self, unused: Sequence[int], *, arrived: bool) -> None:
        """Take the step of the mean that has ``arrived``, or of the worker's own gradient."""
        mean: Vector | None = None
        if arrived and self._encoder is None:
            mean = self.arrived.view(np.float32)
        elif arrived:
            mean = np.empty_like(self._base)
            apply_delta(self._codec, self.arrived, self._base, mean)
        self._gradient.take(mean, unused)
        self._worker.moved()
