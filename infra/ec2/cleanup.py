"""Cleanup: lists whatever still carries a cluster's tag, and removes it, in the order EC2 allows.

The list is the proof: a cluster is gone when two listings in a row find nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from infra.ec2 import nodes, tags
from infra.ec2.region import Region
from infra.errors import Leftovers
from infra.events import Emit, Removed
from infra.polling import Pending, poll

INSTANCE, SPOT_REQUEST, VOLUME = "instance", "spot request", "volume"
GROUP, TEMPLATE, KEY = "security group", "launch template", "key pair"
INTERFACE, ADDRESS, PLACEMENT = "network interface", "address", "placement group"
IMAGE, SNAPSHOT = "image", "snapshot"

DEADLINE_SECONDS = 600.0
EMPTY_LISTINGS = 2  # in a row prove that nothing is left
SETTLE_SECONDS = 1.0  # between two listings: what a call made whose answer was lost turns up meanwhile

_REMOVALS = {
    VOLUME: ("delete_volume", "VolumeId"),
    GROUP: ("delete_security_group", "GroupId"),
    TEMPLATE: ("delete_launch_template", "LaunchTemplateId"),
    KEY: ("delete_key_pair", "KeyName"),
    INTERFACE: ("delete_network_interface", "NetworkInterfaceId"),
    ADDRESS: ("release_address", "AllocationId"),
    PLACEMENT: ("delete_placement_group", "GroupName"),
    SNAPSHOT: ("delete_snapshot", "SnapshotId"),
}
_BY_NAME = (KEY, PLACEMENT)
_ABSENT = (
    "*.NotFound",
    "InvalidLaunchTemplate*",
    "InvalidSpotInstanceRequestID.*",
    "InvalidPlacementGroup.Unknown",
)
_IN_USE = (  # for a while: the removal is tried again after the next listing
    "DependencyViolation",
    "VolumeInUse",
    "IncorrectState",
    "InvalidParameterValue",  # of a network interface, while it is
    "InvalidNetworkInterface.InUse",
    "InvalidIPAddress.InUse",
    "InvalidPlacementGroup.InUse",
    "InvalidSnapshot.InUse",
)


@dataclass(frozen=True, kw_only=True)
class Resource:
    """Something that exists and carries a cluster's tag."""

    kind: str
    id: str
    cluster: str
    name: str = ""
    created: str = ""
    size_gib: int = 0  # of a volume, snapshot or image
    volume_type: str = ""
    instance_type: str = ""  # of an instance


def remaining(region: Region, cluster: str | None) -> list[Resource]:
    """All that is left of ``cluster`` (None: of any). Ten calls, however large it is."""
    return [
        *_instances(region, cluster),
        *_spot_requests(region, cluster),
        *_volumes(region, cluster),
        *_groups(region, cluster),
        *_templates(region, cluster),
        *_keys(region, cluster),
        *_interfaces(region, cluster),
        *_addresses(region, cluster),
        *_placement_groups(region, cluster),
        *_snapshots(region, cluster),
    ]


def remove_all(
    region: Region,
    cluster: str,
    emit: Emit,
    *,
    deadline_seconds: float = DEADLINE_SECONDS,
    settle_seconds: float = SETTLE_SECONDS,
    keep: str = "",
) -> list[Resource]:
    """Remove all of ``cluster`` but the resource ``keep``, and return what that was.

    Machines first, since they cost most and hold on to the rest. Raises Leftovers if something stays to the
    deadline.
    """
    seen: dict[str, Resource] = {}
    reported: set[str] = set()  # ids whose removal the caller has heard of
    terminated: set[str] = set()  # ids of instances that EC2 was asked to end
    empty_listings = 0

    def check() -> list[Resource] | Pending:
        nonlocal empty_listings
        left = [one for one in remaining(region, cluster) if one.id != keep]
        still = {one.id for one in left}
        for one in seen.values():
            if one.id not in still and one.id not in reported:
                reported.add(one.id)
                emit(Removed(kind=one.kind, id=one.id))
        seen.update({one.id: one for one in left})
        # EC2's listings lag behind: what was made a moment ago may be missing from one of them
        empty_listings = 0 if left else empty_listings + 1
        if empty_listings == EMPTY_LISTINGS:
            return list(seen.values())
        _remove(region, left, terminated)
        return Pending(lambda: Leftovers(_still_there(cluster, left, deadline_seconds)))

    return poll(check, deadline_seconds=deadline_seconds, every=settle_seconds, sleep=region.sleep)


def _remove(region: Region, left: list[Resource], terminated: set[str]) -> None:
    for one in left:
        if one.kind == SPOT_REQUEST:
            region.change("cancel_spot_instance_requests", SpotInstanceRequestIds=[one.id], tolerate=_ABSENT)
    instances = [one.id for one in left if one.kind == INSTANCE]
    new = [one for one in instances if one not in terminated]
    if new:
        nodes.terminate(region, new)
        terminated.update(new)
    if instances:
        return  # the groups and volumes are in use until the machines are gone
    for one in left:
        removal = _REMOVALS.get(one.kind)
        if removal:
            operation, argument = removal
            value = one.name if one.kind in _BY_NAME else one.id
            named: dict[str, Any] = {argument: value}
            region.change(operation, tolerate=(*_ABSENT, *_IN_USE), **named)


def _still_there(cluster: str, left: list[Resource], seconds: float) -> str:
    names = ", ".join(f"{one.kind} {one.id}" for one in left)
    return (
        f"After {seconds:g} s, {len(left)} resources of {cluster} are still there: {names}; "
        "run destroy again."
    )


def _instances(region: Region, cluster: str | None) -> list[Resource]:
    return [
        Resource(
            kind=INSTANCE,
            id=node.id,
            cluster=node.cluster,
            name=node.name,
            created=node.launched,
            instance_type=node.instance_type,
        )
        for node in nodes.describe(region, cluster)
        if node.state != "terminated"
    ]


def _spot_requests(region: Region, cluster: str | None) -> list[Resource]:
    return [
        _resource(SPOT_REQUEST, one["SpotInstanceRequestId"], one)
        for one in region.pages(
            "describe_spot_instance_requests", "SpotInstanceRequests", Filters=tags.of_cluster(cluster)
        )
        if one["State"] in ("open", "active")
    ]


def _volumes(region: Region, cluster: str | None) -> list[Resource]:
    return [
        _resource(
            VOLUME,
            one["VolumeId"],
            one,
            size_gib=one["Size"],
            volume_type=one["VolumeType"],
            created=one["CreateTime"].isoformat(),
        )
        for one in region.pages("describe_volumes", "Volumes", Filters=tags.of_cluster(cluster))
        if one["State"] not in ("deleting", "deleted")
    ]


def _groups(region: Region, cluster: str | None) -> list[Resource]:
    return [
        _resource(GROUP, one["GroupId"], one, name=one["GroupName"])
        for one in region.pages(
            "describe_security_groups", "SecurityGroups", Filters=tags.of_cluster(cluster)
        )
    ]


def _templates(region: Region, cluster: str | None) -> list[Resource]:
    return [
        _resource(TEMPLATE, one["LaunchTemplateId"], one, name=one["LaunchTemplateName"])
        for one in region.pages(
            "describe_launch_templates", "LaunchTemplates", Filters=tags.of_cluster(cluster)
        )
    ]


def _keys(region: Region, cluster: str | None) -> list[Resource]:
    return [
        _resource(KEY, one["KeyPairId"], one, name=one["KeyName"])
        for one in region.read("describe_key_pairs", Filters=tags.of_cluster(cluster))["KeyPairs"]
    ]


def _interfaces(region: Region, cluster: str | None) -> list[Resource]:
    """Those that outlived their machine: they hold on to the security group."""
    alone: list[dict[str, object]] = [{"Name": "status", "Values": ["available"]}]
    return [
        _resource(INTERFACE, one["NetworkInterfaceId"], {"Tags": one.get("TagSet")})
        for one in region.pages(
            "describe_network_interfaces", "NetworkInterfaces", Filters=[*tags.of_cluster(cluster), *alone]
        )
    ]


def _addresses(region: Region, cluster: str | None) -> list[Resource]:
    found = region.read("describe_addresses", Filters=tags.of_cluster(cluster))["Addresses"]
    return [_resource(ADDRESS, one["AllocationId"], one, name=one.get("PublicIp", "")) for one in found]


def _placement_groups(region: Region, cluster: str | None) -> list[Resource]:
    found = region.read("describe_placement_groups", Filters=tags.of_cluster(cluster))["PlacementGroups"]
    return [
        _resource(PLACEMENT, one.get("GroupId") or one["GroupName"], one, name=one["GroupName"])
        for one in found
        if one.get("State") not in ("deleting", "deleted")
    ]


def _snapshots(region: Region, cluster: str | None) -> list[Resource]:
    return [
        _resource(
            SNAPSHOT,
            one["SnapshotId"],
            one,
            size_gib=one.get("VolumeSize", 0),
            created=one["StartTime"].isoformat(),
        )
        for one in region.pages(
            "describe_snapshots", "Snapshots", OwnerIds=["self"], Filters=tags.of_cluster(cluster)
        )
    ]


def _resource(kind: str, identity: str, described: dict[str, Any], **more: Any) -> Resource:
    known = tags.as_dict(described.get("Tags"))
    return Resource(
        kind=kind,
        id=identity,
        cluster=known.get(tags.CLUSTER, ""),
        **{"created": known.get(tags.CREATED, ""), **more},
    )
