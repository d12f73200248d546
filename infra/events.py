"""What happened, as values: the command line draws them, tests read them.

Whatever takes a while takes an ``Emit`` and calls it with events as they happen; it never prints.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

READY = "ready"


@dataclass(frozen=True, kw_only=True)
class PhaseStarted:
    """A step of a recipe (launch, destroy, ...) has begun."""

    phase: str


@dataclass(frozen=True, kw_only=True)
class PhaseEnded:
    """A step came to its end, after ``seconds``."""

    phase: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class PhaseFailed:
    """A step was left before its end, after ``seconds``."""

    phase: str
    seconds: float


@dataclass(frozen=True, kw_only=True)
class NodeProgress:
    """A node entered a step of its own; ``READY`` after its last one."""

    node: str
    phase: str


@dataclass(frozen=True, kw_only=True)
class NodeReplaced:
    """A node that failed is ended; another one takes its place."""

    node: str
    id: str
    why: str


@dataclass(frozen=True, kw_only=True)
class PoolAnswered:
    """What one pool (an instance type in a zone, bought in one way) said to the request for capacity."""

    purchase: str  # "spot" or "on-demand", as infra.spec has them
    instance_type: str
    zone: str
    answer: str  # "launched 5", or an error code and message
    launched: int = 0


@dataclass(frozen=True, kw_only=True)
class Retrying:
    """A call of the cloud's API failed in a way that passes; it will be made again after ``wait_seconds``."""

    operation: str
    code: str
    attempt: int
    wait_seconds: float


@dataclass(frozen=True, kw_only=True)
class Removed:
    """A resource is gone."""

    kind: str
    id: str


@dataclass(frozen=True, kw_only=True)
class CheckFailed:
    """A node did not pass a check; all such problems also stand in the error that follows."""

    node: str
    check: str
    said: str


@dataclass(frozen=True, kw_only=True)
class Note:
    """One sentence the user should read."""

    text: str


Event = (
    PhaseStarted
    | PhaseEnded
    | PhaseFailed
    | NodeProgress
    | NodeReplaced
    | PoolAnswered
    | Retrying
    | Removed
    | CheckFailed
    | Note
)
Emit = Callable[[Event], None]


def ignore(_event: Event) -> None:
    """The ``Emit`` of whoever does not listen."""


@contextmanager
def phase(emit: Emit, name: str) -> Iterator[None]:
    """Tell when a step begins, and how long it took, or after how long it failed."""
    began = time.monotonic()
    emit(PhaseStarted(phase=name))
    try:
        yield
    except BaseException:
        emit(PhaseFailed(phase=name, seconds=time.monotonic() - began))
        raise
    emit(PhaseEnded(phase=name, seconds=time.monotonic() - began))
