"""Stand-ins: what a process host finds first on its PATH, for tools that would need a machine of their own.

Each does the equivalent on folders, below ``$SPARKNET_ROOT``, and records its call in
``$SPARKNET_ROOT/var/log/stand-ins.log``. They are programs, not modules: standard library only.
"""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent

#: name on the PATH -> the program that answers to it
TOOLS = {
    **dict.fromkeys(
        ("mkfs.ext4", "mkfs.xfs", "mount", "umount", "blkid", "lsblk", "findmnt", "mountpoint"),
        _FOLDER / "disks.py",
    ),
    **dict.fromkeys(("sudo", "nproc", "hostname"), _FOLDER / "machine.py"),
    **dict.fromkeys(("shutdown", "reboot", "poweroff"), _FOLDER / "power.py"),
    "systemctl": _FOLDER / "units.py",
}
