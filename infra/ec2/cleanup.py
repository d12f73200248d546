"""Cleanup: lists whatever still carries a cluster's tag."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from infra.ec2 import nodes, profiles, tags
from infra.ec2.region import Region

INSTANCE, SPOT_REQUEST, VOLUME = "instance", "spot request", "volume"
GROUP, TEMPLATE, KEY = "security group", "launch template", "key pair"
INTERFACE, ADDRESS, PLACEMENT = "network interface", "address", "placement group"
IMAGE, SNAPSHOT = "image", "snapshot"
PROFILE = "instance profile"


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
    """All that is left of ``cluster`` (None: of any). Eleven calls, however large it is."""
    found = [one for listing in OTHERS.values() for one in listing(region, cluster)]
    return [*instances(region, cluster), *found]


def instances(region: Region, cluster: str | None) -> list[Resource]:
    """The instances that are not terminated yet."""
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


def tagged_instances(region: Region, cluster: str) -> list[str]:
    """The ids of the cluster's instances, dead ones perhaps included, without the permission to see more."""
    filters = [
        {"Name": "key", "Values": [tags.CLUSTER]},
        {"Name": "value", "Values": [cluster]},
        {"Name": "resource-type", "Values": ["instance"]},
    ]
    return [str(one["ResourceId"]) for one in region.pages("describe_tags", "Tags", Filters=filters)]


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


def _profiles(region: Region, cluster: str | None) -> list[Resource]:
    """Of healers, each with its role."""
    return [
        Resource(kind=PROFILE, id=one.name, cluster=one.cluster, name=one.name, created=one.created)
        for one in profiles.find(region, cluster)
    ]


def _resource(kind: str, identity: str, described: dict[str, Any], **more: Any) -> Resource:
    known = tags.as_dict(described.get("Tags"))
    return Resource(
        kind=kind,
        id=identity,
        cluster=known.get(tags.CLUSTER, ""),
        **{"created": known.get(tags.CREATED, ""), **more},
    )


#: What may be left besides instances: kind -> its listing.
OTHERS: dict[str, Callable[[Region, str | None], list[Resource]]] = {
    SPOT_REQUEST: _spot_requests,
    VOLUME: _volumes,
    GROUP: _groups,
    TEMPLATE: _templates,
    KEY: _keys,
    INTERFACE: _interfaces,
    ADDRESS: _addresses,
    PLACEMENT: _placement_groups,
    SNAPSHOT: _snapshots,
    PROFILE: _profiles,
}
