"""Boot: the program that turns a process of this machine into PID 1 of a host. Standard library only.

``boot.py SPECIFICATION`` (JSON, written by ``boot_session.py``) makes the namespaces and the network, forks,
and stays behind to pass on how the host ended: 0 shut down, 64 wants to boot again, anything else it died.
The child mounts the host's root (an overlay over this machine's ``/``, kept on the host's own disk),
gives it its files if it is new, and becomes ``init.py``. What both say on standard output is the
server's cue to show the host its disks.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWTIME = (
    0x20000, 0x4000000, 0x8000000, 0x20000000, 0x40000000, 0x80,
)  # fmt: skip
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = (
    1, 2, 4, 8, 32, 4096, 16384, 1 << 18,
)  # fmt: skip
MNT_DETACH = 2
PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
PR_SET_PDEATHSIG, PR_CAPBSET_DROP = 1, 24
REBOOT_STATUS = 64
#: a host's root may do what a machine's root may, but not to this machine's clock, kernel or disks
DROPPED_CAPABILITIES = {
    "SYS_MODULE": 16, "SYS_RAWIO": 17, "SYS_PACCT": 20, "SYS_TIME": 25, "MKNOD": 27, "AUDIT_CONTROL": 30,
    "MAC_OVERRIDE": 32, "MAC_ADMIN": 33, "SYSLOG": 34, "WAKE_ALARM": 35, "PERFMON": 38, "BPF": 39,
}  # fmt: skip
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
DEVICE_LINKS = {
    "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
}  # fmt: skip
ATTEMPTS, PAUSE_SECONDS = 100, 0.05  # the disk is busy until the kernel has unmounted it from the boot before

libc = ctypes.CDLL(None, use_errno=True)


def main(specification: dict[str, Any]) -> None:
    os.umask(0o022)
    check(libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET), "unshare")
    connect(specification["network"])
    start_clock()
    check(libc.unshare(CLONE_NEWPID), "unshare")  # last: the next process to be started is PID 1
    init = os.fork()
    if init:
        os.write(1, f"pid {init}\n".encode())
        os.close(0)  # the pipe from the server is the child's alone
        os.close(1)
        sys.exit(wait(init))
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.sethostname(*encoded(specification["hostname"]))
    root = mount_root(specification)
    mount_kernel(root)
    mount_environment(root, specification["binds"])
    pivot(root)
    for capability in DROPPED_CAPABILITIES.values():
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    os.write(1, b"ready\n")
    command = specification["init"]
    os.execve(command[0], command, specification["environment"])


def start_clock() -> None:
    """The host's uptime begins now, where the kernel has namespaces of time."""
    if libc.unshare(CLONE_NEWTIME) == 0:
        past = int(time.clock_gettime(time.CLOCK_BOOTTIME))
        Path("/proc/self/timens_offsets").write_text(f"boottime -{past} 0\n")


def connect(network: dict[str, Any]) -> None:
    """eth0, whose other end is a port of the hosts' bridge. IPv4 only, as in a default VPC."""
    for scope in ("all", "default"):
        setting = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
        if setting.exists():
            setting.write_text("1")
    command(
        [network["ip"], "-batch", "-"],
        f"link add eth0 address {network['mac']} type veth "
        f"peer name {network['port']} netns {network['holder']}\n"
        f"link set lo up\naddr add {network['address']} broadcast + dev eth0\nlink set eth0 up\n"
        f"route add default via {network['router']}\n",
    )
    command(
        [network["nsenter"], "--net", f"--target={network['holder']}", "--", network["ip"], "-batch", "-"],
        f"link set {network['port']} master {network['bridge']} up\n",
    )


def mount_root(specification: dict[str, Any]) -> Path:
    """The overlay, with this machine's own folders hidden and the host's own files in place."""
    disk = Path(specification["mount_point"])
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount(specification["root_device"], str(disk), "ext4", 0)
    upper, work, root = (disk / name for name in ("upper", "work", "root"))
    is_new = not upper.exists()
    for folder in (upper, work, root):
        folder.mkdir(exist_ok=True)
    if is_new:
        hide_folders(upper, specification["shared_folders"], specification["own_folders"])
    mount("overlay", str(root), "overlay", 0, f"lowerdir=/,upperdir={upper},workdir={work}")
    if specification["files"]:  # at the first boot; an image has files of the host it was made of
        for folder in specification["per_instance"]:
            shutil.rmtree(root / folder, ignore_errors=True)
        create_files(root, specification["files"], specification["links"])
    return root


def hide_folders(upper: Path, shared: list[str], own: dict[str, int]) -> None:
    """Whiteouts for what a host must not see, opaque folders for what it must see empty."""
    for path in Path("/").iterdir():
        if path.name not in shared and path.name not in own and not path.is_symlink():
            os.mknod(upper / path.name, stat.S_IFCHR, os.makedev(0, 0))
    for name, mode in own.items():
        folder = upper / name
        folder.mkdir(parents=True)
        folder.chmod(mode)
        os.setxattr(folder, "trusted.overlay.opaque", b"y")


def create_files(root: Path, files: list[dict[str, Any]], links: dict[str, str]) -> None:
    """Files (text None makes a folder) and links of a new host; parents are made."""
    for file in files:
        path = root / file["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if file["text"] is None:
            path.mkdir(exist_ok=True)
        else:
            path.unlink(missing_ok=True)  # it may be a link to a file that is not ours to change
            path.write_text(file["text"])
        path.chmod(file["mode"])
        os.chown(path, file["owner"], file["owner"])
    for name, target in links.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(target)


def mount_kernel(root: Path) -> None:
    """/proc, /sys, /dev and /run of its own; what of the kernel all share is read-only."""
    quiet = MS_NOSUID | MS_NODEV | MS_NOEXEC
    mount("proc", f"{root}/proc", "proc", quiet)
    for path, flags in (("sys", MS_RDONLY), ("sys/net", 0), ("sysrq-trigger", MS_RDONLY)):
        if Path(f"{root}/proc/{path}").exists():
            mount(f"{root}/proc/{path}", f"{root}/proc/{path}", None, MS_BIND)
            mount("none", f"{root}/proc/{path}", None, MS_BIND | MS_REMOUNT | flags | quiet)
    mount("sysfs", f"{root}/sys", "sysfs", quiet | MS_RDONLY)
    for path in ("sys/block", "sys/dev/block"):  # only the host's own disks, put there by the server
        mount("tmpfs", f"{root}/{path}", "tmpfs", quiet, "mode=755,size=4m")
    mount("tmpfs", f"{root}/dev", "tmpfs", MS_NOSUID, "mode=755,size=4m")
    for name, (major, minor) in DEVICES.items():
        os.mknod(f"{root}/dev/{name}", stat.S_IFCHR, os.makedev(major, minor))
        (root / "dev" / name).chmod(0o666)
    for name, target in DEVICE_LINKS.items():
        (root / "dev" / name).symlink_to(target)
    for folder in ("pts", "shm", "mqueue", "disk/by-id"):
        (root / "dev" / folder).mkdir(parents=True)
    mount(
        "devpts",
        f"{root}/dev/pts",
        "devpts",
        MS_NOSUID | MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=620,gid=5",
    )
    mount("tmpfs", f"{root}/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV)
    mount("mqueue", f"{root}/dev/mqueue", "mqueue", quiet)
    mount("tmpfs", f"{root}/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    for folder in ("sshd", "lock", "user"):
        (root / "run" / folder).mkdir()


def mount_environment(root: Path, binds: list[list[str]]) -> None:
    """Folders of this machine that every host is given, read-only."""
    for source, target in binds:
        Path(f"{root}{target}").mkdir(parents=True, exist_ok=True)
        mount(source, f"{root}{target}", None, MS_BIND)
        mount("none", f"{root}{target}", None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV)


def pivot(root: Path) -> None:
    """``root`` becomes /, and what was / before is out of sight."""
    os.chdir(root)
    check(libc.syscall(PIVOT_ROOT[os.uname().machine], b".", b"mnt"), "pivot_root")
    os.chroot(".")
    os.chdir("/")
    check(libc.umount2(b"/mnt", MNT_DETACH), "umount of the old root")


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    for attempt in range(ATTEMPTS):
        words = [None if word is None else word.encode() for word in (source, target, kind, data)]
        if libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]) == 0:
            return
        number = ctypes.get_errno()
        if attempt + 1 == ATTEMPTS or number != errno.EBUSY:
            raise OSError(number, f"mount of {source} at {target}: {os.strerror(number)}")
        time.sleep(PAUSE_SECONDS)


def wait(init: int) -> int:
    """How the host ended. reboot(2) in a pid namespace ends its init by SIGHUP (restart) or SIGINT (halt)."""
    _, status = os.waitpid(init, 0)
    code = os.waitstatus_to_exitcode(status)
    return {-signal.SIGHUP: REBOOT_STATUS, -signal.SIGINT: 0}.get(code, code if code >= 0 else 128 - code)


def command(words: list[str], text: str) -> None:
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")


def check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def encoded(text: str) -> tuple[bytes, int]:
    return text.encode(), len(text.encode())


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
