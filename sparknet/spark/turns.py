"""Several fits at once in one Spark session: each waits until there are slots for all of its workers.

    with turn(spark, workers=2):
        ...                          # the slots are this fit's own

A fit holds its slots to its end, so two that each had half of theirs would wait for each other for ever. Who
asked first is served first. A fit that waits says so in the log.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pyspark.sql import SparkSession

from sparknet.errors import TrainingError
from sparknet.spark.slots import slots

log = logging.getLogger(__name__)

# How long a fit waits for others to end.
DEADLINE_SECONDS = 24 * 3600.0


class Turns:
    """Who holds how many slots, and who waits for some."""

    def __init__(self) -> None:
        self._change = threading.Condition()
        self._waiting: list[object] = []
        self._held = 0

    @contextmanager
    def turn(self, wanted: int, there: int, deadline_seconds: float = DEADLINE_SECONDS) -> Iterator[None]:
        """Hold ``wanted`` of ``there`` slots, or all if there are fewer.

        Raises TrainingError if they are not free in time.
        """
        taken = min(wanted, there)
        self._take(taken, there, deadline_seconds)
        try:
            yield
        finally:
            with self._change:
                self._held -= taken
                self._change.notify_all()

    def _take(self, wanted: int, there: int, deadline_seconds: float) -> None:
        ticket, started = object(), time.monotonic()
        with self._change:
            self._waiting.append(ticket)
            try:
                if not self._may(ticket, wanted, there):
                    log.warning(
                        "a fit waits for its turn: it needs %d of %d slots, and others hold %d",
                        wanted,
                        there,
                        self._held,
                    )
                if not self._change.wait_for(lambda: self._may(ticket, wanted, there), deadline_seconds):
                    raise TrainingError(
                        f"no {wanted} of {there} slots became free in {time.monotonic() - started:.0f} s: "
                        "other fits of this session hold them"
                    )
                self._held += wanted
            finally:
                self._waiting.remove(ticket)
                self._change.notify_all()

    def _may(self, ticket: object, wanted: int, there: int) -> bool:
        return self._waiting[0] is ticket and self._held + wanted <= max(there, wanted)


_TURNS: dict[str, Turns] = {}
_LOCK = threading.Lock()


@contextmanager
def turn(spark: SparkSession, workers: int) -> Iterator[None]:
    """A turn in the session's application, for a fit of so many workers."""
    with _LOCK:
        turns = _TURNS.setdefault(spark.sparkContext.applicationId, Turns())
    with turns.turn(workers, slots(spark)):
        yield
