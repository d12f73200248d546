"""Login: opens the ssh connection to a node; each way in which that fails has its own exception and fix."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import HostError, HostKeyChanged, HostRefused, HostRejectedLogin, HostUnreachable

CONNECT_SECONDS = 15.0
KEEPALIVE_SECONDS = 15
SILENCE_MILLISECONDS = 30_000  # what was sent and not acknowledged for so long ends the connection


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a node is, and as whom to log in there."""

    host: str
    port: int
    user: str
    key: Path
    known_hosts: Path  # the keys that nodes have shown at first contact

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def log_in(name: str, where: Address) -> Any:
    """An open ``fabric.Connection`` to the node called ``name``. Raises a HostError."""
    import fabric

    if not where.key.is_file():
        raise HostRejectedLogin(
            name, f"there is no key file {where.key}; copy it from the machine that launched the cluster"
        )
    where.known_hosts.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    where.known_hosts.touch(mode=0o600)
    connection = fabric.Connection(
        where.host,
        user=where.user,
        port=where.port,
        connect_timeout=CONNECT_SECONDS,
        connect_kwargs={
            "key_filename": str(where.key),
            "allow_agent": False,
            "look_for_keys": False,
            "banner_timeout": CONNECT_SECONDS,
            "auth_timeout": CONNECT_SECONDS,
        },
    )
    connection.client.get_host_keys().load(str(where.known_hosts))
    connection.client.set_missing_host_key_policy(_Pinned(where.known_hosts))
    try:
        connection.open()
    except Exception as failure:
        found = _classified(name, where, failure)
        if found is None:
            raise
        raise found from None
    _watch(connection.transport)
    return connection


def _watch(transport: Any) -> None:
    """Notice a network that is cut in the middle of a command, which TCP alone does after a quarter of an
    hour."""
    transport.set_keepalive(KEEPALIVE_SECONDS)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_MILLISECONDS)


class _Pinned:
    """paramiko's policy for a node that is met for the first time: its key is the one from now on.

    A line is added in one write, since many nodes are met at once; paramiko's own policy writes it all anew.
    """

    def __init__(self, known_hosts: Path) -> None:
        self._file = known_hosts

    def missing_host_key(self, _client: Any, hostname: str, key: Any) -> None:
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(descriptor, f"{hostname} {key.get_name()} {key.get_base64()}\n".encode())
        finally:
            os.close(descriptor)


def _classified(name: str, where: Address, failure: Exception) -> HostError | None:
    """What ``failure`` means for the user; None if it is nothing of the network's or the node's."""
    from paramiko import ssh_exception as ssh

    match failure:
        case ssh.BadHostKeyException():
            return HostKeyChanged(
                name,
                f"another machine than before answers at {where}; if the node was replaced, remove its line "
                f"from {where.known_hosts}",
            )
        case ssh.AuthenticationException():
            return HostRejectedLogin(
                name,
                f"{where} does not accept user {where.user} with the key {where.key}; check --identity-file, "
                "and that the image's user is that one",
            )
        case OSError() if _is_all(failure, ConnectionRefusedError):
            return HostRefused(name, f"{where} refuses the connection; its sshd is not up (yet)")
        case OSError() if not _is_all(failure, ConnectionError):
            return HostUnreachable(
                name,
                f"{where} does not answer ({failure}); is this machine's address the one the security group "
                "lets in, and is there a route?",
            )
        case ssh.SSHException() | EOFError() | OSError():  # it hung up in the middle of the greeting
            return HostRefused(name, f"{where} does not speak ssh (yet): {failure or 'it hung up'}")
    return None


def _is_all(failure: OSError, kind: type[OSError]) -> bool:
    """True if every address answered with that. paramiko keeps what each answered in ``errors``."""
    answers = getattr(failure, "errors", {"": failure}).values()
    return all(isinstance(answer, kind) for answer in answers)
