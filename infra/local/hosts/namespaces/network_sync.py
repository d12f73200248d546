"""Keeps the router's translations and every host's firewall at what EC2's models say at the moment.

moto has no event for a changed rule, so the models are read a few times a second; what did not change
costs nothing. A host gets its rules before it starts its first program.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from typing import Any

from infra.local.hosts.namespaces import firewall
from infra.local.hosts.namespaces.cloud import Cloud
from infra.local.hosts.namespaces.commands import CommandError
from infra.local.hosts.namespaces.firewall import Rule
from infra.local.hosts.namespaces.network import Network

INTERVAL_SECONDS = 0.2
CONNECTED_STATES = ("pending", "running", "stopping", "shutting-down")

log = logging.getLogger(__name__)


class NetworkSync:
    """A thread, from ``start`` to ``end``."""

    def __init__(self, cloud: Cloud, network: Network) -> None:
        self._cloud, self._network = cloud, network
        self._networks: dict[str, int] = {}  # instance -> its network namespace, held open
        self._applied: dict[str, str] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="network sync", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def connect(self, instance_id: str, pid: int) -> None:
        """A host has come up, with its network at process ``pid``. Raises OSError."""
        network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)  # a number may be used again
        self.disconnect(instance_id)
        with self._lock:
            self._networks[instance_id] = network
        self.refresh()
        if instance_id not in self._applied:
            raise CommandError(f"{instance_id} did not get its security groups")

    def disconnect(self, instance_id: str) -> None:
        with self._lock:
            self._applied.pop(instance_id, None)
            network = self._networks.pop(instance_id, None)
            if network is not None:
                os.close(network)

    def refresh(self) -> None:
        """Bring everything to what the models say, as far as the hosts are still there."""
        with self._cloud.lock:
            translations, tables = self._wanted()
        with self._lock:
            self._network.translate(translations)
            for instance_id, network in self._networks.items():
                table = tables.get(instance_id)
                if table is not None and self._applied.get(instance_id) != table:
                    try:
                        firewall.apply(table, network=f"/proc/{os.getpid()}/fd/{network}")
                    except CommandError as error:
                        log.warning("%s: %s", instance_id, error)
                    else:
                        self._applied[instance_id] = table

    def end(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(5)

    def _follow(self) -> None:
        while not self._ended.wait(INTERVAL_SECONDS):
            try:
                if self._networks:
                    self.refresh()
            except CommandError as error:
                log.warning("the network of the hosts: %s", error)

    def _wanted(self) -> tuple[dict[str, str], dict[str, str]]:
        """Public address -> private one, and instance -> its rules."""
        translations: dict[str, str] = {}
        members: dict[str, list[str]] = {}
        groups_of: dict[str, dict[str, Any]] = {}
        for instance_id, interface in self._interfaces():
            if interface.public_ip:
                translations[interface.public_ip] = interface.private_ip_address
            for group in interface.group_set:
                groups_of.setdefault(instance_id, {})[group.id] = group
                members.setdefault(group.id, []).append(interface.private_ip_address)
        rendered: dict[tuple[str, ...], str] = {}
        for groups in groups_of.values():
            names = tuple(sorted(groups))
            if names not in rendered:
                rendered[names] = firewall.render(
                    (r for name in names for r in _rules(groups[name])), members
                )
        return translations, {one: rendered[tuple(sorted(groups))] for one, groups in groups_of.items()}

    def _interfaces(self) -> Iterator[tuple[str, Any]]:
        for instance in self._cloud.instances:
            if instance.state in CONNECTED_STATES:
                for interface in instance.nics.values():
                    yield instance.id, interface


def _rules(group: Any) -> Iterator[Rule]:
    for rule in (*group.ingress_rules, *group.egress_rules):
        ports = None if rule.from_port is None else (int(rule.from_port), int(rule.to_port))
        cidr, other = rule.ip_range.get("CidrIp"), rule.source_group.get("GroupId")
        # the rest are of IPv6 or of prefix lists, which hosts do not have
        if cidr is not None or other is not None:
            yield Rule(
                group=group.id,
                protocol=rule.ip_protocol,
                ports=ports,
                cidr=cidr,
                other_group=other,
                is_egress=rule.is_egress,
            )
