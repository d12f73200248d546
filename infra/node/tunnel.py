"""Tunnel: ports of this machine's loopback that lead to those a node can reach, by the ssh client."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from infra.errors import HostUnreachable, UsageError
from infra.interrupts import interrupts_held
from infra.node.ssh import SSHHost

LOOPBACK = "127.0.0.1"
OPEN_SECONDS = 30.0
END_SECONDS = 5.0
POLL_SECONDS = 0.1

Client = subprocess.Popen[bytes]


@contextmanager
def tunnel(host: SSHHost, ways: Mapping[int, str]) -> Iterator[Client]:
    """While it is open, each port of this machine leads to the address:port that ``ways`` has for it.

    The client ends when the connection is lost. Raises HostUnreachable if it cannot be opened.
    """
    with tempfile.TemporaryFile() as said:
        with interrupts_held():
            client = subprocess.Popen(
                host.forward_command(ways), stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        try:
            _wait_until_open(host, client, list(ways))
            if client.poll() is not None:
                said.seek(0)
                last = (said.read().decode(errors="replace").strip().splitlines() or ["no word of ssh"])[-1]
                raise HostUnreachable(host.name, f"its ports cannot be led here ({last})")
            yield client
        finally:
            client.terminate()
            try:
                client.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                client.kill()
                client.wait()


def free_port(wanted: int) -> int:
    """``wanted``, or any. Raises UsageError if something listens there."""
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, wanted))
        except OSError:
            raise UsageError(f"Port {wanted} of this machine is taken; say another --port.") from None
        return int(probe.getsockname()[1])


def _wait_until_open(host: SSHHost, client: Client, ports: list[int]) -> None:
    """Until all ``ports`` are, or the client has ended."""
    deadline = time.monotonic() + OPEN_SECONDS
    while ports and client.poll() is None:
        try:
            socket.create_connection((LOOPBACK, ports[0]), timeout=1).close()
            ports.pop(0)
        except OSError:
            if time.monotonic() > deadline:
                raise HostUnreachable(
                    host.name, f"its ports were not led here in {OPEN_SECONDS:g} s"
                ) from None
            time.sleep(POLL_SECONDS)
