"""What the readers of a live page see: the newest fragments, each with the number of the change it came by.

One thread takes what the driver says, one draws, and one for each reader waits for what is newer than what it
has. A reader that is slow skips what it has missed: nothing is kept for it, and nobody waits for it. As long
as there is no reader, nothing is drawn.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sparknet.reporting.metrics import Record, record_of
from sparknet.reporting.page import Fragments, fragments, render
from sparknet.reporting.roster import WorkerRow
from sparknet.reporting.run import Cluster, Run

# Between two drawings: as long as the last took, within these limits.
_LEAST_PAUSE_SECONDS, _MOST_PAUSE_SECONDS = 0.2, 0.5

_KILLED = "The driver ended before the run was over. If it is started again with --resume, this page goes on."


@dataclass(frozen=True, kw_only=True)
class Update:
    """The fragments that have changed up to ``number``; ``is_over`` if nothing will come after them."""

    number: int
    fragments: Fragments
    is_over: bool


@dataclass(kw_only=True)
class _State:
    """What the driver has said so far."""

    run: Run
    records: list[Record] = field(default_factory=list)
    workers: tuple[WorkerRow, ...] = ()


class Board:
    """``epoch`` tells the changes of one server from those of another at the same address."""

    def __init__(self) -> None:
        self.epoch = secrets.token_hex(4)
        self._changed = threading.Condition()
        self._state = _State(run=Run(title="", settings={}, records=[], is_over=False))
        self._said = 1  # messages, and how many of them the fragments show
        self._shown = 0
        self._drawn: dict[str, tuple[int, str]] = {}
        self._number = 0
        self._readers = 0
        self._is_over = False

    @property
    def run(self) -> Run:
        """As it is now."""
        with self._changed:
            state = self._state
            return replace(state.run, records=tuple(state.records), workers=state.workers)

    def take(self, message: Mapping[str, Any]) -> None:
        """One thing that the driver says: "run", "record", "workers" or "over", with its values."""
        with self._changed:
            state = self._state
            for what, values in message.items():
                match what:
                    case "run":
                        cluster = values.pop("cluster", None)
                        state.run = Run(
                            **values,
                            cluster=Cluster(**cluster) if cluster else None,
                            records=(),
                            is_over=False,
                        )
                    case "record":
                        state.records.append(record_of(values))
                    case "workers":
                        state.workers = tuple(map(WorkerRow.of, values))
                    case "over":
                        state.run = replace(state.run, is_over=True, failure=values["failure"])
            self._said += 1
            self._changed.notify_all()

    def end(self) -> None:
        """Nothing more will be said: readers get the last of it, and are sent away."""
        if not self.run.is_over:
            self.take({"over": {"failure": _KILLED}})
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def page(self) -> str:
        """The whole page, as it is now."""
        run = self.run
        return render(run, live=True, inside=fragments(run))

    def since(self, number: int, seconds: float) -> Update | None:
        """What has changed after ``number``; None if nothing does within ``seconds``."""
        deadline = time.monotonic() + seconds
        with self._changed:
            self._readers += 1
            self._changed.notify_all()
            try:
                while self._number <= number and not self._done:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        return None
                    self._changed.wait(left)
                newer = {name: text for name, (at, text) in self._drawn.items() if at > number}
                return Update(number=self._number, fragments=newer, is_over=self._done)
            finally:
                self._readers -= 1

    @property
    def _done(self) -> bool:
        return self._is_over and self._shown == self._said

    def draw_forever(self) -> None:
        """Draw what is new whenever somebody waits for it."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._shown < self._said and self._readers)
                said = self._said
            started = time.monotonic()
            found = fragments(self.run)
            took = time.monotonic() - started
            self._publish(found, said)
            if not self._is_over:
                time.sleep(min(max(_LEAST_PAUSE_SECONDS, took), _MOST_PAUSE_SECONDS))

    def _publish(self, found: Fragments, said: int) -> None:
        with self._changed:
            self._shown = said
            changed = {
                name: text for name, text in found.items() if self._drawn.get(name, (0, None))[1] != text
            }
            if changed:
                self._number += 1
                self._drawn |= {name: (self._number, text) for name, text in changed.items()}
            self._changed.notify_all()
