"""Namespaces: what the simulation asks for networks, machines and metadata when hosts are namespaces."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.errors import SetupError
from infra.local.hosts.machine import MachineFacts
from infra.local.hosts.namespaces import rootfs
from infra.local.hosts.namespaces.cloud import Cloud
from infra.local.hosts.namespaces.commands import find
from infra.local.hosts.namespaces.machine import NamespaceMachine
from infra.local.hosts.namespaces.metadata import MetadataService
from infra.local.hosts.namespaces.network import BRIDGE, METADATA_ADDRESS, Network
from infra.local.hosts.namespaces.network_sync import NetworkSync
from infra.local.hosts.namespaces.requirements import missing
from infra.local.hosts.namespaces.rootfs import (
    OWN_FOLDERS,
    PER_INSTANCE,
    PROGRAMS,
    SHARED_FOLDERS,
    Environment,
    Identity,
)
from infra.local.hosts.processes import HOME_MARK, INSTANCE_MARK

CALLS_PORT = 8773  # of the metadata service's address: the simulated AWS
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Namespaces:
    """The network, the firewalls and the metadata service of all hosts.

    Raises SetupError where hosts of namespaces cannot be made.
    """

    def __init__(self, cloud: Cloud) -> None:
        lacking = missing()
        if lacking:
            raise SetupError(f"hosts of namespaces cannot be made here: {'; '.join(lacking)}")
        self._cloud = cloud
        self._environment = Environment.of_this_process()
        self._network = Network(cloud.folder)
        self._network.start()
        self._network_sync = NetworkSync(cloud, self._network)
        self._metadata = MetadataService(cloud)
        self._public_addresses: Iterator[str] = self._network.public_addresses()

    @property
    def caller_address(self) -> str:
        """The range that security groups must let in for this machine to reach its hosts."""
        return f"{self._network.caller}/32"

    def serve(self) -> None:
        """Once the simulation can answer."""
        self._network_sync.start()
        self._metadata.start(self._network)

    @property
    def url(self) -> str:
        """Where hosts reach the simulated AWS."""
        return f"http://{METADATA_ADDRESS}:{CALLS_PORT}"

    def listen_for_calls(self) -> socket.socket:
        """A listening socket at ``url``."""
        return self._network.listen(CALLS_PORT)

    def claim(self) -> str:
        """A network for a default VPC."""
        return self._network.claim()

    def next(self) -> str:
        """A public address. Raises SetupError when all were given."""
        address = next(self._public_addresses, None)
        if address is None:
            raise SetupError("this embedded cloud has no public address left; stop it and start it again")
        return address

    def machine_for(self, facts: MachineFacts, folder: Path) -> NamespaceMachine:
        return NamespaceMachine(facts, folder, self)

    def environment_of(self, instance_id: str) -> dict[str, str]:
        """Of PID 1: nothing of the server's own, and the marks by which its processes are found."""
        marks = {HOME_MARK: str(self._cloud.folder), INSTANCE_MARK: instance_id}
        return {"PATH": PATH, "LANG": "C.UTF-8", **marks}

    def specification(self, facts: MachineFacts, *, is_new: bool) -> dict[str, Any]:
        """The specification for ``boot.py``. Raises CommandError."""
        router, prefix = self._network.router_of(facts.private_address)
        hostname = "ip-" + facts.private_address.replace(".", "-")
        digits = "".join(f"{int(part):02x}" for part in facts.private_address.split("."))
        return {
            "hostname": hostname,
            "network": {
                "ip": find("ip"),
                "nsenter": find("nsenter"),
                "address": f"{facts.private_address}/{prefix}",
                "router": router,
                "mac": ":".join(("0a", "58", *(digits[place : place + 2] for place in range(0, 8, 2)))),
                "port": f"h{digits}{os.urandom(2).hex()}",  # the port of the boot before may not be gone yet
                "holder": self._network.holder,
                "bridge": BRIDGE,
            },
            "shared_folders": SHARED_FOLDERS,
            "own_folders": OWN_FOLDERS,
            "per_instance": PER_INSTANCE,
            "binds": self._environment.binds,
            "links": self._environment.links,
            "files": rootfs.files(self._identity(facts, hostname)) if is_new else [],
            "init": [self._environment.python, "-I", "-S", f"/{PROGRAMS}/init.py"],
            "environment": self.environment_of(facts.instance_id),
        }

    def connect(self, instance_id: str, pid: int) -> None:
        """Give a host that has come up, with its network at process ``pid``, its firewall. Raises OSError."""
        self._network_sync.connect(instance_id, pid)

    def close_firewall(self, instance_id: str) -> None:
        """No longer follow the rules of a host that is about to end."""
        self._network_sync.disconnect(instance_id)

    def disconnect(self, instance_id: str, port: str) -> None:
        """After the last process of a host: nothing of its network is left."""
        self._network_sync.disconnect(instance_id)
        self._network.disconnect(port)

    def end(self) -> None:
        """After the last machine: nothing of the network is left."""
        self._network_sync.end()
        self._metadata.end()
        self._network.end()

    def _identity(self, facts: MachineFacts, hostname: str) -> Identity:
        with self._cloud.lock:
            instance = self._cloud.instances.find(facts.instance_id)
            key = instance.ec2_backend.key_pairs.get(instance.key_name)
            memory = self._cloud.instances.share_of(facts.instance_id)["SPARKNET_HOST_MEMORY_MIB"]
        return Identity(
            hostname=hostname,
            private_address=facts.private_address,
            public_key=key.public_key.strip() if key else "",
            user_data=facts.user_data,
            environment={"SPARKNET_HOST_MEMORY_MIB": memory},
        )
