"""Host: run a command on a node, put files there, get files back; one node or all of them at once.

    with closing(SSHHost("worker-1", "203.0.113.7", user="ubuntu", key=key, known_hosts=known)) as host:
        host.run("uname -r", timeout_seconds=30).stdout

``Host`` is the only thing a recipe knows about a node's inside. There are two: ``SSHHost`` here (the only
user of fabric in the project), and the process host of the embedded cloud in ``infra.local``.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Any, BinaryIO, Protocol, TypeVar

from infra.errors import (
    CommandFailed,
    CommandTimedOut,
    HostError,
    HostKeyChanged,
    HostRefused,
    HostRejectedLogin,
    HostsFailed,
    HostUnreachable,
    InfraError,
)

MAX_THREADS = 32  # enough to hide the round trips of 100 nodes, few enough for a laptop's sockets and memory
CONNECT_SECONDS = 15.0
KEEPALIVE_SECONDS = 15
NETWORK_GRACE_SECONDS = 15.0  # beyond a command's own deadline, which the node holds
COPY_SECONDS = 600.0
STATUS_TIMED_OUT = 124  # of timeout(1)

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
        Raises CommandFailed on a status other than 0 (unless ``check`` is False), CommandTimedOut at the
        deadline (the command is stopped), another HostError if the host cannot be reached.
        """
        ...

    def put(self, source: Path, target: PurePosixPath) -> None:
        """Copy a file, or a folder with all below it, to the host as ``target``; parents are made."""
        ...

    def get(self, source: PurePosixPath, target: Path) -> None:
        """Copy a file, or a folder with all below it, from the host to ``target``."""
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


class SSHHost:
    """A node reached by ssh, over one connection that is opened at first use and kept.

    The key a node shows at first contact is written to ``known_hosts`` (one file a cluster); a node that
    shows another one later is not talked to.
    """

    def __init__(
        self, name: str, address: str, *, user: str, key: Path, known_hosts: Path, port: int = 22
    ) -> None:
        self._name, self._address, self._port = name, address, port
        self._user, self._key, self._known_hosts = user, key, known_hosts
        self._opening = threading.Lock()
        self._open: Any = None  # fabric.Connection

    @property
    def name(self) -> str:
        return self._name

    @property
    def root(self) -> PurePosixPath:
        return PurePosixPath("/")

    @property
    def login_command(self) -> list[str]:
        """The ssh client of this machine, with the same key, user and known hosts."""
        return [
            "ssh",
            *("-i", str(self._key), "-p", str(self._port)),
            *("-o", f"UserKnownHostsFile={self._known_hosts}", "-o", "IdentitiesOnly=yes"),
            f"{self._user}@{self._address}",
        ]

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
        """See ``Host.run``. The node itself ends the command at the deadline: it cannot outlive us."""
        exports = "".join(f"export {name}={quote(value)}; " for name, value in (env or {}).items())
        guarded = f"timeout -k 5 {timeout_seconds:.0f} sh -c {quote(exports + command)}"
        out, error = Lines(on_line), Lines(on_line)
        try:
            status = self._follow(guarded, stdin or "", out, error, timeout_seconds + NETWORK_GRACE_SECONDS)
        except TimeoutError:
            raise CommandTimedOut(self.name, command, timeout_seconds, out.text + error.text) from None
        if status == STATUS_TIMED_OUT:
            raise CommandTimedOut(self.name, command, timeout_seconds, out.text + error.text)
        if check and status != 0:
            raise CommandFailed(self.name, command, status, out.text + error.text)
        return Result(exit_status=status, stdout=out.text, stderr=error.text)

    def put(self, source: Path, target: PurePosixPath) -> None:
        """See ``Host.put``; a folder travels as one archive."""
        self.run(f"mkdir -p {quote(str(target.parent))}", timeout_seconds=60)
        if source.is_dir():
            with tempfile.TemporaryFile() as scratch:
                with tarfile.open(fileobj=scratch, mode="w:gz") as archive:
                    archive.add(source, arcname=".")
                scratch.seek(0)
                self._upload(scratch, PurePosixPath(f"{target}.tar.gz"), 0o600)
            name, packed = quote(str(target)), quote(f"{target}.tar.gz")
            self.run(
                f"mkdir -p {name} && tar -xzf {packed} -C {name} && rm {packed}", timeout_seconds=COPY_SECONDS
            )
        else:
            with source.open("rb") as stream:
                self._upload(stream, target, source.stat().st_mode & 0o777)

    def get(self, source: PurePosixPath, target: Path) -> None:
        """See ``Host.get``; file or folder, it travels as one archive."""
        packed = self.run("mktemp", timeout_seconds=60).stdout.strip()
        parent, name = quote(str(source.parent)), quote(source.name)
        self.run(f"tar -czf {packed} -C {parent} {name}", timeout_seconds=COPY_SECONDS)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            with (Path(folder) / "archive").open("w+b") as scratch:
                self._download(packed, scratch)
                scratch.seek(0)
                with tarfile.open(fileobj=scratch, mode="r:gz") as archive:
                    archive.extractall(folder, filter="data")
            found = Path(folder) / source.name
            if found.is_dir():
                shutil.copytree(found, target, dirs_exist_ok=True)
            else:
                shutil.copy2(found, target)
        self.run(f"rm -f {packed}", timeout_seconds=60)

    def close(self) -> None:
        with self._opening:
            if self._open is not None:
                self._open.close()
            self._open = None

    def _follow(self, command: str, stdin: str, out: Lines, error: Lines, seconds: float) -> int:
        from paramiko.ssh_exception import SSHException

        end = time.monotonic() + seconds
        transport = self._connection().transport
        try:
            channel = transport.open_session(timeout=CONNECT_SECONDS)
            channel.exec_command(command)
            channel.sendall(stdin.encode())
            channel.shutdown_write()
            with closing(channel):
                while not _drain(channel, out, error):
                    if time.monotonic() > end:
                        raise TimeoutError
                    if not transport.is_active():
                        raise HostUnreachable(
                            self.name, "the connection was lost while a command was running"
                        )
                    time.sleep(0.01)
            out.end()
            error.end()
            status: int = channel.recv_exit_status()
        except (OSError, EOFError, SSHException) as failure:
            if isinstance(failure, TimeoutError) and time.monotonic() > end:
                raise
            self.close()
            raise HostUnreachable(self.name, f"the connection was lost ({failure})") from None
        if status < 0:  # the channel was closed without one
            self.close()
            raise HostUnreachable(self.name, "the connection was lost while a command was running")
        return status

    def _upload(self, stream: BinaryIO, target: PurePosixPath, mode: int) -> None:
        with self._sftp() as sftp:
            sftp.putfo(stream, str(target))
            sftp.chmod(str(target), mode)

    def _download(self, source: str, stream: BinaryIO) -> None:
        with self._sftp() as sftp:
            sftp.getfo(source, stream)

    @contextmanager
    def _sftp(self) -> Iterator[Any]:
        try:
            with closing(self._connection().transport.open_sftp_client()) as sftp:
                yield sftp
        except OSError as failure:
            raise HostError(self.name, f"a file could not be copied ({failure})") from None

    def _connection(self) -> Any:
        with self._opening:
            if self._open is None or not self._open.is_connected:
                self._open = self._connect()
            return self._open

    def _connect(self) -> Any:
        """Open the connection. Every way in which that fails has its own exception, and its own advice."""
        import fabric
        from paramiko import ssh_exception as ssh

        self._known_hosts.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._known_hosts.touch(mode=0o600)
        connection = fabric.Connection(
            self._address,
            user=self._user,
            port=self._port,
            connect_timeout=CONNECT_SECONDS,
            connect_kwargs={
                "key_filename": str(self._key),
                "allow_agent": False,
                "look_for_keys": False,
                "banner_timeout": CONNECT_SECONDS,
                "auth_timeout": CONNECT_SECONDS,
            },
        )
        connection.client.load_host_keys(str(self._known_hosts))
        where = f"{self._address}:{self._port}"
        try:
            connection.open()
        except ssh.BadHostKeyException:
            raise HostKeyChanged(
                self.name,
                f"another machine than before answers at {where}; if the node was replaced, remove its line "
                f"from {self._known_hosts}",
            ) from None
        except ssh.AuthenticationException:
            raise HostRejectedLogin(
                self.name,
                f"{where} does not accept user {self._user} with the key {self._key}; check --identity-file, "
                "and that the image's user is that one",
            ) from None
        except (TimeoutError, OSError) as failure:
            if _is_refusal(failure):
                raise HostRefused(
                    self.name, f"{where} refuses the connection; its sshd is not up (yet)"
                ) from None
            raise HostUnreachable(
                self.name,
                f"{where} does not answer ({failure}); is this machine's address the one the security group "
                "lets in, and is there a route?",
            ) from None
        except (ssh.SSHException, EOFError) as failure:  # EOFError: it hung up in the middle of the greeting
            why = str(failure) or "it hung up"
            raise HostRefused(self.name, f"{where} does not speak ssh (yet): {why}") from None
        connection.transport.set_keepalive(KEEPALIVE_SECONDS)
        return connection


def _is_refusal(failure: OSError) -> bool:
    """True if the machine itself said no. paramiko keeps what each address answered in ``errors``."""
    answers = getattr(failure, "errors", {"": failure}).values()
    return all(isinstance(answer, ConnectionError) for answer in answers)


class Lines:
    """Bytes as they come, kept whole, and passed on in lines."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._on_line = on_line
        self._kept = bytearray()
        self._told = 0  # bytes passed on

    @property
    def text(self) -> str:
        return self._kept.decode(errors="replace")

    def add(self, data: bytes) -> None:
        self._kept += data
        cut = self._kept.rfind(b"\n") + 1
        if self._on_line and cut > self._told:
            for line in self._kept[self._told : cut].splitlines():
                self._on_line(line.decode(errors="replace"))
        self._told = max(cut, self._told)

    def end(self) -> None:
        """Pass on a last line that came without its newline."""
        if self._on_line and len(self._kept) > self._told:
            self._on_line(self._kept[self._told :].decode(errors="replace"))
        self._told = len(self._kept)


def _drain(channel: Any, out: Lines, error: Lines) -> bool:
    """Take what there is; True when there will be no more."""
    is_over: bool = channel.exit_status_ready()  # asked first: what came before it is then taken below
    while channel.recv_ready():
        out.add(channel.recv(65536))
    while channel.recv_stderr_ready():
        error.add(channel.recv_stderr(65536))
    return is_over and not channel.recv_ready() and not channel.recv_stderr_ready()
