"""Averaging in the driver: weights go out to every worker, and come back to be averaged here.

With a wire format of fewer bits, deltas travel: the driver's since the last round, and the worker's since the
round's start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sparknet.codecs import Bytes, Codec
from sparknet.deltas import DeltaEncoder, DeltaTracker, apply_delta
from sparknet.distributed.averaging.remote_weights import Versions
from sparknet.distributed.comm.channel import NOTHING, Frame, Header, Kind, raw
from sparknet.distributed.comm.spread import AT_ONCE, SHARE, Spread
from sparknet.distributed.late_work import LateWork
from sparknet.distributed.messages import Answered, Member, Message, read_report
from sparknet.merge import Merged, Statistics, distance, merge_moved
from sparknet.training import Report, RoundPlan
from sparknet.weights import Vector, Weights, fetch


class Star:
    """The driver's end: messages with weights, and the mean of those that come back.

    ``read`` is called by the loops of the connections."""

    name = "star"
    answers: tuple[Kind, ...] = (Kind.REPORT,)

    def __init__(self, versions: Versions, codec: Codec, statistics: Sequence[Statistics]) -> None:
        self.codec = codec
        self._versions, self._statistics = versions, statistics
        self._tracker = None if codec.is_lossless else DeltaTracker(codec)
        self._start: Vector = versions.vector
        self._spread = AT_ONCE

    def begin(self, weights: Weights) -> None:
        """The next round starts from ``weights``, or from what a delta of fewer bits makes of them."""
        self.publish(weights)
        self._start = self._versions.vector
        if self._tracker is not None:
            self._tracker.move(self._start)
            self._start = self._tracker.known

    def overlap(self, members: Sequence[Member]) -> None:
        """The next round is one whose workers may run ahead. Where none has, all begin it from whole weights,
        and forget what rounding took away so far: a run that is resumed there does the same."""
        if not any(member.is_ahead for member in members):
            self.restart(members)

    def restart(self, members: Sequence[Member]) -> None:
        """All begin the next round from whole weights."""
        if self._tracker is not None:
            self._tracker = DeltaTracker(self.codec)
            for member in members:
                member.delta_version = 0

    def spread(self, over: Spread) -> None:
        """The average of this round may take that long on its way to workers that are ahead, as each takes
        for its weights."""
        self._spread = replace(over, seconds=SHARE / 2 * over.seconds)

    def publish(self, weights: Weights) -> None:
        self._versions.publish(fetch(weights))

    def form(self, members: Sequence[Member], plan: RoundPlan) -> None:
        """These begin a round: each by itself."""

    def whole(self, member: Member) -> memoryview:
        """The weights for a member that has not got them."""
        return NOTHING if member.version == self._versions.number else raw(self._versions.vector)

    def train(self, member: Member, header: Header) -> list[Message]:
        """The plan, with the weights, a delta of them, or neither if the worker has them."""
        messages = self._train_messages(member, header)
        if member.is_ahead:
            messages = [replace(message, spread=self._spread) for message in messages]
        member.version, member.base = 0, self._start
        return messages

    def train_from(self, start: Vector, member: Member, header: Header) -> list[Message]:
        """The plan with weights that are for this member alone."""
        member.version, member.delta_version, member.base = 0, 0, start
        return [Message(Kind.TRAIN, header, raw(start))]

    def read(self, member: Member, frames: Sequence[Frame]) -> Report:
        report = read_report(member, frames)
        if self._tracker is None:
            member.vector = member.buffer.view(np.float32)
        else:
            member.vector = np.empty_like(member.base)
            apply_delta(self.codec, member.buffer, member.base, member.vector)
        member.moved = distance(member.base, member.vector)
        return report

    def merge(
        self,
        done: Sequence[Answered],
        reports: Sequence[Report],
        _plan: RoundPlan,
        late: Sequence[LateWork] = (),
    ) -> Merged | None:
        """The mean without outliers. What is ``late`` counts as if it had begun where this round did, and is
        numbered after what is not."""
        vectors = [answer.member.vector for answer in done] + [self._start + work.delta for work in late]
        distances = [answer.member.moved for answer in done] + [work.moved for work in late]
        steps = [report.steps for report in reports] + [work.report.steps for work in late]
        return merge_moved(vectors, distances, steps, self._statistics)

    def can_send(self, _member: Member) -> bool:
        """Whether it could be sent the weights at once."""
        return True

    def secure(self) -> None:
        """The driver has all there is."""

    def take_fetched(self) -> int:
        return 0

    def close(self) -> None:
        """There is nothing to release."""

    def _train_messages(self, member: Member, header: Header) -> list[Message]:
        tracker = self._tracker
        if tracker is None:
            return [Message(Kind.TRAIN, header, self.whole(member))]
        known, member.delta_version = member.delta_version, tracker.version
        if not known or tracker.version - known > 1:
            return [Message(Kind.TRAIN, header, raw(tracker.known))]
        delta = [Message(Kind.DELTA, {}, raw(tracker.delta))] if tracker.version > known else []
        return [*delta, Message(Kind.TRAIN, header)]


class DeltaSender:
    """A worker's end, for ``vector`` float32 (P,): frames are received into it, and the worker trains it.

    With a lossless ``codec`` that is all there is to it. Else deltas travel: those of the driver are
    applied to what the last round started from, and the worker's own are computed from there.
    """

    def __init__(self, vector: Vector, codec: Codec) -> None:
        self._vector, self._codec = vector, codec
        self._encoder = None if codec.is_lossless else DeltaEncoder(codec, vector.size)
        self._base: Vector = np.empty(0, np.float32)
        size = self._codec.size(vector.size) if self._encoder else 0
        self.delta: Bytes = np.empty(size, np.uint8)  # as the codec writes it
        self._encoded: Bytes = np.empty(size, np.uint8)

    def apply_delta(self) -> None:
        """The driver has moved by what has been received into ``delta``."""
        apply_delta(self._codec, self.delta, self._base, self._base)

    def begin(self, arrived: bool) -> None:
        """A round starts: from ``vector`` if whole weights have ``arrived``, else from what is known."""
        if self._encoder is None:
            return
        if arrived:
            self._base = self._vector.copy()
        else:
            np.copyto(self._vector, self._base)

    def receive_in(self, vector: Vector) -> None:
        """From now on frames are received into this vector, float32 (P,)."""
        np.copyto(vector, self._vector)
        self._vector = vector

    def restart(self) -> None:
        """Forget what rounding took away so far."""
        if self._encoder is not None:
            self._encoder = DeltaEncoder(self._codec, self._vector.size)

    def result(self, vector: Vector | None = None) -> memoryview:
        """What to send of ``vector``, the worker's unless it is given, now that the round has ended."""
        vector = self._vector if vector is None else vector
        if self._encoder is None:
            return raw(vector)
        self._encoder.encode(vector, self._base, self._encoded)
        return raw(self._encoded)
