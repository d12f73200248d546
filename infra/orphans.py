"""Orphans: what costs money, or is in the way, and belongs to no cluster that anybody can use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from infra import costs
from infra.ec2 import network, nodes, sweep
from infra.ec2.nodes import MASTER, Node
from infra.ec2.region import Region
from infra.ec2.sweep import Resource
from infra.ec2.tags import EXPIRES

LAUNCH_TIME = timedelta(hours=1)  # a launch that takes longer than this is not going on any more


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """A cluster nobody can use: why, what is left of it, and what that costs an hour."""

    cluster: str
    region: str
    reason: str
    resources: tuple[Resource, ...]
    dollars_per_hour: float


def find(region: Region, *, now: datetime | None = None) -> list[Orphan]:
    """The orphans of the region, by name. Seven calls and the prices, however many there are."""
    now = now or datetime.now(UTC)
    everything = sweep.remaining(region, None)
    living = nodes.alive(nodes.describe(region, None))
    found = []
    for cluster in sorted({one.cluster for one in everything}):
        mine = [one for one in everything if one.cluster == cluster]
        members = [node for node in living if node.cluster == cluster]
        reason = _reason(region, cluster, mine, members, now)
        if reason:
            found.append(
                Orphan(
                    cluster=cluster,
                    region=region.name,
                    reason=reason,
                    resources=tuple(mine),
                    dollars_per_hour=costs.of_cluster(region, members, mine, now=now).per_hour,
                )
            )
    return found


def _reason(
    region: Region, cluster: str, resources: Sequence[Resource], members: Sequence[Node], now: datetime
) -> str:
    """Why the cluster is of no use; empty if it is."""
    expires = [node.tags[EXPIRES] for node in members if node.tags.get(EXPIRES, "never") != "never"]
    if expires and all(datetime.fromisoformat(one) < now for one in expires):
        return "its --max-hours are over"
    group = network.find_group(region, cluster)
    born = [datetime.fromisoformat(one.created) for one in resources if one.created]
    if born and now - max(born) < LAUNCH_TIME:
        return ""  # somebody may be at work on it
    if not any(node.role == MASTER for node in members):
        return "it has no master"
    if group is None or not group.is_ready:
        return "its launch never came to an end"
    return ""
