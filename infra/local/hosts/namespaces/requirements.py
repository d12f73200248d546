"""What a machine must have for hosts of namespaces: Linux, root and its capabilities, tools, kernel.

The last check is a trial: all that a host is made of is made once, in namespaces that end with it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from infra.local.hosts.namespaces.commands import CommandError, find, run

#: tool -> package of Debian and Ubuntu that has it
TOOLS = {
    "ip": "iproute2",
    "nft": "nftables",
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
    "sudo": "sudo",
    "mkfs.ext4": "e2fsprogs",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_CHROOT": 18, "CAP_SYS_ADMIN": 21, "CAP_MKNOD": 27}
TRIAL = """
set -e
ip link add bridge0 type bridge
ip link add veth0 type veth peer name veth1
nft add table inet trial
nft 'add chain inet trial nat { type nat hook prerouting priority dstnat; }'
nft 'add rule inet trial nat ct state established accept'
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
mknod /mnt/upper/node b 7 0
"""


def missing() -> list[str]:
    """What is not there, one sentence each; empty if namespace hosts can be made."""
    if sys.platform != "linux":
        return ["this is not Linux"]
    if os.geteuid() != 0:
        return ["this is not root"]
    found = [*_capabilities(), *_tools(), *_devices()]
    return found or _trial()


def _capabilities() -> list[str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    held = int(next(line.split()[1] for line in lines if line.startswith("CapEff:")), 16)
    lacking = [name for name, bit in CAPABILITIES.items() if not held >> bit & 1]
    return [f"root lacks {', '.join(lacking)} here (a container?)"] if lacking else []


def _tools() -> list[str]:
    lacking = [name for name in TOOLS if find(name) is None]
    packages = " ".join(dict.fromkeys(TOOLS[name] for name in lacking))
    return [f"there is no {', '.join(lacking)}: apt-get install {packages}"] if lacking else []


def _devices() -> list[str]:
    found = []
    try:
        os.close(os.open("/dev/loop-control", os.O_RDWR))
    except OSError as error:
        found.append(f"/dev/loop-control cannot be opened ({error.strerror}): modprobe loop")
    if Path("/usr").stat().st_dev != Path("/").stat().st_dev:
        found.append("/usr is a file system of its own, and hosts would not see it")
    return found


def _trial() -> list[str]:
    try:
        run("unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "sh", "-c", TRIAL)
    except CommandError as error:
        return [
            f"the kernel refuses what a host is made of ({str(error).rpartition('sh -c')[2][-300:].strip()})"
        ]
    return []
