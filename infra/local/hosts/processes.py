"""Finding and ending processes of hosts: by descent from their init, and by a mark in their environment.

On Linux the server is a subreaper: whatever an init leaves when it dies becomes a child of the server, so
even a process that cleared its environment is found.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

HOME_MARK = "SPARKNET_LOCAL_HOME"  # in the environment of every process of every host of that folder
INSTANCE_MARK = "SPARKNET_INSTANCE"  # in that of every process of one instance
END_SECONDS = 10.0

_GONE = (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess)


class Inits:
    """The init processes of this server: any other child of it is an orphan of a machine that died."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pids: set[int] = set()

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        with self._lock:
            process = subprocess.Popen(command, start_new_session=True, **options)
            self._pids.add(process.pid)
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
        with self._lock:
            self._pids.discard(process.pid)

    def end_orphans(self) -> None:
        with self._lock:
            end_all(self._running_orphans)
            for child in psutil.Process().children():
                if child.pid not in self._pids:
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(child.pid, os.WNOHANG)

    def _running_orphans(self) -> list[psutil.Process]:
        orphans = [child for child in psutil.Process().children() if child.pid not in self._pids]
        return [
            process for orphan in orphans for process in (orphan, *descendants(orphan.pid)) if _runs(process)
        ]


def end_processes_of_home(folder: Path) -> int:
    """Kill every process of every host below ``folder``; how many there were."""
    return end_all(lambda: marked(HOME_MARK, str(folder)))


def end_all(find: Callable[[], Iterable[psutil.Process]]) -> int:
    """Kill what ``find`` finds until it finds nothing more: a process may fork while it is looked for."""
    ended = 0
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        found = list(find())
        if not found:
            break
        for process in found:
            with contextlib.suppress(*_GONE):
                process.kill()
                ended += 1
        psutil.wait_procs(found, timeout=1.0)
    return ended


def marked(name: str, value: str) -> list[psutil.Process]:
    """Processes of this user, other than this one, whose environment has ``name=value``."""
    return [process for process in psutil.process_iter() if _has_mark(process, name, value)]


def descendants(pid: int) -> list[psutil.Process]:
    """Children of ``pid`` and theirs; dead ones that nobody has collected yet are left out."""
    try:
        below = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [process for process in below if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except _GONE:
        return False


def _has_mark(process: psutil.Process, name: str, value: str) -> bool:
    try:
        return process.pid != psutil.Process().pid and process.environ().get(name) == value
    except (*_GONE, OSError):
        return False
