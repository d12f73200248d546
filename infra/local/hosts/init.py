"""Process 1 of a process host: runs what ``ProcessHost.run`` asks for, and ends with all of it.

Run by the server as ``python -I -S init.py SPEC.json``; standard library only, because it is paid for once
per instance. It is a subreaper (Linux): every process started in the host stays below it, daemons included.
The machine ends in one of four ways:

    SIGKILL             power gone; the server ends what is left
    SIGTERM             ``shutdown -h``: every process gets SIGTERM, then 3 s, and the exit status is 0
    SIGHUP              ``reboot``: the same, then the units that are enabled are started again
    end of file on 0    the server is gone: everything here is killed, so that nothing outlives it

The protocol of the socket is described in ``client.py``.
"""

from __future__ import annotations

import contextlib
import ctypes
import email
import gzip
import json
import os
import queue
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

HEADER = struct.Struct("!cI")
PR_SET_CHILD_SUBREAPER = 36
SHUTDOWN_GRACE_SECONDS = 3.0
BOOTHOOK = b"#cloud-boothook"
DRAIN_SECONDS = 0.1  # a daemon may keep a command's pipe open; its output is not the command's


class Sessions:
    """The processes started here, and how they ended. Only the main thread collects children."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # the main thread's signal handlers collect children as well
        self._started = threading.Condition(self._lock)
        self._ended: dict[int, queue.SimpleQueue[int]] = {}
        self.leaders: set[int] = set()

    def start(
        self, command: list[str], **options: Any
    ) -> tuple[subprocess.Popen[bytes], queue.SimpleQueue[int]]:
        """Start ``command`` in a session of its own; its exit status will come through the queue."""
        with self._lock:
            process = subprocess.Popen(command, start_new_session=True, **options)
            ended = self._ended[process.pid] = queue.SimpleQueue()
            self.leaders.add(process.pid)
            self._started.notify()
        return process, ended

    def collect_forever(self) -> None:
        while True:
            try:
                pid, status = os.wait()
            except ChildProcessError:
                with self._lock:
                    if not self._ended:
                        self._started.wait()
                continue
            self.collect(pid, status)

    def collect(self, pid: int, status: int) -> None:
        """Pass the status on to whoever waits for ``pid``, if it is a command and not some orphan."""
        with self._lock:
            self.leaders.discard(pid)
            ended = self._ended.pop(pid, None)
        if ended is not None:
            ended.put(_shell_status(status))

    def collect_one(self) -> bool:
        """Collect a dead child if there is one; False if there is no child at all."""
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False
        if pid:
            self.collect(pid, status)
        return True


class Command:
    """One command of one connection."""

    def __init__(self, connection: socket.socket, sessions: Sessions, spec: dict[str, Any]) -> None:
        self._connection, self._sessions, self._spec = connection, sessions, spec
        self._sending = threading.Lock()
        self._input: queue.SimpleQueue[bytes] = queue.SimpleQueue()  # unbounded: the sender must never block

    def serve(self) -> None:
        kind, payload = self._receive()
        if kind != b"R":
            return
        request = json.loads(payload)
        try:
            process, ended = self._sessions.start(
                [self._spec["shell"], "-c", request["command"]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=self._spec["home"],
                env={**self._spec["env"], **request["env"]},
            )
        except (OSError, ValueError) as error:
            self._send(b"F", json.dumps({"error": f"cannot start a command: {error}"}).encode())
            return
        for target in (self._listen, self._feed):
            threading.Thread(target=target, args=(process,), daemon=True).start()
        process.returncode = self._pump(process, ended)
        for stream in (process.stdout, process.stderr):
            stream.close()  # type: ignore[union-attr]
        self._input.put(b"")
        self._send(b"X", json.dumps({"status": process.returncode}).encode())

    def _pump(self, process: subprocess.Popen[bytes], ended: queue.SimpleQueue[int]) -> int:
        """Pass the output on until the command has ended and its output has been read."""
        streams = {process.stdout.fileno(): b"O", process.stderr.fileno(): b"E"}  # type: ignore[union-attr]
        status: int | None = None
        while streams:
            ready, _, _ = select.select(list(streams), [], [], 0.02 if status is None else DRAIN_SECONDS)
            for descriptor in ready:
                data = os.read(descriptor, 65536)
                if data:
                    self._send(streams[descriptor], data)
                else:
                    del streams[descriptor]
            if status is None:
                with contextlib.suppress(queue.Empty):
                    status = ended.get_nowait()
            elif not ready:
                break
        return ended.get() if status is None else status

    def _feed(self, process: subprocess.Popen[bytes]) -> None:
        with contextlib.suppress(BrokenPipeError, ValueError):
            while data := self._input.get():
                process.stdin.write(data)  # type: ignore[union-attr]
                process.stdin.flush()  # type: ignore[union-attr]
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()  # type: ignore[union-attr]

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        """Input, the order to stop, or the end of the connection, which stops the command as well."""
        while True:
            kind, payload = self._receive()
            if kind == b"I":
                self._input.put(payload)
            else:
                break
        self._input.put(b"")
        if process.returncode is None:
            self._stop(process.pid)

    def _stop(self, leader: int) -> None:
        for number, seconds in ((signal.SIGTERM, 1.0), (signal.SIGKILL, 0.0)):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(leader, number)
            deadline = time.monotonic() + seconds
            while leader in self._sessions.leaders and time.monotonic() < deadline:
                time.sleep(0.01)

    def _receive(self) -> tuple[bytes, bytes]:
        header = self._read(HEADER.size)
        if not header:
            return b"", b""
        kind, length = HEADER.unpack(header)
        return kind, self._read(length)

    def _read(self, size: int) -> bytes:
        received = b""
        while len(received) < size:
            try:
                chunk = self._connection.recv(size - len(received))
            except OSError:
                return b""
            if not chunk:
                return b""
            received += chunk
        return received

    def _send(self, kind: bytes, payload: bytes) -> None:
        # the caller may be gone; the command's output is read all the same
        with self._sending, contextlib.suppress(OSError):
            self._connection.sendall(HEADER.pack(kind, len(payload)) + payload)


class Init:
    """The machine: its boot, its end, and the socket on which it is given commands."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec, self.sessions = spec, Sessions()
        self.root = Path(spec["root"])

    def run(self) -> None:
        become_subreaper()
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(self.spec["socket"])
        listener.listen(64)
        (self.root / "run/init.pid").write_text(f"{os.getpid()}\n")
        signal.signal(signal.SIGTERM, lambda *_: self.shut_down())
        signal.signal(signal.SIGHUP, lambda *_: self.reboot())
        for target, arguments in ((self.accept, (listener,)), (self.watch_server, ()), (self.boot, ())):
            threading.Thread(target=target, args=arguments, daemon=True).start()
        self.sessions.collect_forever()

    def accept(self, listener: socket.socket) -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with connection:
            Command(connection, self.sessions, self.spec).serve()

    def boot(self) -> None:
        """What cloud-init and systemd do: boothooks and enabled units at each boot, scripts at the first."""
        log = (self.root / "var/log/cloud-init-output.log").open("ab")
        options = {"cwd": self.spec["home"], "env": self.spec["env"], "stdin": subprocess.DEVNULL}
        finished = self.root / "var/lib/cloud/instance/boot-finished"
        with log:
            for number, (is_boothook, text) in enumerate(self.scripts(), start=1):
                if is_boothook or not finished.exists():
                    program = self.root / f"var/lib/cloud/instance/scripts/part-{number:03}"
                    program.parent.mkdir(parents=True, exist_ok=True)
                    program.write_bytes(text)
                    program.chmod(0o700)
                    _, ended = self.sessions.start([str(program)], stdout=log, stderr=log, **options)
                    ended.get()
            finished.touch()
            if any((self.root / "etc/systemd/system").glob("*.wants/*")):
                units = [str(self.root / "bin/systemctl"), "start-enabled"]
                self.sessions.start(units, stdout=log, stderr=log, **options)[1].get()

    def scripts(self) -> list[tuple[bool, bytes]]:
        """The boothooks and scripts of the user data, and which they are; its cloud-config is passed over."""
        file = self.root / "var/lib/cloud/instance/user-data.txt"
        data = file.read_bytes() if file.exists() else b""
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
        parts = [("text/plain", data)]
        if data.lower().startswith((b"mime-version:", b"content-type:")):
            walked = [one for one in email.message_from_bytes(data).walk() if not one.is_multipart()]
            parts = [(one.get_content_type(), bytes(one.get_payload(decode=True))) for one in walked]
        found = []
        for kind, text in parts:
            is_boothook = kind == "text/cloud-boothook" or text.startswith(BOOTHOOK)
            script = text.removeprefix(BOOTHOOK).lstrip()
            if script.startswith(b"#!"):
                found.append((is_boothook, script))
        return sorted(found, key=lambda one: not one[0])

    def shut_down(self) -> None:
        self.end_sessions()
        os._exit(0)

    def reboot(self) -> None:
        self.end_sessions()
        threading.Thread(target=self.boot, daemon=True).start()

    def end_sessions(self) -> None:
        """SIGTERM to all, time to end, SIGKILL. Runs in the main thread, so it collects the children."""
        signal_all(signal.SIGTERM)
        deadline = time.monotonic() + SHUTDOWN_GRACE_SECONDS
        while time.monotonic() < deadline and self.sessions.collect_one():
            time.sleep(0.02)
        while self.sessions.collect_one():
            signal_all(signal.SIGKILL)
            time.sleep(0.01)

    def watch_server(self) -> None:
        """The server holds the other end of standard input: its end is the end of this machine."""
        while os.read(0, 4096):
            pass
        for _ in range(100):  # again and again: a process may fork while it is being looked for
            if not signal_all(signal.SIGKILL):
                break
            time.sleep(0.02)
        os._exit(1)


def become_subreaper() -> None:
    """Orphans come to this process instead of the system's init (Linux; elsewhere their mark finds them)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def signal_all(number: int) -> bool:
    """Send a signal to every process of this host; False if there is none."""
    found = descendants(os.getpid())
    for pid in found:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
    return bool(found)


def descendants(pid: int) -> list[int]:
    """Every process below ``pid`` that still runs."""
    parents = dict(_processes())
    below = {pid}
    while more := {child for child, parent in parents.items() if parent in below} - below:
        below |= more
    return sorted(below - {pid})


def _processes() -> list[tuple[int, int]]:
    """(pid, parent) of every process that is not a zombie."""
    if not Path("/proc/self/stat").exists():
        listing = subprocess.run(
            ["ps", "-axo", "pid=,ppid=,stat="], capture_output=True, text=True, check=False
        )
        rows = [line.split() for line in listing.stdout.splitlines()]
        return [(int(pid), int(parent)) for pid, parent, state in rows if "Z" not in state]
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, parent = Path(entry.path, "stat").read_text().rpartition(")")[2].split()[:2]
                if state != "Z":
                    found.append((int(entry.name), int(parent)))
    return found


def _shell_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    Init(json.loads(Path(sys.argv[1]).read_text())).run()
