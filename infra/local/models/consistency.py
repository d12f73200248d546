"""Eventual consistency: what was just created is not found yet, for the scenario's ``lag_seconds``.

EC2 answers InvalidInstanceID.NotFound and its like for a while after it has given out an id; whoever does not
try again gives up too early, or makes a second one.
https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

#: Calls that create, and how the ids begin of what they create.
CREATING = {
    "RunInstances": "i", "CreateFleet": "i", "CreateSecurityGroup": "sg", "CreateLaunchTemplate": "lt",
    "CreateVolume": "vol",
}  # fmt: skip
NOT_FOUND = {
    "i": ("InvalidInstanceID.NotFound", "The instance ID '{}' does not exist"),
    "sg": ("InvalidGroup.NotFound", "The security group '{}' does not exist"),
    "lt": ("InvalidLaunchTemplateId.NotFound", "The launch template ID '{}' does not exist"),
    "vol": ("InvalidVolume.NotFound", "The volume '{}' does not exist."),
}


class Consistency:
    """Ids that were given out, and until when nobody else knows them."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._hidden: dict[str, float] = {}  # id -> the moment from which it is found

    def created(self, action: str, answer: bytes, lag_seconds: float) -> None:
        """Hide the ids that a creating call has just answered with."""
        if lag_seconds <= 0 or action not in CREATING:
            return
        ids = re.findall(rf"\b{CREATING[action]}-[0-9a-f]{{17}}\b", answer.decode())
        now = self._now()
        with self._lock:
            self._hidden = {one: until for one, until in self._hidden.items() if until > now}
            self._hidden |= dict.fromkeys(ids, now + lag_seconds)

    def refusal(self, parameters: Mapping[str, Any]) -> tuple[str, str] | None:
        """(code, message) if the call names something that is not to be found yet."""
        if not self._hidden:
            return None
        with self._lock:
            hidden = [
                value for value in parameters.values() if self._hidden.get(str(value), 0.0) > self._now()
            ]
        if not hidden:
            return None
        code, message = NOT_FOUND[hidden[0].partition("-")[0]]
        return code, message.format(hidden[0])
