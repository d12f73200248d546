"""Faults of the HTTP layer: what a network and a busy service do to a call, decided before moto sees it.

    error      answered with ``code`` instead of being done
    lost       done, but the connection closes without an answer
    reset      the connection is reset before anything is done
    throttle   RequestLimitExceeded, HTTP 503
    delay      done after ``seconds``
    signal     done, and then, before the answer, the process ``pid`` gets ``signal``; with ``before`` it gets
               it at once, nothing is done, and the connection is reset

A fault fits a call by ``action`` (a pattern as in a shell), by ``index`` (the number of the call since the
counter was set to 0, the first being 1), or by both, and happens ``times`` times.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from infra.errors import UsageError

KINDS = ("error", "lost", "reset", "throttle", "delay", "signal")

#: Codes that EC2 answers with a status of the 500s, so that SDKs retry them.
SERVER_CODES = {
    "InsufficientInstanceCapacity": 500, "InsufficientHostCapacity": 500, "InsufficientVolumeCapacity": 500,
    "InsufficientAddressCapacity": 500, "InsufficientReservedInstanceCapacity": 500, "InsufficientCapacity":
    500, "InternalError": 500, "InternalFailure": 500, "ServerInternal": 500, "Unavailable": 503,
    "ServiceUnavailable": 503, "RequestLimitExceeded": 503,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong; see the module's text."""

    kind: str = "error"
    action: str = "*"
    index: int | None = None
    times: int = 1
    code: str = "InternalError"
    message: str = "An internal error has occurred"
    seconds: float = 0.0
    pid: int = 0
    signal: str = "SIGKILL"
    before: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"a fault's kind is one of {', '.join(KINDS)}, not {self.kind!r}")
        if self.times < 1:
            raise UsageError(f"a fault's times must be 1 or more, not {self.times}")
        if self.kind == "signal" and (self.pid <= 1 or self.signal not in signal.Signals.__members__):
            raise UsageError("a fault of kind signal needs a pid, and a signal like SIGKILL")

    @property
    def answer(self) -> tuple[int, str, str]:
        """(HTTP status, code, message) of the faults that answer."""
        if self.kind == "throttle":
            return 503, "RequestLimitExceeded", "Request limit exceeded."
        return SERVER_CODES.get(self.code, 400), self.code, self.message

    def send(self) -> None:
        """Give the process its signal, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.Signals[self.signal])

    def fits(self, action: str, index: int) -> bool:
        return fnmatchcase(action, self.action) and self.index in (None, index)


class Faults:
    """The faults still to happen."""

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self._lock = threading.Lock()
        self._left = [[fault, fault.times] for fault in faults]

    def add(self, faults: Iterable[Fault]) -> None:
        with self._lock:
            self._left += [[fault, fault.times] for fault in faults]

    def clear(self) -> None:
        with self._lock:
            self._left.clear()

    def take(self, action: str, index: int) -> Fault | None:
        """The first fault that fits this call, used up once more."""
        with self._lock:
            for entry in self._left:
                fault: Fault = entry[0]  # type: ignore[assignment]
                if fault.fits(action, index):
                    entry[1] -= 1  # type: ignore[operator]
                    self._left = [kept for kept in self._left if kept[1]]
                    return fault
        return None

    def listed(self) -> list[dict[str, Any]]:
        with self._lock:
            return [{**asdict(fault), "times": left} for fault, left in self._left]  # type: ignore[call-overload]
