"""How long the driver and its workers wait for each other."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Real

from sparknet.errors import UsageError

LEAST_RATE = 1e5
"""Bytes in a second below which a link is of no use."""

# Bytes that a slow disk takes in a second.
_SLOW_BYTES = 1e6


@dataclass(frozen=True, kw_only=True)
class Timeouts:
    """How long anything is waited for, in seconds.

    ``join``   for the workers to come: all of them at the start, any one when none is left
    ``others`` for any one to come where the machines of all were taken back: others may be on the way
    ``round``  for a round's reports, and for a slice's scores; a worker that is later is dropped
    ``ping``   an idle worker is pinged this often, and gives up after six times as long
    ``send``   for the next byte of a frame, or the next part of an average in a ring, to be taken or to come;
               and for the whole of a frame beyond what its bytes take at ``LEAST_RATE``
    ``stop``   for the workers to leave when all is done
    ``lease``  for a shard's own worker; after that another one is assigned its shard
    ``hang``   for a worker at least, when half of the others have answered, and ten times as long as they
               took; one that is later hangs, and is dropped. So it is where workers are asked one after the
               other, by what the earlier ones took; and this long for what needs no computing
    ``grace``  for the rest of a round's workers once a share of ``quorum`` has reported; None for a quarter
               of what that took. Those that are later miss the round

    Raises UsageError for what is no time or share.
    """

    join: float = 120.0
    others: float = 900.0
    round: float = 3600.0
    hang: float = 60.0
    quorum: float = 1.0
    grace: float | None = None
    ping: float = 10.0
    send: float = 60.0
    stop: float = 10.0
    lease: float = 30.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if value is None and each.name == "grace":
                continue
            if type(value) is bool or not isinstance(value, Real) or not math.isfinite(value):
                raise UsageError(f"the timeout {each.name} is {value!r}: a finite number is needed")
            if value < 0 or (value == 0 and each.name != "grace"):
                raise UsageError(f"the timeout {each.name} is {value}: it must be positive")
        if self.quorum > 1:
            raise UsageError(f"quorum is {self.quorum}: a share of the workers, at most 1")
        if self.grace is not None and self.quorum == 1:
            raise UsageError("grace is what a quorum below 1 leaves the others: give both, or neither")

    def transfer(self, bytes_: int) -> float:
        """Seconds for an answer that needs no computing, with so many bytes to write before it is sent."""
        return self.hang + bytes_ / _SLOW_BYTES
