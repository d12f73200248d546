"""Login: opens the ssh connection to a node; each way in which that fails has its own exception and fix."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

from infra import private_key
from infra.errors import (
    HostError,
    HostKeyChanged,
    HostRefused,
    HostRejectedLogin,
    HostUnreachable,
    UsageError,
)
from infra.private_key import PASSPHRASE_VARIABLE, PrivateKey

CONNECT_SECONDS = 15.0
KEEPALIVE_SECONDS = 15
PROXY_SECONDS = 5.0  # for a ProxyCommand to end
SILENCE_MILLISECONDS = 30_000  # what was sent and not acknowledged for so long ends the connection


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a node is, and as whom to log in there."""

    host: str
    port: int
    user: str
    key: Path
    known_hosts: Path  # the keys that nodes have shown at first contact
    ssh_config: Path | None = None  # of the user's, where it is asked for

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def log_in(name: str, where: Address) -> Any:
    """An open ``fabric.Connection`` to the node called ``name``.

    Raises a HostError, or UsageError for a key that cannot be used. What ~/.ssh/config, ~/.fabric.yaml and
    the keys of an agent would change is left out: the same words lead to the same node on every machine.
    """
    if not where.key.is_file():
        raise HostRejectedLogin(
            name, f"there is no key file {where.key}; copy it from the machine that launched the cluster"
        )
    where.known_hosts.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    where.known_hosts.touch(mode=0o600)
    with unlocked(where.key) as key:
        connection = _connection(where, key)
        try:
            connection.open()
        except Exception as failure:
            found = _classified(name, where, failure)
            if found is None:
                raise
            raise found from None
    _watch(connection.transport)
    return connection


def hang_up(connection: Any) -> None:
    """Close what ``log_in`` opened; a ProxyCommand of the user's configuration ends with it."""
    transport = connection.transport
    process = getattr(getattr(transport, "sock", None), "process", None)
    connection.close()
    if process is None:
        return
    transport.join(PROXY_SECONDS)  # first, since it asks the process to end once more, by its number
    try:
        process.wait(PROXY_SECONDS)
    except TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()


@contextmanager
def unlocked(file: Path) -> Iterator[Any]:
    """The key in ``file`` as paramiko has it, or that very key of the ssh agent. Raises UsageError."""
    found = private_key.read(file, private_key.known_passphrase())
    if found.is_open:
        yield of_paramiko(found)
        return
    with _agent_key(found) as key:
        if key is None:
            lacking = "" if found.public else " (an agent's key is known by the .pub file beside it)"
            raise UsageError(
                f"{found.file} is encrypted, and the ssh agent does not have it{lacking}: "
                f"run ssh-add {found.file}, or set {PASSPHRASE_VARIABLE} to its passphrase."
            )
        yield key


def require_usable(file: Path) -> None:
    """Raises UsageError if nobody can log in with the key in ``file``."""
    with unlocked(file):
        pass


def is_in_agent(found: PrivateKey) -> bool:
    """Whether the ssh agent of this user signs with the key."""
    with _agent_key(found) as key:
        return key is not None


def of_paramiko(found: PrivateKey) -> Any:
    import paramiko

    assert found.openssh is not None
    assert found.public is not None
    kind = found.public[4:15]
    classes = {b"ssh-rsa": paramiko.RSAKey, b"ssh-ed25519": paramiko.Ed25519Key}
    made = next((one for name, one in classes.items() if kind.startswith(name)), paramiko.ECDSAKey)
    return made.from_private_key(io.StringIO(found.openssh.decode()))


def _connection(where: Address, key: Any) -> Any:
    import fabric

    connection = fabric.Connection(
        where.host,
        user=where.user,
        port=where.port,
        config=_config(where.ssh_config),
        connect_timeout=CONNECT_SECONDS,
        connect_kwargs={
            "pkey": key,
            "allow_agent": False,
            "look_for_keys": False,
            "banner_timeout": CONNECT_SECONDS,
            "auth_timeout": CONNECT_SECONDS,
        },
    )
    connection.client.get_host_keys().load(str(where.known_hosts))
    connection.client.set_missing_host_key_policy(_Pinned(where.known_hosts))
    return connection


@contextmanager
def _agent_key(found: PrivateKey) -> Iterator[Any]:
    """The agent's key of the same public half, which signs while this is entered; None if it has none."""
    import paramiko

    agent: paramiko.Agent | None = None
    keys: Iterable[Any] = ()
    try:
        with suppress(paramiko.SSHException, OSError):  # none answers
            agent = paramiko.Agent() if found.public else None
            keys = agent.get_keys() if agent else ()
        yield next((key for key in keys if key.asbytes() == found.public), None)
    finally:
        if agent:
            agent.close()


def _config(ssh_config: Path | None) -> Any:
    import fabric
    from paramiko.config import SSHConfig

    if ssh_config is None:
        return fabric.Config(lazy=True)
    return fabric.Config(lazy=True, ssh_config=SSHConfig.from_path(str(ssh_config)))


def _watch(transport: Any) -> None:
    """Notice a network that is cut in the middle of a command, which TCP alone does after a quarter of an
    hour."""
    transport.set_keepalive(KEEPALIVE_SECONDS)
    if hasattr(socket, "TCP_USER_TIMEOUT") and isinstance(transport.sock, socket.socket):  # no proxy's pipe
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
                f"wrong key or user: {where} does not accept user {where.user} with the key {where.key}; "
                "check --identity-file, and that the image's user is that one",
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
