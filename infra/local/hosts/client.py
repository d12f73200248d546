"""ProcessHost: commands and files inside an instance that is a folder and processes of this machine.

The other end is the instance's init (``init.py``), on a socket that only this user can open. One connection
runs one command. Frames both ways are one letter, four bytes of length, and that many bytes:

    to the host      R {"command", "env"}      I stdin (an empty one ends it)      K kill the command
    from the host    O stdout       E stderr       X {"status"}      F {"error"}
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import stat
import struct
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from infra.errors import CommandFailed, CommandTimedOut, HostError, HostRefused, HostUnreachable
from infra.node.feeder import Feeder
from infra.node.host import LeftOut, Lines, Result

_HEADER = struct.Struct("!cI")
_KILL_SECONDS = 5.0
_STDIN_CHUNK = 65536


class ProcessHost:
    """A connection to one instance of the embedded cloud; see ``infra.node.host.Host``."""

    def __init__(
        self, instance_id: str, root: PurePosixPath, socket_path: str, env: Mapping[str, str]
    ) -> None:
        self._name, self._root, self._socket_path, self._env = instance_id, root, socket_path, dict(env)

    @classmethod
    def connect(cls, instance_id: str, facts: Mapping[str, Any]) -> ProcessHost:
        """From what the server says of the instance. Raises HostRefused or HostUnreachable by its state."""
        if facts["state"] == "pending":
            raise HostRefused(instance_id, "is still booting; wait until EC2 shows it as running")
        if facts["state"] != "running":
            raise HostUnreachable(instance_id, f"has no host: the instance is {facts['state']}")
        if "socket" not in facts:
            raise HostUnreachable(instance_id, "has no host: this embedded cloud runs with `hosts: none`")
        return cls(instance_id, PurePosixPath(facts["root"]), facts["socket"], facts["env"])

    @property
    def name(self) -> str:
        return self._name

    @property
    def root(self) -> PurePosixPath:
        return self._root

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
        """See ``infra.node.host.Host.run``. The command starts in the home folder of the host's user."""
        output = _Output(on_line)
        deadline = time.monotonic() + timeout_seconds
        with self._open() as connection:
            _send(
                connection,
                b"R",
                json.dumps({"command": command, "env": {**self._env, **(env or {})}}).encode(),
            )
            _send_text(connection, stdin or "")
            try:
                status = self._follow(connection, output, deadline)
            except TimeoutError:
                self._kill(connection, output)
                raise CommandTimedOut(self.name, command, timeout_seconds, output.text) from None
        output.end()
        result = Result(exit_status=status, stdout=output.stdout, stderr=output.stderr)
        if check and status != 0:
            raise CommandFailed(self.name, command, status, output.text)
        return result

    def put(self, source: Path, target: PurePosixPath) -> None:
        """See ``infra.node.host.Host.put``; file modes are kept."""
        self._copy(source, self._inside(target))

    def get(self, source: PurePosixPath, target: Path) -> tuple[LeftOut, ...]:
        """See ``infra.node.host.Host.get``; file modes are kept."""
        origin = self._inside(source)
        if not origin.exists():
            raise HostError(self.name, f"there is no {source} to copy")
        if not origin.is_dir():
            self._copy(origin, target)
            return ()
        left_out = list(self._copy_folder(origin, target))
        return tuple(replace(one, path=os.path.relpath(one.path, origin)) for one in left_out)

    def pipe(
        self, command: str, *, source: Iterable[bytes], sink: Callable[[bytes], None], silence_seconds: float
    ) -> None:
        """See ``infra.node.host.Host.pipe``."""
        error, status = Lines(None), -1
        with self._open() as connection:
            connection.settimeout(silence_seconds)
            _send(connection, b"R", json.dumps({"command": command, "env": self._env}).encode())
            feeder = Feeder(
                source, lambda part: _send_input(connection, part), lambda: _send(connection, b"I", b"")
            )
            try:
                for kind, payload in _passing(connection, feeder, self.name, silence_seconds):
                    if kind == b"O":
                        sink(payload)
                    elif kind == b"E":
                        error.add(payload)
                    elif kind == b"X":
                        status = int(json.loads(payload)["status"])
                        break
                    else:
                        raise HostError(self.name, json.loads(payload)["error"])
            finally:
                feeder.stop()
        if status < 0:
            raise HostUnreachable(self.name, "went away while files were copied")
        if status:
            raise CommandFailed(self.name, command, status, error.text)

    def close(self) -> None:
        """Nothing to close: each command has a connection of its own."""

    def _open(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(10.0)
        try:
            connection.connect(self._socket_path)
        except OSError as error:
            connection.close()
            raise HostUnreachable(self.name, "does not answer: its machine is gone") from error
        return connection

    def _follow(self, connection: socket.socket, output: _Output, deadline: float) -> int:
        for kind, payload in _frames(connection, deadline):
            if kind == b"X":
                return int(json.loads(payload)["status"])
            if kind == b"F":
                raise HostError(self.name, json.loads(payload)["error"])
            output.add(kind, payload)
        raise HostUnreachable(self.name, "went away while a command was running")

    def _kill(self, connection: socket.socket, output: _Output) -> None:
        with contextlib.suppress(OSError, HostError):  # a machine that is gone has no command left either
            _send(connection, b"K", b"")
            self._follow(connection, output, time.monotonic() + _KILL_SECONDS)
        output.end()

    def _copy(self, source: Path, target: Path) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copy2(source, target)
        except OSError as error:
            reason = error.strerror or error
            raise HostError(self.name, f"cannot copy {source} to {target}: {reason}") from error

    def _copy_folder(
        self, folder: Path, target: Path, above: frozenset[tuple[int, int]] = frozenset()
    ) -> Iterator[LeftOut]:
        """Copy the files below ``folder``, those that links lead to as well; what is left out.

        ``above``: the folders that it is in, by device and inode.
        """
        above |= {_identity(folder)}
        target.mkdir(parents=True, exist_ok=True)
        for one in sorted(folder.iterdir()):
            kind = _kind(one, above)
            if kind:
                yield LeftOut(path=str(one), kind=kind)
            elif one.is_dir():
                yield from self._copy_folder(one, target / one.name, above)
            else:
                self._copy(one, target / one.name)

    def _inside(self, path: PurePosixPath) -> Path:
        if not Path(os.path.normpath(path)).is_relative_to(self._root):
            raise HostError(self.name, f"{path} is outside the host, whose root is {self._root}")
        if not Path(self._root).is_dir():
            raise HostUnreachable(self.name, "has no files: its machine is gone")
        return Path(path)


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _kind(path: Path, above: Collection[tuple[int, int]]) -> str:
    """Why ``path`` cannot be copied; empty for a file, and for a folder that is not one of ``above``."""
    try:
        found = path.stat()
    except OSError:
        return "a link that leads nowhere"
    if stat.S_ISDIR(found.st_mode) and (found.st_dev, found.st_ino) in above:
        return "a link into itself"
    if not stat.S_ISDIR(found.st_mode) and not stat.S_ISREG(found.st_mode):
        return {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}.get(stat.S_IFMT(found.st_mode), "a device")
    return "" if os.access(path, os.R_OK) else "it cannot be read"


class _Output:
    """What a command has written so far: each stream by itself, and both as they came."""

    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self._streams = {b"O": Lines(on_line), b"E": Lines(on_line)}
        self._both = Lines(None)

    def add(self, kind: bytes, payload: bytes) -> None:
        self._streams[kind].add(payload)
        self._both.add(payload)

    def end(self) -> None:
        for stream in self._streams.values():
            stream.end()

    @property
    def stdout(self) -> str:
        return self._streams[b"O"].text

    @property
    def stderr(self) -> str:
        return self._streams[b"E"].text

    @property
    def text(self) -> str:
        return self._both.text


def _frames(connection: socket.socket, deadline: float) -> Iterator[tuple[bytes, bytes]]:
    """Frames until the other end closes. Raises TimeoutError at the deadline."""
    while header := _receive(connection, _HEADER.size, deadline):
        kind, length = _HEADER.unpack(header)
        yield kind, _receive(connection, length, deadline)


def _passing(
    connection: socket.socket, feeder: Feeder, host: str, silence_seconds: float
) -> Iterator[tuple[bytes, bytes]]:
    """Frames until the other end closes, or until ``feeder`` finds something wrong."""
    while True:
        feeder.check(host, silence_seconds)
        if not select.select([connection], [], [], 0.2)[0]:
            continue
        header = _receive(connection, _HEADER.size, time.monotonic() + silence_seconds)
        if not header:
            return
        kind, length = _HEADER.unpack(header)
        feeder.moved()
        yield kind, _receive(connection, length, time.monotonic() + silence_seconds)


def _send_input(connection: socket.socket, part: bytes) -> None:
    for start in range(0, len(part), _STDIN_CHUNK):
        _send(connection, b"I", part[start : start + _STDIN_CHUNK])


def _receive(connection: socket.socket, size: int, deadline: float) -> bytes:
    received = bytearray()
    while len(received) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        try:
            chunk = connection.recv(min(size - len(received), 1 << 20))
        except ConnectionError:
            chunk = b""
        if not chunk:
            return b""
        received += chunk
    return bytes(received)


def _send(connection: socket.socket, kind: bytes, payload: bytes) -> None:
    connection.sendall(_HEADER.pack(kind, len(payload)) + payload)


def _send_text(connection: socket.socket, text: str) -> None:
    data = text.encode()
    with contextlib.suppress(BrokenPipeError):  # the command may end without reading its input
        for start in range(0, len(data), _STDIN_CHUNK):
            _send(connection, b"I", data[start : start + _STDIN_CHUNK])
        _send(connection, b"I", b"")
