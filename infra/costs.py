"""Costs: what a cluster costs an hour, and what it has cost so far, as well as can be known from outside.

Spot prices move; what is said here is the price now, for all the time. The bill is AWS's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from infra.ec2 import cleanup, images, prices
from infra.ec2.cleanup import Resource
from infra.ec2.images import Image
from infra.ec2.nodes import Node
from infra.ec2.region import Region
from infra.spec import SPOT, ClusterSpec

SECONDS_AN_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Dollars; ``unknown`` are the instance types whose price nobody knows, counted as 0."""

    per_hour: float
    so_far: float
    unknown: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Storage:
    """The images of our own in one region: how many, how large, and at most how many dollars a month."""

    region: str
    images: int
    gib: int
    per_month: float


def of_images(region: Region) -> Storage:
    """What the images of ``image build`` cost, by the whole size of their snapshots."""
    found = images.own(region)
    gib = sum(one.size_gib for one in found)
    per_month = prices.storage("snapshot", gib) * prices.HOURS_A_MONTH
    return Storage(region=region.name, images=len(found), gib=gib, per_month=per_month)


def of_volumes(spec: ClusterSpec, image: Image) -> float:
    """Dollars an hour of all volumes of the cluster, the roots too."""
    spill = spec.spill.count * prices.storage(spec.spill.type, spec.spill.size_gib)
    return spec.nodes * (spill + prices.storage("gp3", image.root_gib))


def of_addresses(spec: ClusterSpec) -> float:
    """Dollars an hour of the public addresses: every node has one, where a subnet gives them."""
    return 0.0 if spec.network.private_ips else spec.nodes * prices.address()


def of_resource(one: Resource) -> float:
    """Dollars an hour of what is no machine."""
    match one.kind:
        case cleanup.VOLUME:
            return prices.storage(one.volume_type, one.size_gib)
        case cleanup.SNAPSHOT:
            return prices.storage("snapshot", one.size_gib)
        case cleanup.ADDRESS:
            return prices.address()
    return 0.0


def of_cluster(
    region: Region, nodes: Sequence[Node], resources: Sequence[Resource], *, now: datetime | None = None
) -> Cost:
    """What living ``nodes``, their public addresses, and volumes, snapshots and addresses among ``resources``
    cost.
    """
    now = now or region.now()
    dearest = prices.on_demand(region, {node.instance_type for node in nodes}) if nodes else {}
    spot = prices.spot(region, {node.instance_type for node in nodes if node.purchase == SPOT})
    per_hour = so_far = 0.0
    unknown = set()
    for node in nodes:
        known = dearest.get(node.instance_type)
        price = spot.get((node.instance_type, node.zone)) if node.purchase == SPOT else None
        # a spot price that EC2 does not give is replaced by the higher one: rather too much than too little
        if price is None and known is None:
            unknown.add(node.instance_type)
        hourly = price if price is not None else known.dollars if known else 0.0
        hourly += prices.address() if node.public_ip else 0.0
        per_hour += hourly
        so_far += hourly * _hours(node.launched, now)
    for one in resources:
        hourly = of_resource(one)
        per_hour += hourly
        so_far += hourly * (_hours(one.created, now) if one.created else 0.0)
    return Cost(per_hour=per_hour, so_far=so_far, unknown=tuple(sorted(unknown)))


def _hours(since: str, now: datetime) -> float:
    return max(0.0, (now - datetime.fromisoformat(since)).total_seconds() / SECONDS_AN_HOUR)
