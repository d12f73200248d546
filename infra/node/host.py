"""Host: run a command on a node, put files there, get files back; one node or all of them at once.

    with closing(SSHHost("worker-1", "203.0.113.7", user="ubuntu", key=key, known_hosts=known)) as host:
        host.run("uname -r", timeout_seconds=30).stdout

``Host`` is all that the rest of the project knows about the inside of a node. There are two: the ``SSHHost``
of ``infra.node.ssh``, and the process host of the embedded cloud in ``infra.local``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Protocol, TypeVar

from infra.errors import HostsFailed, InfraError

MAX_THREADS = 32  # enough to hide the round trips of 100 nodes, few enough for a laptop's sockets and memory

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a command ended, and all it wrote."""

    exit_status: int
    stdout: str
    stderr: str


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Something of a folder that was not copied, since it is no file: its path there, and what it is."""

    path: str
    kind: str  # "a FIFO", "a link that leads nowhere"

    def __str__(self) -> str:
        return f"{self.path} ({self.kind})"


class Lines:
    """What a command writes: kept whole, and passed on to ``on_line`` in lines as they come."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._on_line = on_line
        self._kept = bytearray()
        self._passed_on = 0  # bytes

    @property
    def text(self) -> str:
        return self._kept.decode(errors="replace")

    def add(self, data: bytes) -> None:
        self._kept += data
        cut = self._kept.rfind(b"\n") + 1
        if self._on_line and cut > self._passed_on:
            for line in self._kept[self._passed_on : cut].splitlines():
                self._on_line(line.decode(errors="replace"))
        self._passed_on = max(cut, self._passed_on)

    def end(self) -> None:
        """Pass on a last line that came without its newline."""
        if self._on_line and len(self._kept) > self._passed_on:
            self._on_line(self._kept[self._passed_on :].decode(errors="replace"))
        self._passed_on = len(self._kept)


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
        Raises CommandFailed on a status other than 0 (unless ``check`` is False), CommandTimedOut at the
        deadline (the command is stopped), another HostError if the host cannot be reached.
        """
        ...

    def put(self, source: Path, target: PurePosixPath) -> None:
        """Copy a file, or a folder with all below it, to the host as ``target``; parents are made."""
        ...

    def get(self, source: PurePosixPath, target: Path) -> tuple[LeftOut, ...]:
        """Copy a file, or a folder with all below it, from the host to ``target``; what was left out.

        Only files and folders are copied, and what links lead to. The rest of a folder (a FIFO, a socket, a
        link that leads nowhere or into itself, a file that may not be read) is left out.
        """
        ...

    def pipe(
        self, command: str, *, source: Iterable[bytes], sink: Callable[[bytes], None], silence_seconds: float
    ) -> None:
        """Run ``command`` with ``source`` as its input, while ``sink`` gets its output, bytes as they come.

        It may take as long as it likes, but not be silent for ``silence_seconds`` in both directions.
        Raises CommandFailed on a status other than 0, and HostUnreachable where the link breaks or is silent.
        What ``source`` and ``sink`` raise comes through; the command is stopped then.
        """
        ...

    def close(self) -> None: ...


class Named(Protocol):
    """Anything that stands for a node."""

    @property
    def name(self) -> str: ...


N = TypeVar("N", bound=Named)


def on_all(nodes: Sequence[N], work: Callable[[N], T], *, threads: int = MAX_THREADS) -> list[T]:
    """``work`` on every node, at most ``threads`` at a time; the results in the order of ``nodes``.

    Every node is tried before anything is raised. Raises HostsFailed, with each failed node's own error. An
    interrupt leaves at once: work not yet begun is dropped, work under way ends at its own deadline.
    """
    pool = ThreadPoolExecutor(max(1, min(threads, len(nodes))), thread_name_prefix="node")
    try:
        futures = {node.name: pool.submit(work, node) for node in nodes}
        wait(futures.values())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    failures = {name: error for name, future in futures.items() if (error := future.exception())}
    for error in failures.values():
        if not isinstance(error, InfraError):
            raise error  # a defect of ours, not of a node
    if failures:
        raise HostsFailed({name: e for name, e in failures.items() if isinstance(e, InfraError)}, len(nodes))
    return [future.result() for future in futures.values()]


def write_text(host: Host, target: PurePosixPath, text: str, *, mode: int = 0o644) -> None:
    """Make ``target`` hold ``text``, replacing it whole; it never exists with more rights than ``mode``.

    The text travels over stdin, so that a secret is never part of a command line.
    """
    folder, new, name = (quote(str(path)) for path in (target.parent, f"{target}.new", target))
    command = f"mkdir -p {folder} && umask 077 && cat > {new} && chmod {mode:o} {new} && mv {new} {name}"
    host.run(command, stdin=text, timeout_seconds=60)


def read_text(host: Host, source: PurePosixPath) -> str:
    """All of a small file of the host. Raises CommandFailed if it is not there."""
    return host.run(f"cat {quote(str(source))}", timeout_seconds=60).stdout
