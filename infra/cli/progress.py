"""Progress: what happens, drawn while it happens, on standard error.

On a terminal the last lines are alive: the phase under way and below it a row a node with its step and the
seconds it has been at it. Everywhere else, and above those, there is a plain line for whatever has happened.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from statistics import median

import click

from infra.events import (
    READY,
    Event,
    NodeProgress,
    NodeReplaced,
    Note,
    PhaseEnded,
    PhaseFailed,
    PhaseStarted,
    PoolAnswered,
    Removed,
    Retrying,
)

FRAME_SECONDS = 0.25
FALLBACK_SIZE = (80, 24)  # of a terminal whose size is unknown
LEAST_NODES = 3  # rows that even the lowest terminal gets
DIM, GREEN, RED, PLAIN = "\033[2m", "\033[32m", "\033[31m", "\033[0m"


class Nodes:
    """What each node is at, since when, and how long its steps took."""

    def __init__(self) -> None:
        self.steps: dict[str, tuple[str, float]] = {}
        self.took: dict[str, dict[str, float]] = {}  # step -> node -> seconds

    def enter(self, node: str, step: str, now: float) -> None:
        self._leave(node, now)
        self.steps[node] = (step, now)

    def drop(self, node: str) -> None:
        """It is replaced, and the others are named anew."""
        self.steps.clear()
        for seconds in self.took.values():
            seconds.pop(node, None)

    def _leave(self, node: str, now: float) -> None:
        step, since = self.steps.get(node, (READY, now))
        if step != READY:
            self.took.setdefault(step, {})[node] = now - since


class ProgressDisplay:
    """Draws events. Safe to be called from the threads of all nodes."""

    def __init__(self, *, is_terminal: bool | None = None) -> None:
        is_able = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self.is_terminal = is_able if is_terminal is None else is_terminal
        self.has_colour = self.is_terminal and not os.environ.get("NO_COLOR")
        self.began = time.monotonic()
        self._phases: list[tuple[str, float]] = []
        self._nodes = Nodes()
        self._drawn: list[str] = []  # the living lines that stand on the terminal now
        self._lock = threading.RLock()  # an interrupt's handler may draw in the midst of drawing
        self._ticker: threading.Thread | None = None

    def emit(self, event: Event) -> None:
        """Nodes report from threads of their own, one at a time. Where nobody reads, the work goes on."""
        with self._lock, suppress(OSError):
            self._take(event)

    def timings(self) -> None:
        """A table of the nodes' steps: how long each took on the median and on the slowest node."""
        with self._lock, suppress(OSError):
            for line in timings(self._nodes.took):
                self._line(line)

    def _take(self, event: Event) -> None:
        match event:
            case PhaseStarted():
                self._phases.append((event.phase, time.monotonic()))
                self._live()
            case PhaseEnded() | PhaseFailed():
                self._phases = [one for one in self._phases if one[0] != event.phase]
                failed = "  failed" if isinstance(event, PhaseFailed) else ""
                if not self._phases and failed:
                    self._nodes.steps.clear()
                self._line(f"  {event.phase:<10} {event.seconds:6.1f} s{failed}")
            case NodeProgress():
                self._nodes.enter(event.node, event.phase, time.monotonic())  # shown with the next frame
            case NodeReplaced():
                self._nodes.drop(event.node)
                self._line(f"    replacing {event.node} ({event.id}): {event.why}")
            case PoolAnswered():
                pool = f"{event.instance_type or 'any type':<14} {event.zone or 'any zone':<12}"
                self._line(f"    {event.purchase:<10} {pool} {event.answer}")
            case Retrying():
                self._line(
                    f"    {event.operation} answers {event.code}; attempt {event.attempt + 1} in "
                    f"{event.wait_seconds:.1f} s"
                )
            case Removed():
                self._line(f"    removed {event.kind} {event.id}")
            case Note():
                self._line(f"  {event.text}")

    def _line(self, text: str) -> None:
        """A line that stays, above the living ones."""
        click.echo(f"{self._erased()}{text}\n", err=True, nl=False)
        self._live()

    def _live(self) -> None:
        """The living lines as they are now, in one write: what is drawn in two flickers."""
        if not self.is_terminal:
            return
        columns, lines = _size()
        away = self._erased()
        wanted = self._rows(lines) if self._phases else []
        self._drawn = [row[: columns - 1] for row in wanted]  # a row that wraps would be two
        if away or self._drawn:
            click.echo(away + "\n".join(map(self._coloured, self._drawn)), err=True, nl=False)
        if self._drawn:
            self._tick()

    def _rows(self, lines: int) -> list[str]:
        now = time.monotonic()
        phase, since = self._phases[-1]
        return [f"  {phase:<10} {now - since:6.1f} s ...", *node_rows(self._nodes.steps, now, lines - 2)]

    def _erased(self) -> str:
        """What takes the living lines away, however many the terminal made of them since it was resized."""
        if not self._drawn:
            return ""
        columns, _ = _size()
        up = sum(max(1, -(-len(row) // columns)) for row in self._drawn) - 1
        self._drawn = []
        return "\r" + (f"\033[{up}A" if up else "") + "\033[J"

    def _coloured(self, row: str) -> str:
        if not self.has_colour:
            return row
        colour = GREEN if f" {READY} " in f"{row} " else DIM
        return f"{colour}{row}{PLAIN}"

    def _tick(self) -> None:
        """Let the seconds pass on the terminal while a phase is under way."""
        if self._ticker is None or not self._ticker.is_alive():
            self._ticker = threading.Thread(target=self._run, name="progress", daemon=True)
            self._ticker.start()

    def _run(self) -> None:
        while True:
            time.sleep(FRAME_SECONDS)
            with self._lock, suppress(OSError, ValueError):
                if not self._phases:
                    return
                self._live()


def node_rows(steps: Mapping[str, tuple[str, float]], now: float, room: int) -> list[str]:
    """A row a node; of more than there is ``room`` for those that are longest at their step, and a sum."""
    names = sorted(steps, key=_by_number)
    room = max(LEAST_NODES, room)
    if len(names) <= room:
        return [_row(name, *steps[name], now) for name in names]
    slowest = sorted(names, key=lambda name: (steps[name][0] == READY, steps[name][1]))[: room - 1]
    others = Counter(steps[name][0] for name in names if name not in slowest)
    counts = ", ".join(f"{count} {step}" for step, count in sorted(others.items()))
    rows = [_row(name, *steps[name], now) for name in sorted(slowest, key=_by_number)]
    return [*rows, f"    and {sum(others.values())} more: {counts}"]


def timings(took: Mapping[str, Mapping[str, float]]) -> Iterable[str]:
    """Lines of a table: each step's median and its slowest node."""
    rows = [(step, seconds) for step, seconds in took.items() if seconds]
    if rows:
        yield f"    {'step':<10} {'median':>8} {'slowest':>8}"
    for step, seconds in rows:
        slowest = max(seconds, key=lambda node: seconds[node])
        yield f"    {step:<10} {median(seconds.values()):6.1f} s {seconds[slowest]:6.1f} s  {slowest}"


def _row(name: str, step: str, since: float, now: float) -> str:
    return f"    {name:<12} {step:<10} {'' if step == READY else f'{now - since:6.1f} s'}".rstrip()


def _by_number(name: str) -> tuple[str, int]:
    role, _, number = name.rpartition("-")
    return (role, int(number)) if number.isdigit() else (name, 0)


def _size() -> tuple[int, int]:
    """Columns and lines of the terminal behind standard error, not of standard output."""
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (OSError, ValueError):
        return FALLBACK_SIZE
    return size.columns or FALLBACK_SIZE[0], size.lines or FALLBACK_SIZE[1]
