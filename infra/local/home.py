"""Where an embedded cloud keeps its things: one folder per home, and the state file that leads to its server.

~/.sparknet-ec2/local/
    endpoint.json    how to reach the server; written atomically once it answers, removed when it stops
    lock             held by whoever is starting or stopping the server
    server.log       what the server says
    hosts/i-...      the root folder of each instance
    volumes/vol-...  what is on each volume
    keys, known_hosts, fences    what the commands keep of clusters in here
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.errors import DeadlineExceeded
from infra.home import HOME_VARIABLE
from infra.home import home as default_home

OF_CLUSTERS = ("keys", "known_hosts", "fences")  # goes with the account


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """How to reach a running server, and how to know that the process is still the one that wrote this."""

    pid: int
    port: int
    started: float  # seconds since the epoch, the start time of process `pid`
    access_key_id: str  # the only key the server accepts
    region: str
    runtime: str  # folder of the hosts' sockets: short, because a socket's path may have 104 characters

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Home:
    """The folder of one embedded cloud."""

    folder: Path

    @classmethod
    def find(cls, home: Path | None = None) -> Home:
        """The cloud's folder below ``home``, by default ``$SPARKNET_EC2_HOME`` or ``~/.sparknet-ec2``."""
        chosen = home.expanduser().absolute() if home else default_home()
        return cls(chosen / "local")

    @property
    def endpoint_file(self) -> Path:
        return self.folder / "endpoint.json"

    @property
    def log(self) -> Path:
        return self.folder / "server.log"

    @property
    def hosts(self) -> Path:
        return self.folder / "hosts"

    @property
    def volumes(self) -> Path:
        return self.folder / "volumes"

    def read_endpoint(self) -> Endpoint | None:
        """What the state file says, None without one (or with one that is not ours)."""
        try:
            return Endpoint(**json.loads(self.endpoint_file.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write_endpoint(self, endpoint: Endpoint) -> None:
        """Replace the state file in one step, readable by this user only: it holds the access key."""
        draft = self.endpoint_file.with_suffix(f".{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(asdict(endpoint), indent=2))
        draft.replace(self.endpoint_file)

    @contextmanager
    def locked(self, timeout_seconds: float) -> Iterator[None]:
        """Only one process at a time starts or stops the server of this home."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self.folder / "lock").open("a") as file:
            deadline = time.monotonic() + timeout_seconds
            while not _try_lock(file.fileno()):
                if time.monotonic() > deadline:
                    raise DeadlineExceeded(
                        f"another process has been starting or stopping the embedded cloud in {self.folder} "
                        f"for {timeout_seconds:g} s; end it, or use another home ({HOME_VARIABLE})"
                    )
                time.sleep(0.02)
            yield  # closing the file releases the lock, and so does the end of this process


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
