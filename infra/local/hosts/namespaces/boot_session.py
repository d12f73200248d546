"""BootSession: a host from one boot to its next end, as a process of the server."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.errors import last_lines
from infra.local.hosts.namespaces.commands import CommandError
from infra.local.hosts.namespaces.disks import Disk

BOOT = Path(__file__).with_name("boot.py")
READY_SECONDS = 30.0
ORDERLY_SECONDS = 20.0
LISTENING = "0A"
SSH_PORT = "0016"
DISK_GROUP = 6


class BootSession:
    """Starts the boot loader. Raises CommandError, with the console's end, if it does not come up."""

    def __init__(
        self, specification: Mapping[str, Any], folder: Path, environment: Mapping[str, str]
    ) -> None:
        self.port = str(specification["network"]["port"])  # of the hosts' bridge
        self._console = folder / "console.log"
        file = folder / "boot.json"
        file.touch(mode=0o600)
        file.write_text(json.dumps(specification))
        with self._console.open("ab") as console:
            self._loader = subprocess.Popen(
                [sys.executable, "-I", "-S", str(BOOT), str(file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=console,
                cwd="/",
                env=dict(environment),
                start_new_session=True,
            )
        self._init = 0
        try:
            self._wait_until_ready()
        except CommandError:
            self.end()
            raise

    @property
    def pid(self) -> int:
        """A process that sees the host's network and files."""
        return self._loader.pid

    @property
    def exit_status(self) -> int | None:
        return self._loader.poll()

    @property
    def answers(self) -> bool:
        """True while sshd listens."""
        if self.exit_status is not None:
            return False
        try:
            table = Path(f"/proc/{self.pid}/net/tcp").read_text().splitlines()[1:]
        except OSError:
            return False
        rows = [line.split() for line in table]
        return any(row[1].endswith(f":{SSH_PORT}") and row[3] == LISTENING for row in rows)

    def show(self, disk: Disk) -> None:
        """The disk's node, its links, and what lsblk reads of it."""
        root = Path(f"/proc/{self.pid}/root")
        node = root / "dev" / disk.name
        os.mknod(node, stat.S_IFBLK | 0o660, disk.number)
        os.chown(node, 0, DISK_GROUP)
        for link in disk.links:
            (root / "dev/disk/by-id" / link).symlink_to(f"../../{disk.name}")
        for name, text in disk.attributes.items():
            path = root / "sys/block" / disk.name / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
        number = f"{os.major(disk.number)}:{os.minor(disk.number)}"
        (root / "sys/dev/block" / number).symlink_to(f"../../block/{disk.name}")

    def hide(self, disk: Disk) -> None:
        root = Path(f"/proc/{self.pid}/root")
        number = f"{os.major(disk.number)}:{os.minor(disk.number)}"
        for link in (
            *(f"dev/disk/by-id/{link}" for link in disk.links),
            f"dev/{disk.name}",
            f"sys/dev/block/{number}",
        ):
            (root / link).unlink(missing_ok=True)
        shutil.rmtree(root / "sys/block" / disk.name, ignore_errors=True)

    def start_services(self) -> None:
        """Its disks are there: let it start what is enabled."""
        assert self._loader.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._loader.stdin.write(b"go\n")
            self._loader.stdin.flush()

    def flush(self) -> None:
        """Write to its root disk what is still only in memory. Raises OSError."""
        descriptor = os.open(f"/proc/{self.pid}/root", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, f"the host's files cannot be flushed: {os.strerror(number)}")
        finally:
            os.close(descriptor)

    def reboot(self) -> None:
        self._signal(signal.SIGHUP)

    def wait(self) -> int:
        """The status it ended with: 0 shut down from inside, 64 to boot again, any other died."""
        return self._loader.wait()

    def end(self, *, orderly: bool = False) -> None:
        """End all of its processes; with them go its network, its mounts and its namespaces."""
        if orderly and self._loader.poll() is None:
            self._signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._loader.wait(ORDERLY_SECONDS)
        self._signal(signal.SIGKILL)  # the kernel ends everything in the namespace with its init
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._loader.wait(ORDERLY_SECONDS if self._init else 0.1)
        self._loader.kill()
        self._loader.wait()
        for stream in (self._loader.stdin, self._loader.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]

    def _signal(self, number: int) -> None:
        # while the loader runs it waits for init, whose number is still its own
        if self._init and self._loader.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._init, number)

    def _wait_until_ready(self) -> None:
        assert self._loader.stdout is not None
        said, deadline = b"", time.monotonic() + READY_SECONDS
        while b"ready\n" not in said or b"pid " not in said:
            ready, _, _ = select.select([self._loader.stdout], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self._loader.stdout.fileno(), 4096) if ready else b""
            said += chunk
            if b"pid " in said and not self._init:
                self._init = int(said.partition(b"pid ")[2].split()[0])
            if not chunk:
                why = "ended" if ready else f"did not come up within {READY_SECONDS:g} s"
                console = last_lines(self._console.read_text(errors="replace"))
                raise CommandError(f"the host's boot {why}; the end of its console:\n{console}")
