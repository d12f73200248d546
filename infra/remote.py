"""Host: run a command on a node, put files there, get files back; one node or all of them at once.

    with closing(SSHHost("worker-1", "203.0.113.7", user="ubuntu", key=key, known_hosts=known)) as host:
        host.run("uname -r", timeout_seconds=30).stdout

``Host`` is the only thing a recipe knows about a node's inside. There are two: ``SSHHost`` here (the only
user of fabric in the project), and the process host of the embedded cloud in ``infra.local``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Protocol, TypeVar

from infra.errors import HostsFailed, InfraError

MAX_THREADS = 32  # enough to hide the round trips of 100 nodes, few enough for a laptop's sockets and memory
COPY_TIMEOUT_SECONDS = 600.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a command ended, and all it wrote."""

    exit_status: int
    stdout: str
    stderr: str


class Host(Protocol):
    """A connection to one node.

    ``root`` is "/" on a machine of its own and the instance's folder on a process host: whoever names a path
    on a host writes ``host.root / "opt/sparknet"``. Scripts find it in ``$SPARKNET_ROOT`` (empty for "/").
    """

    @property
    def name(self) -> str: ...

    @property
    def root(self) -> PurePosixPath: ...

    def run(
        self,
        command: str,
        *,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout_seconds: float,
        on_line: Callable[[str], None] | None = None,
        check: bool = True,
    ) -> Result:
        """Run ``command`` in a POSIX shell, and wait for its end.

        ``on_line`` gets each line of stdout and stderr as it comes, without its newline.
        Raises CommandFailed on a status other than 0 (unless ``check`` is False), CommandTimedOut at the deadline
        (the command is stopped), another HostError if the host cannot be reached.
        """
        ...

    def put(self, source: Path, target: PurePosixPath) -> None:
        """Copy a file, or a folder with all below it, to the host; ``target`` is its new name, parents are made."""
        ...

    def get(self, source: PurePosixPath, target: Path) -> None:
        """Copy a file, or a folder with all below it, from the host; ``target`` is its new name."""
        ...

    def close(self) -> None: ...
