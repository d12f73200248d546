"""How it looks: events while they happen, tables of what there is, progress of a job.

What happens goes to stderr, what was asked for to stdout: ``sparknet-ec2 status --json | jq`` sees JSON
alone.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import click

from infra.events import (
    Event,
    NodeProgress,
    Note,
    PhaseEnded,
    PhaseStarted,
    PoolAnswered,
    Removed,
    Retrying,
)

NOISE = re.compile(
    r"WARNING: Using incubator modules: jdk.incubator.vector$"
)  # of every Java that Spark starts
ROUND = re.compile(r"round (\d+)/(\d+)")
BAR_WIDTH = 24


class Screen:
    """Draws events: a line a phase with its seconds; on a terminal also the phase under way."""

    def __init__(self, *, is_terminal: bool | None = None) -> None:
        self.is_terminal = sys.stderr.isatty() if is_terminal is None else is_terminal
        self.began = time.monotonic()
        self._phases: list[str] = []
        self._nodes: dict[str, str] = {}
        self._lock = threading.Lock()

    def emit(self, event: Event) -> None:
        """Nodes report from threads of their own: one at a time."""
        with self._lock:
            self._draw(event)

    def _draw(self, event: Event) -> None:
        match event:
            case PhaseStarted():
                self._phases.append(event.phase)
                self._nodes.clear()
                self._live(event.phase)
            case PhaseEnded():
                self._phases.remove(event.phase)
                self._line(f"  {event.phase:<10} {event.seconds:6.1f} s")
            case NodeProgress():
                self._nodes[event.node] = event.phase
                self._live(", ".join(f"{node} {phase}" for node, phase in sorted(self._nodes.items())))
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
        click.echo(("\r\033[K" if self.is_terminal else "") + text, err=True)

    def _live(self, text: str) -> None:
        if self.is_terminal:
            width = shutil.get_terminal_size().columns
            click.echo(f"\r\033[K  {text}"[: width + 3], err=True, nl=False)


class Progress:
    """Lines of an app: as they are, or on a terminal those of the rounds as one bar that grows."""

    def __init__(self, *, is_terminal: bool | None = None) -> None:
        self.is_terminal = sys.stdout.isatty() if is_terminal is None else is_terminal
        self._has_bar = False

    def line(self, text: str) -> None:
        if NOISE.match(text):
            return
        found = ROUND.match(text)
        if not (self.is_terminal and found):
            self.end()
            click.echo(text)
            return
        done, total = int(found[1]), max(1, int(found[2]))
        filled = BAR_WIDTH * min(done, total) // total
        bar = "█" * filled + "░" * (BAR_WIDTH - filled)
        click.echo(f"\r\033[K{bar}  {text}", nl=False)
        self._has_bar = True

    def end(self) -> None:
        """Leave the bar, if there is one, on a line of its own."""
        if self._has_bar:
            click.echo()
        self._has_bar = False


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns as wide as their widest cell, two spaces apart."""
    cells = [list(headings), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headings))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
    return "\n".join(line.rstrip() for line in lines)


def print_json(value: object) -> None:
    """``value`` as JSON, dataclasses as objects."""
    click.echo(json.dumps(value, indent=2, default=_plain))


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)
