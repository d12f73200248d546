"""Init: PID 1 of a host: starts what a server has, collects orphans, shuts down. Standard library only.

Standard input is a pipe from the server: a line on it says that the disks are there, its end that the server
is gone, and the host ends with it. SIGTERM shuts down (status 0), SIGHUP asks for another boot (status 64).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

REBOOT_STATUS = 64
GRACE_SECONDS = 8.0  # Spark's daemons and a checkpoint; EC2 gives minutes
RESTART_SECONDS = 0.5
SSHD = ["/usr/sbin/sshd", "-D", "-E", "/var/log/auth.log"]
SYSTEMCTL = "/usr/local/bin/systemctl"
PROGRAMS = Path(__file__).parent
PYTHON = "/opt/sparknet/venv/bin/python"


def main() -> None:
    server_pipe = os.dup(0)
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(2, 1)
    Path("/run/init.pid").write_text("1\n")
    signal.signal(signal.SIGTERM, lambda *_: shut_down(0))
    signal.signal(signal.SIGHUP, lambda *_: shut_down(REBOOT_STATUS))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if not os.read(server_pipe, 3):
        os._exit(1)  # the server went away during the boot
    show_host_key()
    if os.fork() == 0:
        os.close(server_pipe)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        boot()
        os._exit(0)
    os.set_inheritable(server_pipe, False)
    threading.Thread(target=watch, args=(server_pipe,), daemon=True).start()
    supervise()


def show_host_key() -> None:
    """On the console, as cloud-init does: GetConsoleOutput gives it to whoever checks it."""
    key = Path("/etc/ssh/ssh_host_ed25519_key.pub").read_bytes()
    os.write(2, b"-----BEGIN SSH HOST KEY KEYS-----\n" + key + b"-----END SSH HOST KEY KEYS-----\n")


def supervise() -> None:
    """Keep sshd running and collect whatever ends."""
    sshd = start_sshd()
    while True:
        pid, _ = os.waitpid(-1, 0)
        if pid == sshd:
            time.sleep(RESTART_SECONDS)
            sshd = start_sshd()


def start_sshd() -> int:
    return os.posix_spawn(SSHD[0], SSHD, os.environ, setsid=True, setsigdef=[signal.SIGINT])


def boot() -> None:
    """File systems, units that are enabled, then the user data: the order of systemd and cloud-init."""
    with Path("/var/log/boot.log").open("ab") as log:
        for command in (
            ["mount", "-a"],
            [SYSTEMCTL, "start-enabled"],
            [PYTHON, "-I", str(PROGRAMS / "cloudinit.py")],
        ):
            with contextlib.suppress(OSError):
                subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False)


def watch(server_pipe: int) -> None:
    """The pipe ends when the server does. The end of PID 1 ends all processes of the host."""
    while os.read(server_pipe, 4096):
        pass
    os._exit(1)


def shut_down(status: int) -> None:
    """SIGTERM to all, time to end, SIGKILL, and the file systems unmounted in order."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while time.monotonic() < deadline and collect():
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    while collect():
        time.sleep(0.01)
    unmount()
    os._exit(status)


def collect() -> bool:
    """Collect those that have ended; False if there is no process left."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
        return True
    return False


def unmount() -> None:
    libc = ctypes.CDLL(None)
    mounted = [line.split()[:2] for line in Path("/proc/mounts").read_text().splitlines()]
    for source, target in reversed(mounted):
        if source.startswith("/dev/nvme"):
            libc.umount2(target.encode().decode("unicode_escape").encode(), 0)


if __name__ == "__main__":
    main()
