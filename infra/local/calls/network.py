"""Network: addresses that nobody else has, and security groups in use that cannot be deleted."""

from __future__ import annotations

from typing import Any

import moto.ec2.models.elastic_ip_addresses
import moto.ec2.models.elastic_network_interfaces
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend
from moto.ec2.models.elastic_network_interfaces import NetworkInterfaceBackend
from moto.ec2.models.instances import InstanceBackend
from moto.ec2.models.security_groups import SecurityGroupBackend

from infra.local.calls.cloud import Cloud
from infra.local.calls.patches import Original, patch


@patch(EC2Backend, "create_default_vpc", why="a block of loopback addresses, and a way out")
def create_default_vpc(cloud: Cloud, _original: Original, backend: Any) -> Any:
    vpc = backend.create_vpc(cidr_block=cloud.blocks.claim(), is_default=True)
    for zone in backend.describe_availability_zones():
        backend.create_default_subnet(zone.name)
    gateway = backend.create_internet_gateway()
    backend.attach_internet_gateway(gateway.id, vpc.id)
    main = next(table for table in backend.route_tables.values() if table.vpc_id == vpc.id)
    backend.create_route(main.id, "0.0.0.0/0", gateway_id=gateway.id)
    return vpc


@patch(
    moto.ec2.models.elastic_network_interfaces,
    "random_public_ip",
    why="no address that looks like a real one",
)
def random_public_ip(cloud: Cloud, _original: Original) -> str:
    return str(cloud.public_addresses.next())


@patch(moto.ec2.models.elastic_ip_addresses, "random_ip", why="no address that looks like a real one")
def random_ip(cloud: Cloud, _original: Original) -> str:
    return str(cloud.public_addresses.next())


@patch(InstanceBackend, "modify_instance_security_groups", why="the interface gets the instance's groups")
def modify_instance_security_groups(
    _cloud: Cloud, original: Original, backend: Any, instance_id: str, new_group_id_list: list[str]
) -> Any:
    instance = original(backend, instance_id, new_group_id_list)
    for interface in instance.nics.values():
        interface._group_set = list(instance.security_groups)
    return instance


@patch(NetworkInterfaceBackend, "modify_network_interface_attribute", why="and the instance the interface's")
def modify_network_interface_attribute(
    _cloud: Cloud,
    original: Original,
    backend: Any,
    eni_id: str,
    group_ids: list[str],
    *others: Any,
    **named: Any,
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
    _cloud: Cloud, original: Original, backend: Any, name: str | None = None, group_id: str | None = None
) -> None:
    group = backend.get_security_group_by_name_or_id(group_id or name)
    if group is not None:
        _refuse_if_used(backend, group)
    original(backend, name=name, group_id=group_id)


def _refuse_if_used(backend: Any, group: Any) -> None:
    # a VPC that is deleted gives up its route tables, then its default group
    if group.is_default and any(table.vpc_id == group.vpc_id for table in backend.route_tables.values()):
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
