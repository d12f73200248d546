"""LocalCloud: an embedded cloud, seen by the commands that use it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.errors import SetupError
from infra.home import HOME_VARIABLE
from infra.local import control, daemon
from infra.local.home import Endpoint, Home
from infra.local.hosts.client import ProcessHost
from infra.loopback import unproxied


def open_cloud(
    home: Path | None = None, *, start: bool = True, scenario: Path | None = None, port: int = 0
) -> LocalCloud | None:
    """The running embedded cloud of ``home``; started first if there is none, unless ``start`` is False.

    ``home`` is ``$SPARKNET_EC2_HOME`` or ``~/.sparknet-ec2`` by default. ``scenario`` (a YAML, TOML or JSON
    file) and ``port`` (0: any free one) matter only when the server is started by this call.

    Raises SetupError if the server does not come up, UsageError for a port that is taken or a bad scenario.
    """
    place = Home.find(home)
    try:
        endpoint = daemon.find_or_start(place, scenario=scenario, port=port) if start else daemon.find(place)
    except OSError as error:
        raise SetupError(
            f"the embedded cloud cannot keep its files in {place.folder}: {error.strerror or error}; "
            f"make room there, or name another folder with {HOME_VARIABLE}"
        ) from error
    return LocalCloud(place, endpoint) if endpoint else None


def clean(home: Path | None = None, *, keep: str = "") -> None:
    """End everything of the embedded cloud of ``home``, whatever state it is in, and remove its files.

    ``keep``: the name of a folder among them that stays.
    """
    daemon.clean(Home.find(home), keep=keep)


class LocalCloud:
    """A running embedded cloud. ``endpoint_url``, ``region`` and ``credentials`` are what boto3 needs."""

    def __init__(self, home: Home, endpoint: Endpoint) -> None:
        self._home, self._endpoint = home, endpoint

    @property
    def endpoint_url(self) -> str:
        return self._endpoint.url

    @property
    def region(self) -> str:
        return self._endpoint.region

    @property
    def credentials(self) -> dict[str, str]:
        """Keyword arguments of ``boto3.Session``; any other access key is refused, as on EC2."""
        return {"aws_access_key_id": self._endpoint.access_key_id, "aws_secret_access_key": "not-a-secret"}

    @property
    def environment(self) -> dict[str, str]:
        """What to export so that boto3 scripts and the AWS CLI talk to this cloud."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": self._endpoint.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.credentials["aws_secret_access_key"],
            **unproxied(os.environ),
        }

    @property
    def folder(self) -> Path:
        return self._home.folder

    @property
    def pid(self) -> int:
        return self._endpoint.pid

    @property
    def logs_in_by_ssh(self) -> bool:
        """True if hosts are machines of their own, reached at their public addresses with the user's key."""
        return bool(self.control("GET", "health")["hosts"] == "namespaces")

    @property
    def caller_address(self) -> str:
        """The range of addresses from which hosts see connections of this machine."""
        return str(self.control("GET", "health")["caller_address"])

    @property
    def url_for_hosts(self) -> str:
        """``endpoint_url`` as hosts reach it, with the credentials of their roles."""
        return str(self.control("GET", "health")["url_for_hosts"])

    def connect(self, instance_id: str) -> ProcessHost:
        """The host of a running instance. Raises HostRefused while it boots, HostUnreachable once gone."""
        return ProcessHost.connect(instance_id, self.control("GET", f"instances/{instance_id}"))

    def limits(self) -> list[str]:
        """What is not real here, one sentence each."""
        return list(self.control("GET", "limits"))

    def control(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """A call of the server's control path; README.md lists them."""
        return control.call(self._endpoint, method, path, body)

    def stop(self) -> None:
        """End the server and every host of it, and remove their files. Nothing of the account survives."""
        daemon.stop(self._home)
