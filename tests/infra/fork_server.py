"""The command as a process of its own, so that real signals can be sent to it.

The fork server is a process that has imported everything and forks for each command: that takes a tenth of
the time that a new Python would. The forked process stops before its first call, so that the test knows its
pid; the simulated EC2 can then send it a signal at any call.

It is the command of ``--cloud aws`` with the simulation as its endpoint; only the nodes' hosts are scripted.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from infra.local import LocalCloud

COMMAND_SECONDS = 120.0
ROOT = Path(__file__).parents[2]
LAUNCH = ("launch", "--cloud", "aws", "-s", "2", "--authorized-address", "198.51.100.7/32", "--name")
DESTROY = ("destroy", "--cloud", "aws", "--yes", "--name")


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended: its status (negative: the signal that killed it) and what it said."""

    status: int
    out: str
    err: str


class Command:
    """A command that waits for its start."""

    def __init__(self, server: ForkServer, pid: int, folder: Path) -> None:
        self.server, self.pid, self.folder = server, pid, folder

    def go(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def wait(self) -> Ended:
        """Wait for its end; killed at the deadline."""
        status = self.server.ask({"wait": self.pid, "seconds": COMMAND_SECONDS})
        said = [(self.folder / name).read_text() for name in ("out", "err") if (self.folder / name).exists()]
        out, err = said or ("", "")
        return Ended(status=status, out=out, err=err)


class ForkServer:
    """A running fork server for one simulated cloud."""

    def __init__(self, cloud: LocalCloud, folder: Path) -> None:
        self.cloud, self.folder, self.count = cloud, folder, 0
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "SPARKNET_EC2"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.infra.fork_server"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**environment, **cloud.environment},
            text=True,
        )

    def command(self, *words: str, home: str = "home", terminal: str = "") -> Command:
        """A command, not started yet. Commands of another ``home`` are of another machine.

        It writes to files, or to the ``terminal`` of that name, which is the one that it is controlled by.
        """
        self.count += 1
        folder = self.folder / str(self.count)
        folder.mkdir(parents=True)
        question = {"words": words, "home": str(self.folder / home), "folder": str(folder)}
        return Command(self, self.ask({**question, "terminal": terminal}), folder)

    def run(self, *words: str, home: str = "home") -> Ended:
        command = self.command(*words, home=home)
        command.go()
        return command.wait()

    def run_with(self, faults: Sequence[dict[str, Any]], *words: str, home: str = "home") -> Ended:
        """The command with what is to happen to its calls, of which the first has the index 1; faults of
        kind signal get its pid.
        """
        command = self.command(*words, home=home)
        own = [{**one, "pid": command.pid} if one.get("kind") == "signal" else dict(one) for one in faults]
        self.cloud.control("DELETE", "calls")
        self.cloud.control("POST", "faults", own)
        command.go()
        ended = command.wait()
        self.cloud.control("DELETE", "faults")
        return ended

    def ask(self, question: dict[str, Any]) -> int:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the fork server has ended"
        return int(answer)

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


def serve() -> None:
    """Fork for each line that names a command, and wait for the pid of each line that names one."""
    prepare()
    for line in sys.stdin:
        question = json.loads(line)
        answer = _fork(question) if "words" in question else _wait(question["wait"], question["seconds"])
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


def prepare() -> None:
    """Import all that a launch imports, let botocore read its models, and script the hosts."""
    from infra import cluster, costs  # noqa: F401
    from infra.cli import clusters  # noqa: F401
    from infra.cli.target import Target
    from infra.ec2.region import Region
    from tests.infra.hosts import ScriptedCluster

    warm = Region("us-east-1")
    warm.read("describe_regions")
    warm.close()
    original = Target._aws

    def scripted(target: Target, emit: Any) -> Any:
        return replace(original(target, emit), connect=ScriptedCluster().connect, poll_seconds=0.05)

    Target._aws = scripted  # type: ignore[method-assign]


def _fork(question: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        _be_the_command(question)
    _, status = os.waitpid(pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    return pid


def _be_the_command(question: dict[str, Any]) -> None:
    from infra.cli import command

    status = 1
    try:
        os.environ["SPARKNET_EC2_HOME"] = question["home"]
        if question["terminal"]:
            os.setsid()
            files = [os.open(question["terminal"], os.O_RDWR)] * 3  # its controlling terminal from now on
        else:
            names = (os.devnull, f"{question['folder']}/out", f"{question['folder']}/err")
            files = [os.open(name, os.O_RDWR | os.O_CREAT, 0o600) for name in names]
        for number, file in enumerate(files):
            os.dup2(file, number)
        os.kill(os.getpid(), signal.SIGSTOP)
        status = command.run(question["words"])
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _wait(pid: int, seconds: float) -> int:
    deadline = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


if __name__ == "__main__":
    os.chdir(tempfile.gettempdir())
    serve()
