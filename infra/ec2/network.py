"""Network: which subnets the nodes can go to, and the cluster's own security group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from infra.ec2 import tags
from infra.ec2.lifetime import Lifetime
from infra.ec2.region import LISTED_SECONDS, Region
from infra.ec2.tags import ClusterTags
from infra.errors import CredentialsError, InfraError, SetupError, UsageError
from infra.numbers import Numbers
from infra.polling import Pending, poll
from infra.spec import ClusterSpec

SSH_PORT = 22


@dataclass(frozen=True, kw_only=True)
class Subnet:
    """One subnet: the address space of a VPC within one zone."""

    id: str
    zone: str
    vpc_id: str
    free_addresses: int
    trouble: str = ""  # why nodes in it cannot be installed or reached


@dataclass(frozen=True, kw_only=True)
class SecurityGroup:
    """The cluster's own group, and what its tags say of the cluster."""

    id: str
    vpc_id: str
    generation: str
    created: str
    expires: str
    lifetime: Lifetime
    spent: str  # as infra.budget writes it
    is_ready: bool  # whether a launch has been brought to its end
    workers: int | None = None  # how many the last launch was for
    heals: bool = False  # a healer is on
    healer: str = ""  # what it did or lacks, and when, for people
    numbers: Numbers = field(default_factory=Numbers)  # of the workers it asked for, there or lost
    tags: Mapping[str, str] = field(default_factory=dict)
    ssh_from: tuple[str, ...] = ()  # CIDRs that may use ssh


def subnets(region: Region, spec: ClusterSpec) -> tuple[Subnet, ...]:
    """The subnets the spec allows, one a zone (the one with most free addresses), by zone.

    Those without a way to the internet are left out, unless there are no others.
    Raises UsageError if there is none, and says what is missing.
    """
    where = spec.network
    if where.subnet_id:
        found = region.read("describe_subnets", SubnetIds=[where.subnet_id])["Subnets"]
    else:
        vpc = where.vpc_id or _default_vpc(region)
        filters = [{"Name": "vpc-id", "Values": [vpc]}, {"Name": "state", "Values": ["available"]}]
        found = list(region.pages("describe_subnets", "Subnets", Filters=filters))
    troubles = _troubles(region, found, private_ips=where.private_ips)
    known = [
        Subnet(
            id=one["SubnetId"],
            zone=one["AvailabilityZone"],
            vpc_id=one["VpcId"],
            free_addresses=one["AvailableIpAddressCount"],
            trouble=troubles.get(one["SubnetId"], ""),
        )
        for one in found
        if not spec.zones or one["AvailabilityZone"] in spec.zones
    ]
    usable = [one for one in known if not one.trouble] or known
    best = {one.zone: one for one in sorted(usable, key=lambda one: one.free_addresses)}
    if not found and where.vpc_id:
        raise UsageError(
            f"{where.vpc_id} is no VPC of {region.name} that has a subnet: aws ec2 describe-subnets lists "
            "those there are; or leave out --vpc-id."
        )
    if not best:
        zones = ", ".join(spec.zones) or region.name
        raise UsageError(
            f"No subnet in {zones}: make one there (aws ec2 create-default-subnet --availability-zone ZONE), "
            "or name one with --subnet-id."
        )
    return tuple(best[zone] for zone in sorted(best))


def require_room(found: Sequence[Subnet], workers: int, *, spread: bool) -> None:
    """Raises UsageError if no subnet has the addresses for ``workers``; with ``spread``, all together.

    The master needs one more, anywhere.
    """
    free = [max(0, subnet.free_addresses) for subnet in found]
    if (sum(free) if spread else max(free, default=0)) >= workers and sum(free) > workers:
        return
    listed = ", ".join(f"{subnet.id} in {subnet.zone} has {subnet.free_addresses}" for subnet in found)
    raise UsageError(
        f"No subnet has the free addresses for {workers} workers and a master: {listed}. Ask for fewer "
        "workers, name another --vpc-id or --subnet-id, or let workers go to several zones with --spread."
    )


def require_way_out(found: Sequence[Subnet]) -> None:
    """Raises UsageError if nodes of no subnet could be installed and reached."""
    if found and all(subnet.trouble for subnet in found):
        raise UsageError(found[0].trouble)


def _troubles(region: Region, found: Sequence[dict[str, Any]], *, private_ips: bool) -> dict[str, str]:
    """Why nodes in a subnet cannot be installed or reached, by its id; nothing where routes are not told."""
    filters = [{"Name": "vpc-id", "Values": sorted({one["VpcId"] for one in found})}]
    try:
        tables = list(region.pages("describe_route_tables", "RouteTables", Filters=filters)) if found else []
    except CredentialsError:
        return {}
    return {one["SubnetId"]: _trouble(one, tables, private_ips=private_ips) for one in found}


def _trouble(subnet: dict[str, Any], tables: Sequence[dict[str, Any]], *, private_ips: bool) -> str:
    place = f"The subnet {subnet['SubnetId']} in {subnet['AvailabilityZone']} of {subnet['VpcId']}"
    ways = [
        route
        for route in _routes(subnet, tables)
        if route.get("DestinationCidrBlock") == "0.0.0.0/0" and route.get("State") != "blackhole"
    ]
    if not ways:
        return (
            f"{place} has no way to the internet, from which nodes are installed: give its route table a "
            "route for 0.0.0.0/0 (aws ec2 create-route), or name another --subnet-id or --vpc-id."
        )
    if not private_ips and not any(str(way.get("GatewayId", "")).startswith("igw-") for way in ways):
        return (
            f"{place} has no internet gateway, so that nobody reaches its nodes at public addresses: say "
            "--private-ips on a machine of that network, or name another --subnet-id."
        )
    return ""


def _routes(subnet: dict[str, Any], tables: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """Of the subnet's own table, or else of the VPC's main one."""
    links = [
        (one, link)
        for one in tables
        if one["VpcId"] == subnet["VpcId"]
        for link in one.get("Associations", [])
    ]
    own = [table for table, link in links if link.get("SubnetId") == subnet["SubnetId"]]
    main = [table for table, link in links if link.get("Main")]
    return next((table.get("Routes", []) for table in (*own, *main)), [])


def find_group(region: Region, cluster: str) -> SecurityGroup | None:
    """The cluster's own group, if it has been made."""
    found = region.read("describe_security_groups", Filters=tags.of_cluster(cluster))["SecurityGroups"]
    if not found:
        return None
    known = tags.as_dict(found[0].get("Tags"))
    return SecurityGroup(
        id=found[0]["GroupId"],
        vpc_id=found[0].get("VpcId", ""),
        generation=known.get(tags.GENERATION, ""),
        created=known.get(tags.CREATED, ""),
        expires=known.get(tags.EXPIRES, ""),
        lifetime=Lifetime.of(known),
        spent=known.get(tags.SPENT, ""),
        is_ready=known.get(tags.STATE) == tags.READY,
        workers=int(known[tags.WORKERS]) if known.get(tags.WORKERS, "").isdigit() else None,
        heals=known.get(tags.HEAL) == tags.ON,
        healer=known.get(tags.HEALER, ""),
        numbers=Numbers.parse(known.get(tags.NUMBERS, "")),
        tags=known,
        ssh_from=tuple(_ssh_from(found[0])),
    )


def _ssh_from(group: dict[str, Any]) -> Iterator[str]:
    for rule in group.get("IpPermissions", []):
        if rule.get("FromPort") == SSH_PORT:
            yield from (one["CidrIp"] for one in rule.get("IpRanges", []))
            yield from (one["CidrIpv6"] for one in rule.get("Ipv6Ranges", []))


def make_group(region: Region, cluster_tags: ClusterTags, vpc_id: str) -> SecurityGroup:
    """Make the cluster's group, tagged; one made by a call whose answer was lost is taken as it is."""
    region.change(
        "create_security_group",
        GroupName=group_name(cluster_tags.cluster),
        Description=f"SparkNet cluster {cluster_tags.cluster}",
        VpcId=vpc_id,
        TagSpecifications=cluster_tags.specification(("security-group",)),
        tolerate=("InvalidGroup.Duplicate",),
    )
    taken = SetupError(
        f"There is a security group {group_name(cluster_tags.cluster)} in {vpc_id} that is not this "
        "cluster's; delete it, or launch with another --name."
    )

    def check() -> SecurityGroup | Pending:
        # None for a moment after it is made, and for good if the name belongs to a group without our tags
        return find_group(region, cluster_tags.cluster) or Pending(lambda: taken)

    return poll(check, deadline_seconds=LISTED_SECONDS, every=0.5, sleep=region.sleep)


def open_group(region: Region, group: SecurityGroup, ssh_from: str) -> None:
    """Let the nodes talk to each other, and ``ssh_from`` (a CIDR) use ssh. Nothing else enters."""
    among_nodes = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group.id}]}
    for rule in (among_nodes, _ssh_rule(ssh_from)):  # one call each: one duplicate would refuse both
        region.change(
            "authorize_security_group_ingress",
            GroupId=group.id,
            IpPermissions=[rule],
            tolerate=("InvalidPermission.Duplicate",),
            just_made=("InvalidGroup.NotFound",),
        )


def close_group(region: Region, group: SecurityGroup, ssh_from: str) -> None:
    """Let ``ssh_from`` (a CIDR) use ssh no more; connections that are open stay so."""
    region.change(
        "revoke_security_group_ingress",
        GroupId=group.id,
        IpPermissions=[_ssh_rule(ssh_from)],
        tolerate=("InvalidPermission.NotFound",),
    )


def _ssh_rule(cidr: str) -> dict[str, object]:
    family, address = ("Ipv6Ranges", "CidrIpv6") if ":" in cidr else ("IpRanges", "CidrIp")
    return {
        "IpProtocol": "tcp",
        "FromPort": SSH_PORT,
        "ToPort": SSH_PORT,
        family: [{address: cidr, "Description": "sparknet-ec2"}],
    }


def mark_ready(region: Region, group: SecurityGroup, generation: str, numbers: Numbers) -> None:
    """Note that the launch is over, for which workers it was, and ``generation``, from which the next one
    draws its tokens."""
    region.change(
        "create_tags",
        Resources=[group.id],
        Tags=[
            {"Key": tags.STATE, "Value": tags.READY},
            {"Key": tags.GENERATION, "Value": generation},
            {"Key": tags.WORKERS, "Value": str(len(numbers.wanted))},
            {"Key": tags.NUMBERS, "Value": str(numbers)},
        ],
    )


def mark_healing(region: Region, group: SecurityGroup, *, on: bool | None = None, said: str = "") -> None:
    """Note that a healer is on or off (None: as it was), and what it ``said`` last."""
    pairs = {tags.HEAL: "" if on is None else tags.ON if on else tags.OFF, tags.HEALER: said}
    region.change(
        "create_tags",
        Resources=[group.id],
        Tags=[{"Key": key, "Value": value} for key, value in pairs.items() if value],
    )


def note_bucket(region: Region, group: SecurityGroup, bucket: str) -> None:
    """Note the bucket of the cluster's jobs."""
    region.change(
        "create_tags",
        Resources=[group.id],
        Tags=[{"Key": tags.BUCKET, "Value": bucket}],
        just_made=("InvalidGroup.NotFound",),
    )


def mark_removing(region: Region, group: SecurityGroup) -> None:
    """Note that a destroy has begun; that it cannot be noted is no reason to keep the cluster."""
    with suppress(InfraError):
        region.change(
            "create_tags",
            Resources=[group.id],
            Tags=[{"Key": tags.STATE, "Value": tags.REMOVING}],
            tolerate=("InvalidGroup.NotFound",),
        )


def group_name(cluster: str) -> str:
    return f"sparknet-{cluster}"


def _default_vpc(region: Region) -> str:
    found = region.read("describe_vpcs", Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not found:
        raise UsageError(
            f"The region {region.name} has no default VPC: make one (aws ec2 create-default-vpc), or name "
            "one with --vpc-id or --subnet-id."
        )
    return str(found[0]["VpcId"])
