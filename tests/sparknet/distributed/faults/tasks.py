"""Processes that stand for Spark tasks, forked from one that has loaded everything and has no threads."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from sparknet.distributed import worker_service as workers_end
from sparknet.distributed.averaging import gradient_averager
from sparknet.distributed.comm import handshake
from sparknet.distributed.comm.handshake import Identity
from sparknet.distributed.worker_service import Assignment, Service
from sparknet.notice import Notice
from tests.sparknet.distributed.faults import adding, strikes
from tests.sparknet.distributed.faults.plan import Strike
from tests.sparknet.distributed.faults.strikes import Board, FaultyChannel

# Numbers in a bucket of a gradient: there are some of them.
_BUCKET = 200
# A step takes so long.
_PAUSE_SECONDS = 0.002


@dataclass(frozen=True, kw_only=True)
class Start:
    """A task to be started. ``folder`` is where its host spills to."""

    assignment: Assignment
    shard: int
    attempt: int
    folder: str
    strikes: Mapping[int, Strike]


@dataclass(frozen=True)
class Started:
    attempt: int
    pid: int


@dataclass(frozen=True)
class Ended:
    attempt: int
    well: bool


class TaskServer:
    """Forks tasks as it is told by ``connection``; make it before any thread is started."""

    def __init__(self, board: Board, log: Path) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self.connection.close()
            _serve(theirs, board, log)
        theirs.close()

    def end(self) -> None:
        with suppress(OSError):
            self.connection.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


def _serve(connection: Connection, board: Board, log: Path) -> None:
    """The server's loop; its end is that of the connection."""
    running: dict[int, tuple[int, int]] = {}  # by pidfd: attempt, pid
    try:
        while True:
            for ready in wait([connection, *running]):
                if ready is connection:
                    start = connection.recv()
                    pid = os.fork()
                    if pid == 0:
                        connection.close()
                        _run(start, board, log)
                    running[os.pidfd_open(pid)] = start.attempt, pid
                    connection.send(Started(start.attempt, pid))
                else:
                    assert isinstance(ready, int)
                    attempt, pid = running.pop(ready)
                    os.close(ready)
                    _, status = os.waitpid(pid, 0)
                    connection.send(Ended(attempt, status == 0))
    except (EOFError, OSError):
        for _, pid in running.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        os._exit(0)


def _run(start: Start, board: Board, log: Path) -> None:
    """A task, from its first line to its last."""
    code = 1
    try:
        with log.open("a") as file:
            os.dup2(file.fileno(), 2)
        os.environ["SPARK_LOCAL_DIRS"] = start.folder
        torch.set_num_threads(1)
        strikes.arm(board, start.strikes)
        workers_end.Channel = FaultyChannel  # type: ignore[misc]
        gradient_averager.LARGEST_BUCKET = _BUCKET
        workers_end._RETRY_SECONDS, handshake.HANDSHAKE_SECONDS = 6.0, 2.0

        def drain() -> adding.Examples:
            strikes.come_to("drain")
            return adding.shard(start.shard)

        who = Identity(partition=start.shard, attempt=start.attempt, host="here", pid=os.getpid())
        recipe = replace(start.assignment.recipe, replica=adding.AddingModel(start.shard, _PAUSE_SECONDS))
        notice = Notice(Path(start.folder) / strikes.NOTICE)
        Service(replace(start.assignment, recipe=recipe), who, drain, notice).run()
        code = 0
    except BaseException:  # noqa: BLE001 - as Spark's own worker: told, and counted as a failure
        sys.stderr.write(f"attempt {start.attempt} of shard {start.shard}:\n{traceback.format_exc()}\n")
        sys.stderr.flush()
    finally:
        os._exit(code)
