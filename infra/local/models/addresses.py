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
from typing import Any

import moto.ec2.models.elastic_ip_addresses
import moto.ec2.models.elastic_network_interfaces
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend
from moto.ec2.models.elastic_network_interfaces import NetworkInterfaceBackend
from moto.ec2.models.instances import InstanceBackend
from moto.ec2.models.security_groups import SecurityGroupBackend

from infra.errors import SetupError
from infra.local.calls.patches import Original, patch

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


@patch(EC2Backend, "create_default_vpc", why="the default VPC is a block of loopback addresses")
def create_default_vpc(_original: Original, backend: Any) -> Any:
    vpc = backend.create_vpc(cidr_block=patch.cloud.blocks.claim(), is_default=True)
    for zone in backend.describe_availability_zones():
        backend.create_default_subnet(zone.name)
    return vpc


@patch(
    moto.ec2.models.elastic_network_interfaces,
    "random_public_ip",
    why="no address that looks like a real one",
)
def random_public_ip(_original: Original) -> str:
    return str(patch.cloud.public_addresses.next())


@patch(moto.ec2.models.elastic_ip_addresses, "random_ip", why="no address that looks like a real one")
def random_ip(_original: Original) -> str:
    return str(patch.cloud.public_addresses.next())


@patch(InstanceBackend, "modify_instance_security_groups", why="the interface gets the instance's groups")
def modify_instance_security_groups(
    original: Original, backend: Any, instance_id: str, new_group_id_list: list[str]
) -> Any:
    instance = original(backend, instance_id, new_group_id_list)
    for interface in instance.nics.values():
        interface._group_set = list(instance.security_groups)
    return instance


@patch(NetworkInterfaceBackend, "modify_network_interface_attribute", why="and the instance the interface's")
def modify_network_interface_attribute(
    original: Original, backend: Any, eni_id: str, group_ids: list[str], *others: Any, **named: Any
) -> None:
    original(backend, eni_id, group_ids, *others, **named)
    interface = backend.get_network_interface(eni_id)
    if group_ids and interface.instance is not None:
        interface.instance.security_groups = list(interface._group_set)


@patch(
    SecurityGroupBackend,
    "delete_security_group",
    why="DependencyViolation while an interface or a group uses it",
)
def delete_security_group(
    original: Original, backend: Any, name: str | None = None, group_id: str | None = None
) -> None:
    group = backend.get_security_group_by_name_or_id(group_id or name)
    if group is not None:
        _refuse_if_used(backend, group)
    original(backend, name=name, group_id=group_id)


def _refuse_if_used(backend: Any, group: Any) -> None:
    if group.is_default:
        raise EC2ClientError(
            "CannotDelete",
            f'the specified group: "{group.id}" name: "{group.name}" cannot be deleted by a user',
        )
    by_interface = any(group in interface.group_set for interface in backend.enis.values())
    if by_interface or _referring_groups(backend, group):
        raise EC2ClientError("DependencyViolation", f"resource {group.id} has a dependent object")


def _referring_groups(backend: Any, group: Any) -> list[str]:
    others = [
        other for groups in backend.groups.values() for other in groups.values() if other.id != group.id
    ]
    return [
        other.id
        for other in others
        for rule in (*other.ingress_rules, *other.egress_rules)
        if rule.source_group.get("GroupId") == group.id
    ]
