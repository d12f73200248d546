"""A Spark standalone cluster on this machine whose hosts can be killed, stopped and slowed one by one.

A host is a worker daemon with its executor and that one's Python workers: all processes below the daemon.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import pyspark

_CLASS = Path(pyspark.__file__).parent / "bin" / "spark-class"
# Duty cycle of a slowed process: it runs for the first and is stopped for the second, in seconds.
_RUNS, _RESTS = 0.05, 0.2


class Cluster:
    """A master and ``hosts`` hosts with ``cores`` cores each; logs and scratch space lie in ``folder``."""

    address = "127.0.0.1"
    """Of the master."""

    def __init__(self, folder: Path, hosts: int, cores: int = 1) -> None:
        self.folder, self.cores, self.started = folder, cores, 0
        self.port = _free_port()
        self.master = self.start_daemon(
            "org.apache.spark.deploy.master.Master", "--host", self.address, "--port", str(self.port)
        )
        _wait_for(self.address, self.port)
        self.hosts = [self.start_host() for _ in range(hosts)]

    @property
    def url(self) -> str:
        return f"spark://{self.address}:{self.port}"

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        for host in self.hosts:
            host.kill()
        kill_all([self.master.pid])
        self.master.wait()

    def add(self) -> Host:
        """Let another host come."""
        self.hosts.append(self.start_host())
        return self.hosts[-1]

    def replace(self, host: Host) -> None:
        """Let another host come in the place of one that is gone."""
        self.hosts[self.hosts.index(host)] = self.start_host()

    def start_host(self) -> Host:
        self.started += 1
        work = self.folder / f"host-{self.started}"
        return Host(
            self.start_daemon(
                "org.apache.spark.deploy.worker.Worker",
                *("--host", self.address_of(self.started), "--cores", str(self.cores), "--memory", "1g"),
                *("--work-dir", str(work), self.url),
                inside=self.inside(self.started),
                address=self.address_of(self.started),
            )
        )

    def address_of(self, _host: int) -> str:
        """Of a host, counted from 1."""
        return self.address

    def inside(self, _host: int) -> tuple[str, ...]:
        """What its processes are started by."""
        return ()

    def start_daemon(
        self, name: str, *arguments: str, inside: tuple[str, ...] = (), address: str = ""
    ) -> subprocess.Popen[bytes]:
        options = (
            "-Dspark.deploy.maxExecutorRetries=-1 -Dspark.worker.timeout=30 "
            "-XX:+UseSerialGC -XX:TieredStopAtLevel=1"  # there are many of them on one machine
        )
        environment = {
            **os.environ,
            "SPARK_DAEMON_MEMORY": "128m",
            "SPARK_DAEMON_JAVA_OPTS": options,
            "SPARK_LOCAL_IP": address or self.address,
        }
        with (self.folder / "daemons.log").open("ab") as log:
            return subprocess.Popen(
                [*inside, str(_CLASS), name, "--webui-port", "0", *arguments],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


class Host:
    """A worker daemon and everything below it."""

    def __init__(self, daemon: subprocess.Popen[bytes]) -> None:
        self.daemon = daemon

    @property
    def processes(self) -> list[int]:
        return [self.daemon.pid, *descendants(self.daemon.pid)]

    @property
    def executors(self) -> list[int]:
        return executors_below(self.daemon.pid)

    @property
    def pythons(self) -> list[int]:
        """The Python workers: children of the daemon that forks them."""
        forks = [pid for pid in descendants(self.daemon.pid) if "daemon" in command_of(pid)]
        return [pid for pid in forks if parent_of(pid) in forks]

    def kill(self) -> None:
        kill_all(self.processes)
        self.daemon.wait()


def kill_all(pids: list[int]) -> None:
    send(pids, signal.SIGKILL)


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def stop_for(pids: list[int], seconds: float) -> None:
    """SIGSTOP, and SIGCONT after ``seconds``."""
    send(pids, signal.SIGSTOP)
    time.sleep(seconds)
    send(pids, signal.SIGCONT)


def slow_for(pids: list[int], seconds: float) -> None:
    """Let the processes run a fifth of the time."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        stop_for(pids, _RESTS)
        time.sleep(_RUNS)


def in_background(action: object, *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=action, args=arguments, name="chaos", daemon=True)  # type: ignore[arg-type]
    thread.start()
    return thread


def descendants(pid: int) -> list[int]:
    """All processes below ``pid`` now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        children.setdefault(parent_of(int(entry.name)), []).append(int(entry.name))
    found, left = [], [pid]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found


def executors_below(pid: int) -> list[int]:
    """The JVM of each executor, with its Python workers behind it."""
    return [below for below in descendants(pid) if "CoarseGrainedExecutor" in command_of(below)]


def parent_of(pid: int) -> int:
    """0 for a process that has gone."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    return 0


def command_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _wait_for(address: str, port: int, seconds: float = 120.0) -> None:
    ends = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((address, port), timeout=1).close()
        except OSError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.1)
        else:
            return
