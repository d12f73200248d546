"""A worker that computes nothing: it answers what the coordinator asks of it when a real one would have."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from sparknet.codecs import Codec
from sparknet.distributed.averaging.gradient_averager import SMALLEST_BUCKET
from sparknet.distributed.averaging.host_allreduce import bucket_numbers
from sparknet.distributed.averaging.ring import SLOW
from sparknet.distributed.comm.channel import Channel, Frame, Header, Kind
from sparknet.distributed.comm.handshake import Identity
from sparknet.distributed.messages import Answered, Joined, Lost, Member, Message, Request
from sparknet.rounds import Report
from sparknet.simulation.events import EventQueue
from sparknet.simulation.links import Connection, SharedLink, slow_start
from sparknet.simulation.machines import FLOAT_BYTES, Machines

NUMBERS = 256
"""In the vectors that really travel, for as many as the net has: a block of every wire format."""

# The share of a step's time that is its backward pass: for each layer as much for its bottoms and for its
# parameters as for its tops.
_BACKWARD = 2 / 3
# Bytes of a frame besides its payload.
_FRAME_BYTES = 350
# Of the time that a step's bytes take in a ring, lost where all buckets are under way at once and those of
# the second step queue behind those of the first. Fitted to rounds: it was 0.2 to 0.56 with 2 and 4 workers
# at 10 and 50 Mbit/s (docs/results.md).
_CROWDED = 0.4
# Seconds until the driver hears that a worker's machine is gone.
_LOSS_SECONDS = 0.3


class Site:
    """All that the workers share: the two directions of the driver's link, and the group that averages."""

    def __init__(self, events: EventQueue, machines: Machines, codec: Codec, seed: int) -> None:
        self.events, self.machines, self.codec = events, machines, codec
        self.random = np.random.default_rng(seed)
        self.down = SharedLink(events, machines.driver_link, machines.link)
        self.up = SharedLink(events, machines.driver_link, machines.link)
        self.scale = machines.parameters / NUMBERS
        self.group: AveragingGroup | None = None
        self.last_loss = -math.inf

    @property
    def last_bucket(self) -> float:
        """The share that the last bucket of a gradient has of it, at least."""
        return min(1.0, SMALLEST_BUCKET / self.machines.parameters)

    def lost(self, member: Member, reason: str) -> None:
        """The driver hears of a loss, and tells those that average to give up."""
        self.last_loss = self.events.now()
        self.events.put(Lost(member, reason))
        if self.group:
            self.group.fail(f"{member} is gone")

    def bytes_of(self, payload: int) -> float:
        """What a payload of the small vector stands for."""
        return payload * self.scale + _FRAME_BYTES

    def ring_seconds(self, members: int) -> float:
        """For the vector to be averaged among so many: its parts go out, and the means come back."""
        once = self._steps_of_ring(members, slow=False)
        # what the engine does where the last average took long
        took = once + 2 * self.machines.to_driver
        slow = self.codec.is_lossless and self.machines.vector_bytes < SLOW * took
        return self._steps_of_ring(members, slow=True) if slow else once

    def _steps_of_ring(self, members: int, *, slow: bool) -> float:
        """gloo sends nothing before the receiver has said that it is ready, which takes a latency more in
        each step. With many buckets what is said for the second step comes with the bytes of the first.
        """
        if members == 1:
            return 0.0
        machines, numbers = self.machines, self.machines.parameters
        sent = self.codec.size(numbers) * (members - 1) / members
        rate = min(machines.link, machines.ring_processing / (self.codec.size(numbers) / numbers / 4))
        step = sent / rate
        lead = min(1.0, bucket_numbers(numbers, slow=slow) / numbers)
        # the part that comes last of a bucket is averaged while its link has nothing else to carry
        idle = _CROWDED * step if slow else lead * step / (members - 1)
        waits = (3 + lead) * machines.latency
        if not machines.keeps_window:
            waits += 2 * slow_start(sent / (members - 1), rate, 2 * machines.latency) * lead
        return 2 * step + idle + waits + 2 * (members - 1) * machines.handling / 4


class AveragingGroup:
    """Workers that average among themselves: it begins when all have come, and ends for all at once."""

    def __init__(self, site: Site, key: str, size: int) -> None:
        self.site, self.key, self.size = site, key, size
        self._waiting: list[Callable[[Header], None]] = []
        self._hidden = math.inf
        self._is_over = False

    def join(self, answer: Callable[[Header], None], hidden: float = 0.0) -> None:
        """``answer`` is given what its worker reports, which began so many seconds before it was asked."""
        self._waiting.append(answer)
        self._hidden = min(self._hidden, hidden)
        if len(self._waiting) == self.size:
            site = self.site
            sent = site.codec.size(site.machines.parameters) * 2 * (self.size - 1) // max(1, self.size)
            seconds = site.ring_seconds(self.size)
            # the first layer's gradient is there when the last of the step has been computed
            left = max(seconds - self._hidden, seconds * site.last_bucket if self._hidden else 0.0)
            site.events.after(left, lambda: self._end({"done": True, "sent": sent, "moved": 0.0}))

    def fail(self, reason: str) -> None:
        """A member is gone."""
        self._end({"done": False, "reason": reason})

    def _end(self, header: Header) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self.site.group is self:
            self.site.group = None
        for answer in self._waiting:
            answer(header)


class SimulatedWorker:
    """One life of worker ``number``: from when it joins until its machine is reclaimed.

    It is the queue of its member's requests, and carries them out one after the other, as the thread of a
    connection does.
    """

    def __init__(self, site: Site, number: int, life: int = 0, iteration: int = 0) -> None:
        machines = site.machines
        self.site, self.number, self.iteration = site, number, iteration
        self.is_gone = False
        way, kept = machines.to_driver, machines.keeps_window
        self._down = Connection(site.events, site.down, way, keeps_window=kept)
        self._up = Connection(site.events, site.up, way, keeps_window=kept)
        self._requests: deque[Request] = deque()
        self._ahead: tuple[float, Report] | None = None
        self._hidden = 0.0  # seconds in which a gradient has travelled while the rest was computed
        self.member = Member(
            who=Identity(partition=number, attempt=life, host="simulated", pid=0),
            channel=cast(Channel, _NoChannel()),
            shards={number: 1},
            is_new=not iteration,
            iteration=iteration,
            buffer=np.zeros(site.codec.size(NUMBERS), np.uint8),
            base=np.empty(0, np.float32),
            size=NUMBERS,
            history=np.zeros(NUMBERS, np.float32),
            requests=cast(Any, self),
        )
        site.events.put(Joined(self.member))

    def put(self, request: Request | None) -> None:
        """What the coordinator wants next."""
        if request and not self.is_gone:
            self._requests.append(request)
            if len(self._requests) == 1:
                self._begin()

    def lose(self) -> None:
        """Its machine is reclaimed."""
        self.is_gone = True
        site, reason = self.site, "its machine was reclaimed"
        site.events.after(_LOSS_SECONDS, lambda: site.lost(self.member, reason))

    def _begin(self) -> None:
        request, member = self._requests[0], self.member
        messages = (*member.pending, *request.messages)
        member.pending.clear()
        size = sum(self.site.bytes_of(message.payload.nbytes) for message in messages)
        self._down.send(size, lambda: self._carry_out(request, messages, size))

    def _carry_out(self, request: Request, messages: tuple[Message, ...], sent: float) -> None:
        if self.is_gone:
            return
        for message in messages:
            if message.kind is Kind.RESTORE:
                self.iteration = int(message.header["iteration"])
        header = messages[-1].header

        def answer(kind: Kind, header: Header, payload: int = 0) -> None:
            frame = Frame(kind=kind, header=dict(header), size=payload)
            self._answer(request, frame, sent)

        match messages[-1].kind:
            case Kind.TRAIN:
                self._train(header, answer)
            case Kind.REDUCE if request.made < self.site.last_loss:
                answer(Kind.REDUCED, {"done": False, "reason": "a member is gone"})
            case Kind.REDUCE:
                self._reduce(header, answer)
            case Kind.SAVE:
                answer(Kind.STATE, {"iteration": self.iteration, "position": 0}, FLOAT_BYTES * NUMBERS)
            case Kind.FETCH:
                buffer = request.into[Kind.WEIGHTS]
                buffer[:] = bytes(buffer.nbytes)
                answer(Kind.WEIGHTS, {}, buffer.nbytes)
            case Kind.ASSIGN:
                answer(Kind.ASSIGNED, {"shards": {str(self.number): 1}})
            case other:
                raise AssertionError(f"a simulated worker was asked for {other.name}")

    def _answer(self, request: Request, frame: Frame, sent: float) -> None:
        size = self.site.bytes_of(frame.size)

        def arrived() -> None:
            if self.is_gone:
                return
            self._requests.popleft()
            content = request.read(self.member, [frame])
            self.site.events.put(Answered(self.member, request, content, int(sent), int(size)))
            if self._requests:
                self._begin()

        if not self.is_gone:
            self._up.send(size, arrived)

    def _train(self, header: Header, answer: Callable[[Kind, Header, int], None]) -> None:
        now = self.site.events.now()
        if header.get("late") and self._ahead:
            end, report = self._ahead
            end = max(end, now)
        else:
            report = self._report(header)
            end = now + report.seconds
        ahead = header.get("ahead")
        self._ahead = None
        if ahead:
            following = self._report(ahead)
            self._ahead = end + following.seconds, following
        in_ring, gradients = bool(header.get("ring")), bool(header.get("gradients"))
        payload = 0 if in_ring else self.member.buffer.nbytes
        said = {**report.header, **({"moved": 0.0} if gradients and not in_ring else {})}
        self._hidden = _BACKWARD * report.seconds if gradients else 0.0
        self.site.events.after(end - now, lambda: answer(Kind.REPORT, said, payload))

    def _report(self, plan: Header) -> Report:
        """What the worker will have done by this plan."""
        machines = self.site.machines
        step = machines.step_seconds * math.exp(machines.jitter * self.site.random.standard_normal())
        cap = plan.get("time_cap_seconds")
        steps = plan["tau"] if cap is None else min(plan["tau"], max(1, math.ceil(cap / step)))
        self.iteration += steps
        return Report(
            member=self.number,
            steps=steps,
            images=steps * machines.batch_size,
            loss=0.0,
            lr=1.0,
            iteration=self.iteration,
            position=0,
            seconds=steps * step,
        )

    def _reduce(self, header: Header, answer: Callable[[Kind, Header], None]) -> None:
        site, key, size = self.site, header["key"], len(header["steps"])
        if site.group is None or site.group.key != key:
            site.group = AveragingGroup(site, key, size)
        site.group.join(lambda said: answer(Kind.REDUCED, said), self._hidden)
        self._hidden = 0.0  # a group of others begins anew


class _NoChannel:
    """Where there would be a connection."""

    def hang_up(self) -> None:
        """There is nothing to end."""
