"""Block devices made of sparse files: loop devices that end with the last process that has them open.

A loop device with LO_FLAGS_AUTOCLEAR lets go of its file when it is neither open nor mounted. The server
keeps it open while it is attached to a host; if the server is killed, there is nothing to clean up.
https://man7.org/linux/man-pages/man4/loop.4.html
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from pathlib import Path

LOOP_CONFIGURE, LOOP_CLR_FD, LOOP_SET_CAPACITY, LOOP_CTL_GET_FREE = 0x4C0A, 0x4C01, 0x4C07, 0x4C82
LOOP_SET_STATUS64, LOOP_GET_STATUS64 = 0x4C04, 0x4C05
LO_FLAGS_AUTOCLEAR = 4
SECTOR = 512
_STATUS_BYTES, _SIZE_LIMIT_AT = 232, 32  # of struct loop_info64
# struct loop_config: fd, block size, loop_info64 (its flags are at 52, then names and keys), reserved
_CONFIG = struct.Struct("=II 52x I 176x 64x")
_LOOP_MAJOR = 7
_ATTEMPTS = 64  # another process may take the free device first


class Block:
    """A sparse file of ``size_bytes`` as a block device of this machine, until ``close``."""

    def __init__(self, file: Path, size_bytes: int) -> None:
        backing = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(backing).st_size < size_bytes:
                os.ftruncate(backing, size_bytes)
            self._device, self.path = _loop(backing)
        finally:
            os.close(backing)
        self.number = Path(self.path).stat().st_rdev

    @property
    def is_open(self) -> bool:
        return self._device >= 0

    def fail_io(self) -> None:
        """Let all I/O fail from now on, for whoever has it mounted; the file stays as it is.

        The device shrinks to one sector: the kernel refuses what lies beyond a device's end with EIO.
        """
        status = bytearray(_STATUS_BYTES)
        fcntl.ioctl(self._device, LOOP_GET_STATUS64, status)
        struct.pack_into("=Q", status, _SIZE_LIMIT_AT, SECTOR)
        fcntl.ioctl(self._device, LOOP_SET_STATUS64, bytes(status))

    def close(self) -> None:
        """Let go of it; a host that has it mounted keeps it until it unmounts it or ends."""
        if self.is_open:
            os.close(self._device)
            self._device = -1


def loops_below(folder: Path) -> list[Path]:
    """Loop devices whose file lies below ``folder``."""
    found = []
    for entry in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if Path(entry.read_text().removesuffix(" (deleted)\n").strip()).is_relative_to(folder):
                found.append(Path("/dev") / entry.parts[3])
    return found


def release(device: Path) -> None:
    """Take the file from a loop device that nobody closes; at once, or when it is unmounted."""
    with contextlib.suppress(OSError):
        descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(descriptor, LOOP_CLR_FD)
        finally:
            os.close(descriptor)


def _loop(backing: int) -> tuple[int, str]:
    """A loop device over an open file: descriptor and path. Raises OSError."""
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            path = f"/dev/loop{number}"
            _ensure_node(path, number)
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, LOOP_CONFIGURE, _CONFIG.pack(backing, 0, LO_FLAGS_AUTOCLEAR))
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return device, path
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no loop device stayed free long enough to be taken")


def _ensure_node(path: str, number: int) -> None:
    """A container's /dev does not follow the kernel."""
    with contextlib.suppress(FileExistsError):
        os.mknod(path, stat.S_IFBLK | 0o600, os.makedev(_LOOP_MAJOR, number))
