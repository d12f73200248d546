"""Slow links on one machine: a network namespace for each worker, a link from each to that of the driver.

    driver's namespace  10.9.255.1 (lo)     forwards between the links
        │ w0  10.9.0.1                  │ w1  10.9.1.1
        │ tbf: the rate down            │
      [relay: the delay, both ways]   [relay]
        │ tbf: the rate up              │
        │ uplink  10.9.0.2              │ uplink  10.9.1.2
    worker 0's namespace            worker 1's namespace

Each direction of each link has the rate to itself. Where there is a delay the ends are TUN devices, and a
process passes packets from one to the other when they are due (netem is missing in many kernels); without one
they are a veth pair. Needs root. All of it ends with the processes in it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import struct
import subprocess
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.bench.forked import as_child

DRIVER = "10.9.255.1"

_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
# Bytes that may pass at once, and how long packets may queue before they are dropped.
_BURST, _QUEUE = "16kb", "4s"
_PACKET = 65_536
UPLINK = "uplink"


@dataclass(frozen=True, kw_only=True)
class Link:
    """``mbit`` Mbit/s each way, None for no limit; ``delay_ms`` from one end to the other, one way."""

    mbit: float | None = None
    delay_ms: float = 0.0

    def __str__(self) -> str:
        rate = "no limit" if self.mbit is None else f"{self.mbit:g} Mbit/s"
        return f"{rate}, {2 * self.delay_ms:g} ms round trip"


class Network:
    """The driver's namespace, which the calling process enters for good."""

    def __init__(self, link: Link) -> None:
        self.link = link
        _unshare()
        _ip("link", "set", "lo", "up")
        _ip("address", "add", f"{DRIVER}/32", "dev", "lo")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")

    def fork(self, number: int, work: Callable[[], None]) -> list[int]:
        """Run ``work`` in a process at the other end of link ``number``; it and its relay, by their ids."""
        here, there = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            here.close()
            as_child(lambda: self.at_the_other_end(number, there, work))
        there.close()
        name, relays = f"w{number}", []
        here.recv(1)  # it has its namespace
        if self.link.delay_ms:
            mine = _tun(name)
            _, (theirs,), _, _ = socket.recv_fds(here, 1, 1)
            relays.append(_forked_relay(mine, theirs, self.link.delay_ms / 1e3))
            os.close(mine)
            os.close(theirs)
        else:
            _ip("link", "add", name, "type", "veth", "peer", "name", UPLINK, "netns", str(pid))
        self.set_up(name, f"10.9.{number}.1", f"10.9.{number}.2")
        here.send(b"+")
        here.close()
        return [pid, *relays]

    def at_the_other_end(self, number: int, parent: socket.socket, work: Callable[[], None]) -> None:
        _unshare()
        _ip("link", "set", "lo", "up")
        parent.send(b"+")
        if self.link.delay_ms:
            device = _tun(UPLINK)
            socket.send_fds(parent, [b"+"], [device])
            os.close(device)
        parent.recv(1)  # both ends are there
        self.set_up(UPLINK, f"10.9.{number}.2", f"10.9.{number}.1")
        _ip("route", "add", "default", "via", f"10.9.{number}.1")
        work()

    def set_up(self, device: str, own: str, peer: str) -> None:
        _ip("address", "add", own, "peer", peer, "dev", device)
        _ip("link", "set", device, "up")
        if self.link.mbit is not None:
            limit = ("rate", f"{self.link.mbit:g}mbit", "burst", _BURST, "latency", _QUEUE)
            if self.link.mbit > 200:
                limit = ("rate", f"{self.link.mbit:g}mbit", "burst", "1mb", "latency", _QUEUE)
            _run("tc", "qdisc", "replace", "dev", device, "root", "tbf", *limit)


def congestion() -> str:
    """The algorithm of congestion control that sockets have here: cubic, bbr ..."""
    with socket.socket() as one:
        name = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return name.rstrip(b"\0").decode()


def relay(one: int, other: int, delay_seconds: float) -> None:
    """Pass packets between two TUN devices, each so long after it came."""
    ways = {one: (other, deque[tuple[float, bytes]]()), other: (one, deque[tuple[float, bytes]]())}
    while True:
        dues = [waiting[0][0] for _, waiting in ways.values() if waiting]
        wait = max(0.0, min(dues) - time.monotonic()) if dues else None
        ready, _, _ = select.select(list(ways), [], [], wait)
        for device in ready:
            ways[device][1].append((time.monotonic() + delay_seconds, os.read(device, _PACKET)))
        now = time.monotonic()
        for target, waiting in ways.values():
            while waiting and waiting[0][0] <= now:
                with suppress(OSError):  # the other end is not up yet: packets to it are lost
                    os.write(target, waiting.popleft()[1])


def _forked_relay(mine: int, theirs: int, delay_seconds: float) -> int:
    pid = os.fork()
    if pid == 0:
        as_child(lambda: relay(mine, theirs, delay_seconds))
    return pid


def _tun(name: str) -> int:
    """A TUN device in the namespace of this process, as a file."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"a network namespace could not be made: {os.strerror(number)}; it needs root")


def _ip(*arguments: str) -> None:
    _run("ip", *arguments)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
