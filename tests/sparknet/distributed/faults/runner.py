"""Runs many plans, some at a time, each in a process group of its own that has a deadline."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from tests.sparknet.distributed.faults.plan import Plan
from tests.sparknet.distributed.faults.scenario import Outcome, Scenario
from tests.sparknet.distributed.faults.strikes import Board
from tests.sparknet.distributed.faults.tasks import TaskServer

DEADLINE_SECONDS = 100.0
"""Of one run: longer than all that a run may wait for."""


@dataclass(frozen=True)
class Ran:
    """A plan, what came of it, and what its processes logged."""

    plan: Plan
    outcome: Outcome
    log: str


def run_all(plans: Iterable[Plan], at_once: int) -> Iterator[Ran]:
    """As they end. Nothing may have been started that has threads: the processes are forked from this one."""
    torch.set_num_threads(1)
    waiting, running = list(plans), dict[int, tuple[Plan, Path, float]]()
    with tempfile.TemporaryDirectory(prefix="sparknet-faults-", ignore_cleanup_errors=True) as folder:
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    plan = waiting.pop(0)
                    place = Path(folder) / f"{plan.seed}-{plan.mode}-{len(waiting)}"
                    running[_started(plan, place)] = plan, place, time.monotonic() + DEADLINE_SECONDS
                for pid in _over(running):
                    plan, place, _ = running.pop(pid)
                    yield Ran(plan, _outcome(place), _logged(place))
                time.sleep(0.02)
        finally:
            for pid in running:
                _kill(pid)
                os.waitpid(pid, 0)


def _started(plan: Plan, place: Path) -> int:
    place.mkdir()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with (place / "log").open("a") as log:
            os.dup2(log.fileno(), 2)
        faulthandler.dump_traceback_later(DEADLINE_SECONDS - 10)
        logging.basicConfig(format="%(relativeCreated)d %(process)d %(message)s", level=logging.INFO)
        board = Board()
        server = TaskServer(board, place / "log")
        outcome = Scenario(plan, board, server, place).run()
        (place / "outcome").write_text(json.dumps(vars(outcome)))
        server.end()
        code = 0
    finally:
        os._exit(code)


def _over(running: dict[int, tuple[Plan, Path, float]]) -> list[int]:
    """Those that have ended, by themselves or because they took too long."""
    for pid, (_, _, ends) in running.items():
        if time.monotonic() > ends:
            _kill(pid)
    over = [pid for pid in running if os.waitpid(pid, os.WNOHANG)[0]]
    for pid in over:
        _kill(pid)  # what is left of its group
    return over


def _kill(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _outcome(place: Path) -> Outcome:
    try:
        said = json.loads((place / "outcome").read_text())
    except (OSError, ValueError):
        return Outcome(wrong=[f"it hung, or its driver died: no outcome within {DEADLINE_SECONDS:g} s"])
    return Outcome(**{**said, "faults": Counter(said["faults"])})


def _logged(place: Path) -> str:
    with suppress(OSError):
        return (place / "log").read_text(errors="replace")
    return ""
