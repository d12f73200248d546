"""A stand-in for Spark: hosts of one slot each, and tasks that wait for one in the order of their jobs.

As Spark does, it starts a task that failed again, before all others, and tells nobody why.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from sparknet.distributed.rebalancing import TaskStatus
from sparknet.distributed.worker_service import Assignment
from tests.sparknet.distributed.faults.plan import Blow, Plan
from tests.sparknet.distributed.faults.strikes import Board, strikes_of
from tests.sparknet.distributed.faults.tasks import Ended, Start, Started, TaskServer

HEAL_SECONDS = 3.0
"""A host returns, and a process that was stopped goes on, after so long even if no round is made."""


@dataclass(eq=False, kw_only=True)
class Host:
    folder: Path
    here: bool = True
    is_taken_back: bool = False


@dataclass(eq=False, kw_only=True)
class Task:
    shard: int
    life: int
    host: Host
    pid: int = 0
    started: float = field(default_factory=time.monotonic)
    doomed: bool = False
    stopped: bool = False


class Cluster:
    """``happened`` counts what has befallen it."""

    def __init__(self, plan: Plan, board: Board, server: TaskServer, folder: Path) -> None:
        self.plan, self.board, self.server, self.folder = plan, board, server, folder
        self.lock = threading.RLock()
        self.hosts = [self.new_host(number) for number in range(plan.slots)]
        self.waiting: list[int] = []
        self.running_tasks: dict[int, Task] = {}
        self.lives: Counter[int] = Counter()
        self.attempts = 0
        self.healing: list[tuple[int, float, Callable[[], None]]] = []
        self.seen: set[int] = set()
        self.happened: Counter[str] = Counter()
        self.assignment: Assignment | None = None
        self.ended: Callable[[str], None] = lambda _: None
        self.over = self.closed = False
        self.thread = threading.Thread(target=self.watch, name="cluster", daemon=True)
        self.thread.start()

    # -- what the engine asks of Spark ----------------------------------------------------------------------

    def submit(self, shards: Sequence[int]) -> None:
        with self.lock:
            self.waiting.extend(shards)
            self.fill()

    def slots(self) -> int:
        with self.lock:
            return sum(host.here for host in self.hosts)

    def tasks(self) -> dict[int, TaskStatus]:
        now = time.monotonic()
        with self.lock:
            found = dict.fromkeys(self.waiting, TaskStatus())
            for attempt, task in self.running_tasks.items():
                found[task.shard] = TaskStatus(attempt=attempt, seconds=now - task.started)
            return found

    def end(self, attempt: int) -> None:
        with self.lock:
            task = self.running_tasks.get(attempt)
            if task and task.pid:
                self.happened["ended by the engine"] += 1
                _signal(task.pid, signal.SIGKILL)

    # -- what befalls it ------------------------------------------------------------------------------------

    def suffer(self, blow: Blow) -> None:
        with self.lock:
            self.happened[blow.what] += 1
            tasks = [task for task in self.running_tasks.values() if task.pid]
            struck = [task for task in tasks if task.shard == blow.whom] or tasks[:1]
            match blow.what:
                case "kill all":
                    self.kill(tasks)
                case "kill one":
                    self.kill(struck)
                case "stop one":
                    for task in struck:
                        task.stopped = True
                        _signal(task.pid, signal.SIGSTOP)
                case "add host":
                    self.hosts.append(self.new_host(len(self.hosts)))
                    self.fill()
                case "lose host":
                    for task in struck:
                        self.lose(task.host)
                    self.kill(struck)

    def forget_all(self) -> None:
        """The application is over: its tasks are killed, and none waits."""
        with self.lock:
            self.waiting.clear()
            for task in self.running_tasks.values():
                task.doomed = True
            self.kill(list(self.running_tasks.values()))
        ends = time.monotonic() + 5
        while self.running_tasks and time.monotonic() < ends:
            time.sleep(0.01)

    def withdraw(self) -> None:
        """Start nothing more."""
        with self.lock:
            self.waiting.clear()
            self.over = True

    @property
    def healthy(self) -> set[int]:
        """The attempts that run and that nothing has befallen."""
        with self.lock:
            return {attempt for attempt, task in self.running_tasks.items() if not self.is_struck(task)}

    @property
    def running(self) -> dict[int, int]:
        """The shards of the tasks that run, by attempt."""
        with self.lock:
            return {attempt: task.shard for attempt, task in self.running_tasks.items()}

    def close(self) -> list[str]:
        """What did not end by itself, though nothing had befallen it."""
        self.withdraw()
        ends = time.monotonic() + 3
        while self.able_to_leave() and time.monotonic() < ends:
            time.sleep(0.01)
        left = self.able_to_leave()
        self.forget_all()
        self.closed = True
        self.thread.join(2)
        return [f"the worker of shard {task.shard} did not leave" for task in left]

    # -- how it works ---------------------------------------------------------------------------------------

    def able_to_leave(self) -> list[Task]:
        with self.lock:
            return [task for task in self.running_tasks.values() if not self.is_struck(task)]

    def is_struck(self, task: Task) -> bool:
        numbers = strikes_of(self.plan.strikes, task.shard, task.life)
        return task.stopped or any(self.board.struck(number) for number in numbers)

    def new_host(self, number: int) -> Host:
        folder = self.folder / f"host-{number}"
        folder.mkdir(exist_ok=True)
        return Host(folder=folder)

    def lose(self, host: Host) -> None:
        """For good; the last one stays."""
        if sum(other.here for other in self.hosts) > 1:
            host.here = False
            shutil.rmtree(host.folder, ignore_errors=True)

    def kill(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            if task.pid:
                _signal(task.pid, signal.SIGKILL)

    def fill(self) -> None:
        busy = {id(task.host) for task in self.running_tasks.values()}
        free = [host for host in self.hosts if host.here and id(host) not in busy]
        while free and self.waiting and self.assignment and not self.over:
            shard, host = self.waiting.pop(0), free.pop(0)
            life, self.lives[shard] = self.lives[shard], self.lives[shard] + 1
            self.attempts += 1
            self.running_tasks[self.attempts] = Task(shard=shard, life=life, host=host)
            self.server.connection.send(
                Start(
                    assignment=self.assignment,
                    shard=shard,
                    attempt=self.attempts,
                    folder=str(host.folder),
                    strikes=strikes_of(self.plan.strikes, shard, life),
                )
            )

    def watch(self) -> None:
        while not self.closed:
            try:
                if self.server.connection.poll(0.02):
                    self.take(self.server.connection.recv())
            except (EOFError, OSError):
                return
            self.look()

    def take(self, said: Started | Ended) -> None:
        with self.lock:
            task = self.running_tasks[said.attempt]
            if isinstance(said, Started):
                task.pid = said.pid
                if task.doomed:
                    _signal(task.pid, signal.SIGKILL)
                return
            self.look()  # a host may be gone with the task
            del self.running_tasks[said.attempt]
            if task.doomed:
                return
            if not said.well:
                self.waiting.insert(0, task.shard)
            if task.host.is_taken_back:
                self.happened["left in time" if said.well else "ended though it was told"] += 1
            self.fill()
            idle = not self.running_tasks and not self.waiting and not self.over
        if idle:
            self.ended("all tasks finished")

    def look(self) -> None:
        """See which strikes have come, and let heal what is to heal."""
        with self.lock:
            for number, strike in enumerate(self.plan.strikes):
                if number in self.seen or not self.board.struck(number):
                    continue
                self.seen.add(number)
                self.happened[strike.what] += 1
                until = self.board.struck_in(number) + strike.rounds
                task = next(
                    (
                        t
                        for t in self.running_tasks.values()
                        if (t.shard, t.life) == (strike.shard, strike.life)
                    ),
                    None,
                )
                if strike.what == "stop" and strike.rounds and task:
                    self.heal(until, lambda pid=task.pid: _signal(pid, signal.SIGCONT))  # type: ignore[misc]
                if strike.what == "notice" and task:
                    self.take_back(task.host, until)
                if strike.what == "host":
                    self.strike_host(strike.shard, strike.rounds, until)
            due = [one for one in self.healing if self.board.round >= one[0] or time.monotonic() >= one[1]]
            self.healing = [one for one in self.healing if one not in due]
            for _, _, heal in due:
                heal()

    def strike_host(self, shard: int, rounds: int, until: int) -> None:
        """The slot of this shard's worker is gone with it."""
        host = next((task.host for task in self.running_tasks.values() if task.shard == shard), None)
        if host is None or not host.here:
            return
        if not rounds:
            self.lose(host)
            return
        host.here = False

        def back() -> None:
            host.folder.mkdir(exist_ok=True)
            host.here = True
            self.fill()

        self.heal(until, back)

    def take_back(self, host: Host, until: int) -> None:
        """It gets no more tasks; at the end whoever is still there is killed, and a new host takes its place.

        It had notice, and time enough.
        """
        if not host.here:
            return
        host.here, host.is_taken_back = False, True

        def replaced() -> None:
            self.kill([task for task in self.running_tasks.values() if task.host is host])
            shutil.rmtree(host.folder, ignore_errors=True)
            self.hosts.append(self.new_host(len(self.hosts)))
            self.fill()

        self.heal(until, replaced)

    def heal(self, until: int, action: Callable[[], None]) -> None:
        self.healing.append((until, time.monotonic() + HEAL_SECONDS, action))


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
