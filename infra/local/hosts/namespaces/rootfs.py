"""The root file system of a new host: this machine's system and this process's environment stand for an AMI.

A host sees /usr, /etc and /var of this machine (copied on write, nothing comes back), none of its homes,
sockets, logs or other folders, and, read-only, the Python environment and the Java that the launching machine
runs with.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.local.hosts.namespaces.commands import find, run

#: top-level folders of this machine that a host sees
SHARED_FOLDERS = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "var")
#: folders a host has of its own, empty at first: path -> mode
OWN_FOLDERS = {
    "dev": 0o755, "proc": 0o755, "sys": 0o755, "run": 0o755, "boot": 0o755, "home": 0o755, "media": 0o755,
    "mnt": 0o755, "opt": 0o755, "root": 0o711, "srv": 0o755, "tmp": 0o1777,
    "etc/ssh": 0o755, "etc/ssl/private": 0o700, "etc/letsencrypt": 0o755, "etc/sudoers.d": 0o755,
    "etc/systemd/system": 0o755, "etc/cron.d": 0o755, "var/backups": 0o755, "var/cache/ldconfig": 0o700,
    "var/lib/cloud": 0o755, "var/lib/containers": 0o755, "var/lib/docker": 0o755, "var/log": 0o755,
    "var/mail": 0o755, "var/spool": 0o755, "var/tmp": 0o1777,
}  # fmt: skip
#: of one instance alone: left out where a host starts from another's disk
PER_INSTANCE = ("var/lib/cloud/instance",)
MOUNTED_AT = "/opt/sparknet-image"  # where hosts find what has no place of its own
USER, USER_ID = "ubuntu", 1000
PROGRAMS = "usr/local/lib/sparknet-host"
STAND_INS = {
    "systemctl": "units.py",
    "shutdown": "power.py",
    "reboot": "power.py",
    "poweroff": "power.py",
    "halt": "power.py",
}
CLOUD_INIT = """#!/bin/sh
# status [--wait]: done once the user data has been carried out
[ "$1" = status ] || { echo "cloud-init $1 is not known here" >&2; exit 2; }
if [ "$2" = --wait ]; then
    while [ ! -e /var/lib/cloud/instance/boot-finished ]; do sleep 0.1; done
fi
if [ -e /var/lib/cloud/instance/boot-finished ]; then echo "status: done"; else echo "status: running"; fi
"""
SSHD_CONFIG = """Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin no
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
MaxStartups 100:30:200
MaxSessions 100
AcceptEnv LANG LC_*
Subsystem sftp internal-sftp
SetEnv {environment}
"""


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of a new host; without ``text`` a folder. ``path`` is relative to its root."""

    path: str
    text: str | None
    mode: int = 0o644
    owner: int = 0


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What makes one host differ from the others."""

    hostname: str
    private_address: str
    public_key: str
    user_data: bytes | None
    environment: Mapping[str, str]  # of every login


DATA_VARIABLE = "SPARKNET_DATA"  # the folder of data sets, which submit tells to the programs it starts


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What of this machine hosts are given: mounts (source, target), links (name, target), a Python."""

    binds: tuple[tuple[str, str], ...]
    links: Mapping[str, str]
    python: str

    @classmethod
    def of_this_process(cls) -> Environment:
        mounts = _Mounts()
        mounts.put("opt/sparknet/venv", Path(sys.prefix), "venv")
        for step in _chain(Path(sys.prefix) / "bin/python"):
            mounts.show(step.parent.parent)
        java = _java_home()
        if java is not None:
            mounts.put("opt/sparknet/java", java, "java")
        data = os.environ.get(DATA_VARIABLE)
        if data and Path(data).is_dir():  # as on a shared disk: nothing can be downloaded on a host
            mounts.show(Path(data).absolute())
        python = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
        mounts.links[f"{MOUNTED_AT}/python".lstrip("/")] = str(python)
        return cls(binds=tuple(mounts.binds.items()), links=mounts.links, python=str(python))


class _Mounts:
    """Collects folders, each once; those that hosts see anyway need no mount."""

    def __init__(self) -> None:
        self.binds: dict[str, str] = {}
        self.links: dict[str, str] = {}

    def put(self, link: str, folder: Path, name: str) -> None:
        """``link`` leads to ``folder``."""
        target = str(folder) if _is_shared(folder) else f"{MOUNTED_AT}/{name}"
        if not _is_shared(folder):
            self.binds[str(folder)] = target
        self.links[link] = target

    def show(self, folder: Path) -> None:
        """``folder`` is there under its own name, unless it is part of what is given already."""
        is_mounted = any(folder.is_relative_to(source) for source in self.binds)
        if not _is_shared(folder) and not is_mounted:
            self.binds[str(folder)] = str(folder)


def files(identity: Identity) -> list[dict[str, object]]:
    """All files of a new host, for ``boot.py``. Raises CommandError."""
    home = f"home/{USER}"
    own = [
        File(path="etc/hostname", text=f"{identity.hostname}\n"),
        File(path="etc/hosts", text=f"127.0.0.1 localhost\n{identity.private_address} {identity.hostname}\n"),
        File(path="etc/resolv.conf", text="# no name server: nothing outside this network is reached\n"),
        File(path="etc/machine-id", text=f"{os.urandom(16).hex()}\n"),
        File(path="etc/fstab", text=""),
        File(path="etc/environment", text=""),
        *_accounts(),
        File(path=f"etc/sudoers.d/90-{USER}", text=f"{USER} ALL=(ALL) NOPASSWD:ALL\n", mode=0o440),
        *_host_keys(),
        File(path="etc/ssh/sshd_config", text=SSHD_CONFIG.format(environment=_set_env(identity.environment))),
        File(path=home, text=None, mode=0o750, owner=USER_ID),
        File(path=f"{home}/.ssh", text=None, mode=0o700, owner=USER_ID),
        File(path=f"{home}/.ssh/authorized_keys", text=f"{identity.public_key}\n", mode=0o600, owner=USER_ID),
        *_skeleton(home),
        *_programs(),
        File(path="var/log/stand-ins.log", text="", mode=0o666),
        File(path="var/lib/cloud/instance", text=None, mode=0o755),
        File(path="opt/sparknet", text=None, mode=0o755),
    ]
    if identity.user_data is not None:
        text = identity.user_data.decode("utf-8", "surrogateescape")
        own.append(File(path="var/lib/cloud/instance/user-data.txt", text=text, mode=0o600))
    return [asdict(file) for file in own]


def _accounts() -> list[File]:
    """This machine's accounts without their passwords, and the login user, whose number nobody else has."""
    lines = [line.split(":") for line in Path("/etc/passwd").read_text().splitlines()]
    groups = [line.split(":") for line in Path("/etc/group").read_text().splitlines()]
    users = [line for line in lines if line[0] != USER and line[2] != str(USER_ID)]
    users.append([USER, "x", str(USER_ID), str(USER_ID), "Ubuntu", f"/home/{USER}", "/bin/bash"])
    groups = [line for line in groups if line[0] != USER and line[2] != str(USER_ID)]
    groups.append([USER, "x", str(USER_ID), ""])
    if not any(line[0] == "sshd" for line in users):
        users.append(["sshd", "x", "105", "65534", "", "/run/sshd", "/usr/sbin/nologin"])
    shadow = [f"{line[0]}:*:19000:0:99999:7:::" for line in users]
    return [
        File(path="etc/passwd", text=_lines(":".join(line) for line in users)),
        File(path="etc/group", text=_lines(":".join(line) for line in groups)),
        File(path="etc/shadow", text=_lines(shadow), mode=0o640),
        File(path="etc/gshadow", text=_lines(f"{line[0]}:*::" for line in groups), mode=0o640),
    ]


def _host_keys() -> list[File]:
    with tempfile.TemporaryDirectory(prefix="sparknet-key-") as folder:
        key = Path(folder) / "key"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(key))
        name = "etc/ssh/ssh_host_ed25519_key"
        return [
            File(path=name, text=key.read_text(), mode=0o600),
            File(path=f"{name}.pub", text=key.with_suffix(".pub").read_text()),
        ]


def _skeleton(home: str) -> list[File]:
    found = [path for path in Path("/etc/skel").glob(".*") if path.is_file()]
    return [File(path=f"{home}/{path.name}", text=path.read_text(), owner=USER_ID) for path in found]


def _programs() -> list[File]:
    here = Path(__file__).parent
    stand_ins = here.parent / "stand_ins"
    own = [
        File(path=f"{PROGRAMS}/{name}", text=(here / name).read_text())
        for name in ("init.py", "cloudinit.py")
    ]
    own += [File(path="usr/local/bin/cloud-init", text=CLOUD_INIT, mode=0o755)]
    for tool, program in STAND_INS.items():
        start = f'#!/bin/sh\nexec {MOUNTED_AT}/python -I -S /{PROGRAMS}/{program} {tool} "$@"\n'
        own += [
            File(path=f"usr/local/bin/{tool}", text=start, mode=0o755),
            File(path=f"{PROGRAMS}/{program}", text=(stand_ins / program).read_text()),
        ]
    return own


def _set_env(environment: Mapping[str, str]) -> str:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return " ".join(
        f'{name}="{value}"' for name, value in {"LANG": "C.UTF-8", "PATH": path, **environment}.items()
    )


def _is_shared(path: Path) -> bool:
    return path.parts[1] in SHARED_FOLDERS if len(path.parts) > 1 else False


def _chain(path: Path) -> list[Path]:
    """``path`` and every path its links lead over."""
    found = [path]
    while found[-1].is_symlink():
        target = found[-1].readlink()
        found.append(Path(os.path.normpath(found[-1].parent / target)))
    return found


def _java_home() -> Path | None:
    named = Path(os.environ.get("JAVA_HOME") or "/nonexistent") / "bin/java"
    java = str(named) if named.exists() else shutil.which("java") or find("java")
    return Path(java).resolve().parent.parent if java else None


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
