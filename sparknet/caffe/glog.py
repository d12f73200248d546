"""Caffe's log: lines to stderr in the form of glog, which tools that parse Caffe's logs know.

    I1104 16:20:45.123456 12345 solver.cpp:239] Iteration 0, loss = 2.30

Nothing is written until ``init_log`` is called.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

log_ = logging.getLogger("caffe")

LETTERS = {logging.INFO: "I", logging.WARNING: "W", logging.ERROR: "E", logging.CRITICAL: "F"}
LEVELS = (logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)  # glog counts them from 0


class GlogFormatter(logging.Formatter):
    """glog's prefix before each line: letter and date, time to the microsecond, process, file and line."""

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).astimezone()
        letter = LETTERS.get(record.levelno, "I")
        prefix = f"{letter}{when:%m%d %H:%M:%S.%f} {record.process} {record.filename}:{record.lineno}]"
        return f"{prefix} {record.getMessage()}"


def init_log(level: int = 0) -> None:
    """Log to stderr from ``level`` on: 0 all, 1 warnings, 2 errors. Calling it again only sets the level."""
    log_.setLevel(LEVELS[level])
    if any(isinstance(handler.formatter, GlogFormatter) for handler in log_.handlers):
        return
    handler = logging.StreamHandler()
    handler.setFormatter(GlogFormatter())
    log_.addHandler(handler)
    log_.propagate = False


def log(message: str) -> None:
    """Write a line of one's own to Caffe's log."""
    log_.info("%s", message, stacklevel=2)
