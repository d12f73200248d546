"""Target: which cloud is meant, and how to reach it. The one place that knows there are two."""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from infra import private_key
from infra.errors import SetupError, UsageError
from infra.events import Emit, ignore
from infra.home import home
from infra.node.host import Host
from infra.node.ssh import SSHHost

if TYPE_CHECKING:
    from infra.cluster import Cloud
    from infra.ec2.nodes import Node
    from infra.local import LocalCloud

ADDRESS_PAGE = "https://checkip.amazonaws.com"
LOCAL, AWS = "local", "aws"
LOCAL_RETRY_SECONDS = 20.0  # a server on this machine that is silent that long is not coming back
LOCAL_POLL_SECONDS = 0.25
LOCAL_LOGIN_SECONDS = 45.0  # it counts as running only once its sshd listens


@dataclass(frozen=True, kw_only=True)
class Target:
    """What the common options say: where the cluster is, its name, and how to log in."""

    cloud: str
    region: str
    name: str
    identity_file: Path | None = None
    user: str = "ubuntu"
    private_ips: bool = False
    ssh_config: Path | None = None

    def open(self, emit: Emit = ignore, *, start: bool = False) -> Cloud | None:
        """The cloud; None if it is the embedded one, is not running and ``start`` is False."""
        if self.cloud == AWS:
            return self._aws(emit)
        local = open_local(start=start)
        return self._embedded(local, emit) if local else None

    def require(self, emit: Emit = ignore) -> Cloud:
        """The cloud, for a verb that needs a cluster. Raises ClusterNotFound if it does not even run."""
        from infra.errors import ClusterNotFound

        cloud = self.open(emit)
        if cloud is None:
            raise ClusterNotFound(
                f"There is no cluster {self.name}: the embedded cloud has none; "
                f"make it with sparknet-ec2 launch --name {self.name} (or say --cloud aws)."
            )
        return cloud

    @property
    def cluster_files(self) -> Path:
        """The folder of the clusters' keys: for the embedded cloud in its own one, to be removed with it."""
        return home() if self.cloud == AWS else home() / LOCAL

    def _embedded(self, local: LocalCloud, emit: Emit) -> Cloud:
        from infra.cluster import Cloud
        from infra.ec2.region import Region

        keys, is_machines = local.credentials, local.logs_in_by_ssh
        return Cloud(
            kind=LOCAL,
            region=Region(
                self.region,
                endpoint_url=local.endpoint_url,
                keys=(keys["aws_access_key_id"], keys["aws_secret_access_key"]),
                emit=emit,
                retry_seconds=LOCAL_RETRY_SECONDS,
            ),
            connect=self._ssh if is_machines else lambda node: local.connect(node.id),
            caller_address=lambda: local.caller_address,
            home=self.cluster_files,
            poll_seconds=LOCAL_POLL_SECONDS,
            login_seconds=LOCAL_LOGIN_SECONDS,
            url_for_hosts=local.url_for_hosts,
            home_of_processes="" if is_machines else str(home()),
        )

    def _aws(self, emit: Emit) -> Cloud:
        from infra.cluster import Cloud
        from infra.ec2.region import Region

        region = Region(self.region, emit=emit)
        region.require_credentials()
        return Cloud(
            kind=AWS,
            region=region,
            connect=self._ssh,
            caller_address=own_address,
            home=self.cluster_files,
        )

    def _ssh(self, node: Node) -> Host:
        from infra.ec2 import keys

        address = node.private_ip if self.private_ips else node.public_ip or node.private_ip
        key = self.identity_file or keys.key_file(self.cluster_files, self.region, node.cluster)
        known_hosts = keys.known_hosts_file(self.cluster_files, self.region, node.cluster)
        unlock(key)
        return SSHHost(
            node.name,
            address,
            user=self.user,
            key=key,
            known_hosts=known_hosts,
            ssh_config=self.ssh_config,
        )


def unlock(key: Path | None) -> None:
    """Ask for the passphrase of a key that nothing else opens, once, where somebody can be asked."""
    import click

    from infra.node import login
    from infra.private_key import PASSPHRASE_VARIABLE

    if key is None or not key.is_file() or not sys.stdin.isatty() or PASSPHRASE_VARIABLE in os.environ:
        return
    found = private_key.read(key)
    if found.is_open or login.is_in_agent(found):
        return
    os.environ[PASSPHRASE_VARIABLE] = click.prompt(f"Passphrase of {key}", hide_input=True, err=True)


def open_local(*, start: bool, port: int = 0, scenario: Path | None = None) -> LocalCloud | None:
    """The embedded cloud; None if it does not run and ``start`` is False, otherwise it is started first."""
    try:
        from infra import local
    except ModuleNotFoundError as error:
        raise SetupError(
            f"The embedded cloud needs {error.name}; install it with pip install 'sparknet-ec2[local]'."
        ) from None
    return local.open_cloud(home(), start=start, port=port, scenario=scenario)


@contextmanager
def launching(target: Target) -> Iterator[None]:
    """One launch of a cluster at a time from this machine. Raises ClusterBusy if another one is under way."""
    from infra.errors import ClusterBusy

    folder = home() / "launching"
    file = folder / f"{target.cloud}-{target.region}-{target.name}"
    with _open_for_one(file) as stream:
        if stream is None:
            raise ClusterBusy(
                f"A launch of {target.name} is under way (process {_content(file) or 'unknown'}); "
                "wait for it, or end it with Ctrl-C."
            )
        stream.write(f"{os.getpid()}\n")
        stream.flush()
        try:
            yield
        finally:
            file.unlink(missing_ok=True)
            for one in (folder, home()):
                with suppress(OSError):  # not empty, or gone
                    one.rmdir()


@contextmanager
def _open_for_one(file: Path) -> Iterator[IO[str] | None]:
    """The file, emptied, for whoever locks it first; None for others."""
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            if _is_still(file, stream):
                stream.truncate(0)
                yield stream
                return


def _is_still(file: Path, stream: IO[str]) -> bool:
    """False if the file was unlinked, and perhaps made anew, since the stream was opened."""
    try:
        return os.fstat(stream.fileno()).st_ino == file.stat().st_ino
    except FileNotFoundError:
        return False


def _content(file: Path) -> str:
    with suppress(OSError):
        return file.read_text().strip()
    return ""


def own_address(fetch: Callable[[], str] | None = None) -> str:
    """This machine's address as the internet sees it, as a /32. Raises UsageError if it cannot be learnt."""
    import ipaddress

    try:
        address = ipaddress.ip_address((fetch or _ask_for_address)().strip())
    except (OSError, ValueError) as error:
        raise UsageError(
            f"The address that ssh will come from cannot be learnt from {ADDRESS_PAGE} ({error}); say it "
            "with --authorized-address."
        ) from None
    return f"{address}/{address.max_prefixlen}"


def _ask_for_address() -> str:
    from urllib.request import urlopen

    with urlopen(ADDRESS_PAGE, timeout=10) as answer:
        return str(answer.read().decode())
