"""Holders: who uses a resource that EC2 will not remove, and the command that ends that.

EC2 says no more than that something depends on it. What it is can be asked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from infra.ec2 import cleanup
from infra.ec2.cleanup import Resource
from infra.ec2.region import Region
from infra.errors import InfraError


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who it is, and what to run so that it lets go."""

    name: str
    cure: str


def of(region: Region, resource: Resource, *, ended: Collection[str]) -> tuple[Holder, ...]:
    """Who holds on to ``resource``, but for instances of ``ended``, which are about to let go.

    Empty where nobody is found, and where it may not be asked.
    """
    look = _LOOKS.get(resource.kind)
    if look is None:
        return ()
    try:
        return tuple(look(region, resource, ended))
    except InfraError:
        return ()


def _of_group(region: Region, group: Resource, ended: Collection[str]) -> Iterator[Holder]:
    using = region.pages(
        "describe_network_interfaces", "NetworkInterfaces", Filters=[_filter("group-id", group.id)]
    )
    for one in using:
        owner = one.get("Attachment", {}).get("InstanceId", "")
        if owner in ended and owner:
            continue
        name, place = one["NetworkInterfaceId"], f" of instance {owner}" if owner else ""
        cure = (
            f"aws ec2 delete-network-interface --network-interface-id {name}"
            if one.get("Status") == "available"
            else f"aws ec2 modify-network-interface-attribute --network-interface-id {name} --groups OTHER"
        )
        yield Holder(name=f"network interface {name}{place}", cure=cure)
    for rules, option in (("ip-permission", "ingress"), ("egress.ip-permission", "egress")):
        filters = [_filter(f"{rules}.group-id", group.id)]
        for one in region.pages("describe_security_groups", "SecurityGroups", Filters=filters):
            if one["GroupId"] != group.id:
                yield Holder(
                    name=f"a rule of security group {one['GroupId']} ({one['GroupName']})",
                    cure=f"aws ec2 revoke-security-group-{option} --group-id {one['GroupId']}, for what "
                    f"names {group.id}",
                )


def _of_volume(region: Region, volume: Resource, ended: Collection[str]) -> Iterator[Holder]:
    for one in region.read("describe_volumes", VolumeIds=[volume.id])["Volumes"]:
        for attachment in one.get("Attachments", ()):
            if attachment["InstanceId"] not in ended:
                yield Holder(
                    name=f"instance {attachment['InstanceId']}",
                    cure=f"aws ec2 detach-volume --volume-id {volume.id}",
                )


def _of_address(region: Region, address: Resource, ended: Collection[str]) -> Iterator[Holder]:
    for one in region.read("describe_addresses", AllocationIds=[address.id])["Addresses"]:
        owner = one.get("InstanceId") or one.get("NetworkInterfaceId") or ""
        if one.get("AssociationId") and owner not in ended:
            yield Holder(
                name=owner, cure=f"aws ec2 disassociate-address --association-id {one['AssociationId']}"
            )


def _of_placement_group(region: Region, group: Resource, ended: Collection[str]) -> Iterator[Holder]:
    filters = [
        _filter("placement-group-name", group.name),
        _filter("instance-state-name", "pending", "running", "stopping", "stopped"),
    ]
    for reservation in region.pages("describe_instances", "Reservations", Filters=filters):
        for one in reservation["Instances"]:
            if one["InstanceId"] not in ended:
                yield Holder(
                    name=f"instance {one['InstanceId']}",
                    cure=f"aws ec2 terminate-instances --instance-ids {one['InstanceId']}",
                )


def _of_snapshot(region: Region, snapshot: Resource, _ended: Collection[str]) -> Iterator[Holder]:
    filters = [_filter("block-device-mapping.snapshot-id", snapshot.id)]
    for one in region.pages("describe_images", "Images", Owners=["self"], Filters=filters):
        yield Holder(
            name=f"image {one['ImageId']}",
            cure=f"aws ec2 deregister-image --image-id {one['ImageId']}",
        )


def _filter(name: str, *values: str) -> dict[str, Any]:
    return {"Name": name, "Values": list(values)}


_LOOKS = {
    cleanup.GROUP: _of_group,
    cleanup.VOLUME: _of_volume,
    cleanup.ADDRESS: _of_address,
    cleanup.PLACEMENT: _of_placement_group,
    cleanup.SNAPSHOT: _of_snapshot,
}
