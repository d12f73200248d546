"""Addresses: private ones are loopback addresses of this machine, public ones are kept for documentation.

Each region of each cloud takes a block 127.n.0.0/16 for itself, which becomes the default VPC; an instance's
private address is one of it. So daemons of different nodes can use the same port, and two clouds never meet.
A socket bound to 127.n.0.1 keeps the block for as long as the server lives. Public addresses are of RFC 5737
and RFC 2544: nothing that uses one by mistake leaves the machine for a real host.
"""

from __future__ import annotations

import ipaddress
import itertools
import socket
import zlib
from collections.abc import Iterator

from infra.errors import SetupError

GUARD_PORT = 20127  # any port that daemons of a node do not use
FIRST_BLOCK, LAST_BLOCK = 16, 250  # 127.0.0.x and 127.0.1.1 belong to the machine
PUBLIC_NETWORKS = ("203.0.113.0/24", "198.18.0.0/15")  # the first 254 instances, and those after them


class LoopbackBlocks:
    """The blocks this server has claimed."""

    def __init__(self, name: str) -> None:
        self._start = zlib.crc32(name.encode())  # the same home gets the same block, if it is free
        self._guards: list[socket.socket] = []

    def claim(self) -> str:
        """A block that no other cloud of this machine has. Raises SetupError if there is none."""
        count = LAST_BLOCK - FIRST_BLOCK + 1
        for step in range(count):
            number = FIRST_BLOCK + (self._start + step) % count
            guard = socket.socket(socket.AF_INET)
            try:
                guard.bind((f"127.{number}.0.1", GUARD_PORT))
            except OSError:
                guard.close()
                continue
            self._guards.append(guard)
            return f"127.{number}.0.0/16"
        raise SetupError(
            "no block of loopback addresses is free: end other embedded clouds (`sparknet-ec2 local "
            "stop`); on macOS addresses other than 127.0.0.1 must first be added, for example `sudo "
            "ifconfig lo0 alias 127.16.0.1`"
        )


class PublicAddresses:
    """Public addresses in the order they are asked for; there are enough for the life of a server."""

    def __init__(self) -> None:
        self._addresses = self._endless()

    def next(self) -> str:
        return next(self._addresses)

    @staticmethod
    def _endless() -> Iterator[str]:
        networks = [ipaddress.ip_network(network).hosts() for network in PUBLIC_NETWORKS]
        return (str(address) for address in itertools.chain(*networks))
