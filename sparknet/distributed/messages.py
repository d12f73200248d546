"""What passes between the coordinator and the connections, and how replies are read.

Requests go one way, events the other. A ``read_`` function makes the content of an answer from its frames,
and raises ExchangeError where they cannot be read.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sparknet import clock
from sparknet.codecs import Bytes
from sparknet.distributed.comm.channel import NOTHING, Channel, ExchangeError, Frame, Header, Kind
from sparknet.distributed.comm.handshake import Identity
from sparknet.distributed.comm.spread import AT_ONCE, Spread
from sparknet.training import Report, Scores, WorkerState
from sparknet.weights import Vector


@dataclass(frozen=True, kw_only=True)
class Reduced:
    """A worker that had ``moved`` so far averaged with the others and sent them ``sent`` bytes, or had a
    ``failure``."""

    failure: str = ""
    sent: int = 0
    moved: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """``size`` bytes of weights have come."""

    size: int


@dataclass(frozen=True, kw_only=True)
class Yielded:
    """A worker has yielded its slot: its last state, and the ``records`` of the shards it left at a place; or
    why it ``stays``."""

    records: Mapping[int, int]
    place: str
    state: WorkerState
    stays: str = ""


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """The shards that a worker trains on, with the records of each, ``bytes_`` in all."""

    records: Mapping[int, int]
    bytes_: int = 0


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores of the slices that were asked for, in order."""

    parts: tuple[Scores, ...]


Content = Report | Scored | WorkerState | Reduced | Fetched | Yielded | Assigned
"""What answers can say."""


@dataclass(frozen=True)
class Message:
    """A frame to be sent. ``payload`` is the bytes of a vector: float32 (P,), or as the codec writes it,
    which may be ``spread`` over some time."""

    kind: Kind
    header: Header
    payload: memoryview = NOTHING
    spread: Spread = AT_ONCE


@dataclass(kw_only=True, eq=False)
class Request:
    """What a member is to do next: the frames to send, the kinds of the answers, and how to read them.

    ``into`` says where payloads go that the member has no buffer for.

    A member that has not answered within ``seconds`` of the request's making is dropped by the coordinator;
    if the request ``flows``, of the last byte that came: its answer may take as long as a link needs for it.
    ``answer`` is kept here when it comes, whoever reads the events then: none is lost on another. It is not
    if the request was ``given_up``.
    """

    messages: tuple[Message, ...]
    answers: tuple[Kind, ...]
    read: Callable[[Member, Sequence[Frame]], Content]
    seconds: float
    flows: bool = False
    into: Mapping[Kind, memoryview] = field(default_factory=dict)
    made: float = field(default_factory=clock.now)
    answer: Answered | None = None
    given_up: bool = False

    @property
    def deadline(self) -> float:
        """On the clock of ``clock.now``."""
        return self.made + self.seconds

    def gets_on(self) -> None:
        """Some of the answer has come."""
        if self.flows:
            self.made = clock.now()


class RequestQueue:
    """Requests for one member, in their order, and None for that it is to leave; ``wake`` whoever takes them
    when there is another."""

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        self._requests: deque[Request | None] = deque()
        self._wake = wake

    def __len__(self) -> int:
        return len(self._requests)

    def put(self, request: Request | None) -> None:
        """From any thread."""
        self._requests.append(request)
        self._wake()

    def take(self) -> Request | None:
        """The next one. Raises IndexError if there is none."""
        return self._requests.popleft()


@dataclass(eq=False, kw_only=True)
class Member:
    """A worker that has joined. ``buffer`` uint8 (bytes,) takes the weights it sends back as they are on the
    wire, ``history`` float32 (H,) its solver's memory, ``shards`` those it trains on, with the records of
    each, ``place`` the executor whose other workers find what it hands over, ``gpu`` the one by which it can
    average with others, "" for none.

    ``version`` is that of the weights its net has now, 0 for none of ours; ``start_version`` that of those
    its round began from, which it can send until the next are committed; ``outer_version`` that of those
    after which it has the outer optimiser's memory. ``is_new`` until its first plan; ``iteration`` counts the
    steps of its solver, as it said last. ``base`` float32 (P,) is what its round began from,
    ``delta_version`` the version of them if it is sent deltas only, ``vector`` float32 (P,) where it ended
    and ``moved`` how far that is. ``pending`` is sent before its next request, ``unanswered`` are those it
    has been given. ``shard_bytes`` says how large its shards are. ``is_ahead`` while it computes the next
    round already, and will merge the average of the last when that ends. ``is_leaving`` once it has said that
    its machine is about to go.
    """

    who: Identity
    channel: Channel
    shards: dict[int, int]
    is_new: bool
    buffer: Bytes
    history: Vector
    base: Vector
    size: int
    version: int = 0
    start_version: int = 0
    outer_version: int = 0
    delta_version: int = 0
    vector: Vector = field(default_factory=lambda: np.empty(0, np.float32))
    moved: float = 0.0
    pending: list[Message] = field(default_factory=list)
    place: str = ""
    gpu: str = ""
    iteration: int = 0
    shard_bytes: int = 0
    is_ahead: bool = False
    is_leaving: bool = False
    unanswered: list[Request] = field(default_factory=list)
    requests: RequestQueue = field(default_factory=RequestQueue)

    def __str__(self) -> str:
        return str(self.who)

    @property
    def is_idle(self) -> bool:
        return not self.unanswered

    @property
    def records(self) -> int:
        """Those it trains on; one without can only test."""
        return sum(self.shards.values())


@dataclass(frozen=True)
class Arriving:
    """A worker has been admitted and reads its partition."""

    who: Identity


@dataclass(frozen=True)
class Gone:
    """A worker left before it had joined."""

    who: Identity


@dataclass(frozen=True)
class Joined:
    member: Member


@dataclass(frozen=True)
class Answered:
    """``content`` answers ``request``; ``sent`` and ``received`` count the bytes of both frames, ``at`` is
    when it came, by ``clock.now``. ``leaving``: the worker's machine is about to go.
    """

    member: Member
    request: Request
    content: Content
    sent: int
    received: int
    leaving: bool = False
    at: float = field(default_factory=clock.now)


@dataclass(frozen=True)
class Lost:
    member: Member
    reason: str


@dataclass(frozen=True)
class Failed:
    """A worker raised an error; ``final`` when trying again would end the same way."""

    who: Identity
    reason: str
    final: bool


@dataclass(frozen=True)
class JobEnded:
    reason: str


Event = Arriving | Gone | Joined | Answered | Lost | Failed | JobEnded


def read_report(member: Member, frames: Sequence[Frame]) -> Report:
    """A report with weights."""
    if frames[0].size != member.buffer.nbytes:
        raise ExchangeError(f"{member} sent {frames[0].size:,} of the {member.buffer.nbytes:,} bytes due")
    return _report_in(frames[0].header)


def read_bare_report(_member: Member, frames: Sequence[Frame]) -> Report:
    """A report without weights."""
    return _report_in(frames[0].header)


def read_state(member: Member, frames: Sequence[Frame]) -> WorkerState:
    header = frames[0].header
    try:
        place = int(header["iteration"]), int(header["position"])
    except (KeyError, TypeError, ValueError) as wrong:
        raise ExchangeError(f"a state that cannot be read: {wrong}") from wrong
    return WorkerState(iteration=place[0], position=place[1], history=member.history.copy())


def read_scores(_member: Member, frames: Sequence[Frame]) -> Scored:
    return Scored(parts=tuple(_scores_in(frame.header) for frame in frames))


def _scores_in(header: Header) -> Scores:
    try:
        return Scores(records=int(header["records"]), sums=dict(header["sums"]))
    except (KeyError, TypeError, ValueError) as wrong:
        raise ExchangeError(f"scores that cannot be read: {wrong}") from wrong


def read_reduced(_member: Member, frames: Sequence[Frame]) -> Reduced:
    header = frames[0].header
    if not header.get("done"):
        return Reduced(failure=str(header.get("reason")))
    return Reduced(sent=int(header.get("sent", 0)), moved=float(header.get("moved", math.nan)))


def read_fetched(_member: Member, frames: Sequence[Frame]) -> Fetched:
    return Fetched(size=frames[0].size)


def read_yielded(member: Member, frames: Sequence[Frame]) -> Yielded:
    header = frames[1].header
    return Yielded(
        records=records_in(header),
        place=str(header.get("place")),
        state=read_state(member, frames[:1]),
        stays=str(header.get("stays", "")),
    )


def read_assigned(_member: Member, frames: Sequence[Frame]) -> Assigned:
    header = frames[0].header
    return Assigned(records=records_in(header), bytes_=int(header.get("shard_bytes", 0)))


def records_in(header: Header) -> dict[int, int]:
    """By shard. Raises ExchangeError if the header does not say it."""
    try:
        return {int(shard): int(count) for shard, count in header["shards"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as wrong:
        raise ExchangeError(f"shards that cannot be read: {wrong}") from wrong


def _report_in(header: Header) -> Report:
    try:
        return Report.of(header)
    except TypeError as wrong:
        raise ExchangeError(f"a report that cannot be read: {wrong}") from wrong
