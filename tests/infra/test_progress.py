"""What a person sees while machines come up: on a pty (narrow, low, resized, colourless), and on none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.cli.progress import node_rows, timings
from infra.events import READY
from tests.infra.terminal import Terminal, seen

ROOT = Path(__file__).parents[2]
LAUNCH = """
import sys
sys.path.insert(0, {root!r})
from infra.cli.progress import ProgressDisplay
from infra.events import *
display = ProgressDisplay()
names = ["master", *(f"worker-{{n}}" for n in range(1, {workers} + 1))]
display.emit(PhaseStarted(phase="prepare"))
for name in names:
    display.emit(NodeProgress(node=name, phase="connect"))
display.emit(NodeProgress(node="worker-1", phase="python"))
input()
display.emit(NodeReplaced(node="worker-1", id="i-1", why="worker-1: does not answer"))
for name in names:
    display.emit(NodeProgress(node=name, phase="disks"))
input()
display.emit(PhaseEnded(phase="prepare", seconds=1.25))
display.emit(Note(text="A word."))
for name in names:
    display.emit(NodeProgress(node=name, phase=READY))
display.timings()
print("ready.")
"""


def launch(workers: int, **terminal: object) -> Terminal:
    return Terminal(LAUNCH.format(root=str(ROOT), workers=workers), **terminal)  # type: ignore[arg-type]


def rows(terminal: Terminal, step: str) -> list[str]:
    return [line.split()[0] for line in terminal.display if step in line.split()]


def without_echo(terminal: Terminal) -> list[str]:
    return [line for line in terminal.display if line]


def test_a_terminal_shows_a_row_a_node_and_in_the_end_only_what_has_happened() -> None:
    terminal = launch(3, columns=100, lines=30)
    terminal.until(lambda: rows(terminal, "python"))
    assert terminal.display[0].startswith("  prepare ")
    assert rows(terminal, "connect") == ["master", "worker-2", "worker-3"]
    seconds = next(line for line in terminal.display if "worker-1" in line)
    terminal.until(lambda: seconds not in terminal.display)  # they pass, in place
    assert len(terminal.display) == 5
    terminal.press_enter()
    terminal.until(lambda: len(rows(terminal, "disks")) == 4)
    terminal.press_enter()
    assert terminal.close() == 0
    told = without_echo(terminal)
    assert told[:3] == [
        "    replacing worker-1 (i-1): worker-1: does not answer",
        "  prepare       1.2 s",
        "  A word.",
    ]
    assert [line.split()[0] for line in told[3:]] == ["step", "disks", "ready."]


@pytest.mark.parametrize(("columns", "lines"), [(20, 24), (100, 8)], ids=["narrow", "low"])
def test_a_small_terminal_keeps_each_row_to_a_line_and_all_to_the_screen(columns: int, lines: int) -> None:
    terminal = launch(60, columns=columns, lines=lines)
    terminal.until(lambda: "more:" in "".join(terminal.display))
    assert len(terminal.display) <= lines
    assert all(len(line) < columns for line in terminal.display)
    terminal.press_enter()
    terminal.until(lambda: "replacing" in terminal.said)
    terminal.press_enter()
    assert terminal.close() == 0
    assert [line for line in without_echo(terminal) if "worker-5" in line and "disks" not in line] == []


def test_a_terminal_that_is_made_narrower_shows_no_leftovers() -> None:
    terminal = launch(3, columns=100, lines=30)
    terminal.until(lambda: rows(terminal, "python"))
    tall = sum(-(-len(line) // 16) for line in terminal.display)  # the terminal wraps what stands there
    terminal.resize(16, 30)
    before = len(terminal.said)
    terminal.until(lambda: "\033[J" in terminal.said[before:])
    frame = terminal.said[terminal.said.rindex("\033[J") :]
    drawn = seen(frame, 1000)
    terminal.until(lambda: len(terminal.said) > before + len(frame))
    assert all(len(line) < 16 for line in drawn)
    assert terminal.said[before : terminal.said.index("\033[J", before)] == f"\r\033[{tall - 1}A"
    for _ in range(2):
        terminal.press_enter()
    assert terminal.close() == 0


@pytest.mark.parametrize(
    ("env", "has_colour", "is_alive"),
    [
        pytest.param({}, True, True, id="colours"),
        pytest.param({"NO_COLOR": "1"}, False, True, id="NO_COLOR"),
        pytest.param({"TERM": "dumb"}, False, False, id="dumb"),
    ],
)
def test_colours_and_movement_are_left_out_where_they_are_not_wanted(
    env: dict[str, str], has_colour: bool, is_alive: bool
) -> None:
    terminal = launch(2, columns=80, lines=24, env=env)
    for _ in range(2):
        terminal.press_enter()
    assert terminal.close() == 0
    assert ("\033[2m" in terminal.said) == has_colour
    assert ("\033[J" in terminal.said) == is_alive
    assert "ready." in terminal.said


def test_without_a_terminal_there_are_plain_lines() -> None:
    told = subprocess.run(
        [sys.executable, "-c", LAUNCH.format(root=str(ROOT), workers=2)],
        input="\n\n", capture_output=True, text=True, timeout=60, env={**os.environ},
    )  # fmt: skip
    assert told.stderr.splitlines()[:3] == [
        "    replacing worker-1 (i-1): worker-1: does not answer",
        "  prepare       1.2 s",
        "  A word.",
    ]
    assert "\033" not in told.stderr + told.stdout


def test_of_too_many_nodes_the_slowest_are_shown_and_the_others_counted() -> None:
    steps = {f"worker-{number}": ("python", float(number)) for number in range(1, 101)}
    steps["worker-1"] = (READY, 0.0)
    assert node_rows(steps, 110.0, 4) == [
        "    worker-2     python      108.0 s",
        "    worker-3     python      107.0 s",
        "    worker-4     python      106.0 s",
        "    and 97 more: 96 python, 1 ready",
    ]


def test_timings_name_the_slowest_node_of_each_step() -> None:
    took = {"connect": {"master": 0.2, "worker-1": 0.4, "worker-2": 3.0}, "gpu": {}}
    assert list(timings(took)) == [
        "    step         median  slowest",
        "    connect       0.4 s    3.0 s  worker-2",
    ]
