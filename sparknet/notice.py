"""What this machine has been told of its end: a file that training looks at between steps.

    {"action": "terminate", "time": "2026-12-01T10:02:00Z", "seconds": 118.0}

``terminate`` and ``stop``: the machine alone is taken back, in so many seconds from when the file was
written. Its workers train until shortly before, hand in what they have of their round, and leave. ``end``:
the whole cluster ends. Its workers hand in at once, and the driver saves a checkpoint. ``SPARKNET_NOTICE``
names the file, which the node's agent writes (ami/agent/notices.py); where it is not set nothing is told.
"""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path

log = logging.getLogger(__name__)

VARIABLE = "SPARKNET_NOTICE"
LEAVE_SECONDS = 30.0
"""So long before its end a worker leaves its machine: a step, a report and its state have to fit in."""

_LONGEST_BYTES = 4096


class Notice:
    """By ``file``; every property looks at it again, which costs microseconds."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._seen = 0  # the file's time, in nanoseconds
        self._action, self._until = "", 0.0  # until: on the clock of time.time
        self.time = ""
        """When, as the notice says it."""

    @classmethod
    def of_environment(cls) -> Notice:
        """The one of this machine."""
        named = os.environ.get(VARIABLE)
        return cls(Path(named) if named else None)

    @property
    def leaves(self) -> bool:
        """Whether the machine is taken back, and it is time to leave it."""
        return self._look() in ("terminate", "stop") and time.time() >= self._until - LEAVE_SECONDS

    @property
    def ends(self) -> bool:
        """Whether the cluster ends."""
        return self._look() == "end"

    @property
    def hands_in(self) -> bool:
        """Whether a round is handed in as it is."""
        return self.ends or self.leaves

    def _look(self) -> str:
        """The action; empty without a notice."""
        if self._file is None:
            return ""
        try:
            written = self._file.stat().st_mtime_ns
            if written != self._seen:
                self._seen = written
                self._read(self._file, written / 1e9)
        except FileNotFoundError:
            return self._action
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("the notice in %s cannot be read: %s", self._file, error)
        return self._action

    def _read(self, file: Path, written: float) -> None:
        with file.open("rb") as stream:
            said = json.loads(stream.read(_LONGEST_BYTES))
        self._until = written + float(said.get("seconds", 0.0))
        self._action, self.time = str(said["action"]), str(said.get("time", ""))
