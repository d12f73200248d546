"""SSHHost: a node reached by ssh; with ``infra.node.login`` the only user of fabric in the project."""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import Any, BinaryIO

from infra.errors import CommandFailed, CommandTimedOut, HostError, HostUnreachable
from infra.node.feeder import Feeder
from infra.node.host import LeftOut, Lines, Result
from infra.node.login import CONNECT_SECONDS, Address, hang_up, log_in

NETWORK_GRACE_SECONDS = 15.0  # beyond a command's own deadline, which the node holds
COPY_SECONDS = 600.0
STATUS_SECONDS = 30.0  # between the end of a command's output and its status
PIPE_BYTES = 1 << 18
STATUS_TIMED_OUT = 124  # of timeout(1)


#: find's expressions: what can be copied, and what not with its kind (GNU's letters, u: unreadable) before it
COPIED = r"-readable \( -type f -o -type d \) -print0"
LEFT_OUT = r"! -type f ! -type d -printf '%y%P\0' -o ! -readable -printf 'u%P\0'"
ARCHIVE = "--null --no-recursion -h --hard-dereference --ignore-failed-read"
STATUS_CHANGED = 1  # of tar: a file was written to while it was read
KINDS = {
    "p": "a FIFO",
    "s": "a socket",
    "l": "a link that leads nowhere",
    "b": "a device",
    "c": "a device",
    "u": "it cannot be read",
}
LOOP = re.compile(r"File system loop detected; '(?:\./)?(.*?)' is part")


class SSHHost:
    """A node reached by ssh, over one connection that is opened at first use and kept.

    The key a node shows at first contact is written to ``known_hosts`` (one file a cluster); a node that
    shows another one later is not talked to.
    """

    def __init__(
        self,
        name: str,
        address: str,
        *,
        user: str,
        key: Path,
        known_hosts: Path,
        port: int = 22,
        ssh_config: Path | None = None,
    ) -> None:
        self._name = name
        self._address = Address(
            host=address, port=port, user=user, key=key, known_hosts=known_hosts, ssh_config=ssh_config
        )
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
        """The ssh client of this machine, with the same key, user, known hosts and configuration."""
        where = self._address
        return [
            "ssh",
            *("-F", str(where.ssh_config or "none")),
            *("-i", str(where.key), "-p", str(where.port)),
            *("-o", f"UserKnownHostsFile={where.known_hosts}", "-o", "IdentitiesOnly=yes"),
            f"{where.user}@{where.host}",
        ]

    def forward_command(self, ports: Mapping[int, str]) -> list[str]:
        """The same client, leading ports of this machine's loopback to address:port as the node sees it."""
        ways = (("-L", f"127.0.0.1:{port}:{target}") for port, target in ports.items())
        client, *options, target = self.login_command
        quiet = ("-N", "-o", "ExitOnForwardFailure=yes", "-o", "ServerAliveInterval=15")
        return [client, *quiet, *(word for way in ways for word in way), *options, target]

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
        # timeout(1) signals the whole process group, and -k ends what ignores that
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

    def get(self, source: PurePosixPath, target: Path) -> tuple[LeftOut, ...]:
        """See ``Host.get``; file or folder, it travels as one archive."""
        parent, name = quote(str(source.parent)), quote(f"./{source.name}")
        listed = self.run(
            f"cd {parent} && LC_ALL=C find -L {name} {LEFT_OUT}", timeout_seconds=COPY_SECONDS, check=False
        )
        packed = self.run("mktemp", timeout_seconds=60).stdout.strip()
        try:
            find = f"find -L {name} {COPIED}"
            packing = f"cd {parent} && ls -d {name} >/dev/null && {find} | tar {ARCHIVE} -czf {packed} -T -"
            done = self.run(packing, timeout_seconds=COPY_SECONDS, check=False)
            if done.exit_status > STATUS_CHANGED:
                raise CommandFailed(self.name, packing, done.exit_status, done.stderr)
            self._unpack(packed, source.name, target)
        finally:
            self.run(f"rm -f {packed}", timeout_seconds=60, check=False)
        return left_out(listed)

    def _unpack(self, packed: str, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            with (Path(folder) / "archive").open("w+b") as scratch:
                self._download(packed, scratch)
                scratch.seek(0)
                with tarfile.open(fileobj=scratch, mode="r:gz") as archive:
                    archive.extractall(folder, filter="data")  # a node may not write outside the folder
            found = Path(folder) / name
            if found.is_dir():
                shutil.copytree(found, target, dirs_exist_ok=True)
            elif found.is_file():
                shutil.copy2(found, target)
            else:
                raise HostError(self.name, f"there is no {name} that can be copied")

    def pipe(
        self, command: str, *, source: Iterable[bytes], sink: Callable[[bytes], None], silence_seconds: float
    ) -> None:
        """See ``Host.pipe``."""
        from paramiko.ssh_exception import SSHException

        error = Lines(None)
        transport = self._connection().transport
        try:
            channel = transport.open_session(timeout=CONNECT_SECONDS)
            with closing(channel):
                channel.settimeout(silence_seconds)
                channel.exec_command(command)
                feeder = Feeder(source, channel.sendall, channel.shutdown_write)
                try:
                    while self._take(channel, feeder, sink, error):
                        feeder.check(self.name, silence_seconds)
                finally:
                    feeder.stop()
                channel.status_event.wait(STATUS_SECONDS)
                status = channel.exit_status
        except (EOFError, SSHException, ConnectionError) as failure:
            self.close()
            raise HostUnreachable(self.name, f"the connection was lost ({failure})") from None
        if status < 0:
            self.close()
            raise HostUnreachable(self.name, "the connection was lost while files were copied")
        if status:
            raise CommandFailed(self.name, command, status, error.text)

    @staticmethod
    def _take(channel: Any, feeder: Feeder, sink: Callable[[bytes], None], error: Lines) -> bool:
        """Take what there is, or wait a moment; False at the end of the output."""
        is_over = channel.eof_received or channel.closed
        while channel.recv_stderr_ready():
            error.add(channel.recv_stderr(PIPE_BYTES))
        if channel.recv_ready():
            sink(channel.recv(PIPE_BYTES))
            feeder.moved()
        elif is_over:
            return False
        else:
            time.sleep(0.002)
        return True

    def close(self) -> None:
        with self._opening:
            if self._open is not None:
                hang_up(self._open)
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
                while not drain(channel, out, error):
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
            self.close()  # the next command opens a new connection
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
                self._open = log_in(self.name, self._address)
            return self._open


def left_out(listed: Result) -> tuple[LeftOut, ...]:
    """What ``find`` listed by ``LEFT_OUT``, and the links that it did not follow for ever."""
    rows = [row for row in listed.stdout.split("\0") if row]
    loops = LOOP.findall(listed.stderr)
    return (
        *(LeftOut(path=row[1:], kind=KINDS.get(row[0], "no file")) for row in rows),
        *(LeftOut(path=loop.partition("/")[2] or loop, kind="a link into itself") for loop in loops),
    )


def drain(channel: Any, out: Lines, error: Lines) -> bool:
    """Take what there is; True when there will be no more."""
    is_over: bool = channel.exit_status_ready()  # asked first: what came before it is then taken below
    while channel.recv_ready():
        out.add(channel.recv(65536))
    while channel.recv_stderr_ready():
        error.add(channel.recv_stderr(65536))
    return is_over and not channel.recv_ready() and not channel.recv_stderr_ready()
