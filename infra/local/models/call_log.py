"""The log of calls: what was asked of the simulated AWS, in order, so that a test can say what was not."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any

from infra.local.models.roles import permissions_of

KEPT = 20_000  # calls; a launch of 1,000 nodes makes a few hundred
READING = ("Describe", "Get", "List", "Head", "Search", "GET ", "HEAD ")  # the last two are of S3


@dataclass(kw_only=True)
class Call:
    """One request, and how it was answered."""

    index: int
    service: str
    action: str
    region: str
    parameters: dict[str, Any] = field(default_factory=dict)
    status: int = 0  # of HTTP; 0 if there was no answer
    code: str = ""  # of the error
    fault: str = ""  # kind of the fault that happened to it
    role: str = ""  # whose credentials signed it; empty for the account's own
    permissions: tuple[str, ...] = ()  # that it needs, as policies name them

    @property
    def is_dry_run(self) -> bool:
        return str(self.parameters.get("DryRun", "")).lower() == "true"

    @property
    def changes(self) -> bool:
        """True if the action could create, change or delete something."""
        return not self.action.startswith(READING) and not self.is_dry_run


class CallLog:
    """The log, and the counter that faults go by."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._log: deque[Call] = deque(maxlen=KEPT)
        self._count = 0

    def begin(
        self, service: str, action: str, region: str, parameters: dict[str, Any], *, role: str = ""
    ) -> Call:
        with self._lock:
            self._count += 1
            call = Call(
                index=self._count,
                service=service,
                action=action,
                region=region,
                parameters=parameters,
                role=role,
                permissions=permissions_of(service, action, parameters),
            )
            self._log.append(call)
        return call

    def clear(self) -> None:
        """Empty the log; the next call is number 1."""
        with self._lock:
            self._log.clear()
            self._count = 0

    def listed(self) -> list[dict[str, Any]]:
        with self._lock:
            return [{**asdict(call), "changes": call.changes} for call in self._log]
