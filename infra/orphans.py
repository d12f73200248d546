"""Orphans: what costs money, or is in the way, and belongs to no cluster that anybody can use, or to an image
that was never finished or is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from infra import bill, costs, history
from infra.cloud import Cloud
from infra.ec2 import cleanup, images, launch_lock, network, nodes, tags
from infra.ec2.cleanup import Resource
from infra.ec2.nodes import MASTER, Node
from infra.ec2.region import Region
from infra.events import Emit, Removed
from infra.teardown import destroy

BUILD_TIME = timedelta(hours=4)  # nor does the making of an image
LAUNCH_TIME = timedelta(hours=1)  # a launch that takes longer than this is not going on any more


@dataclass(frozen=True, kw_only=True)
class Orphan:
    """A cluster, or an image, nobody can use: why, what is left of it, and what that costs an hour."""

    cluster: str  # or the image's name
    region: str
    reason: str
    resources: tuple[Resource, ...]
    dollars_per_hour: float
    image: str = ""  # the generation of an image


def find(region: Region, *, now: datetime | None = None) -> list[Orphan]:
    """The orphans of the region, by name. Some fifteen calls and the prices, however many there are."""
    now = now or region.now()
    return [*_of_clusters(region, now), *_of_images(region, now)]


def remove(cloud: Cloud, orphan: Orphan, emit: Emit) -> int:
    """Remove all that is left of it; how many resources that was. Raises Leftovers."""
    if not orphan.image:
        return len(destroy(cloud, orphan.cluster, emit, known=bill.note(cloud, orphan.cluster)))
    gone = images.remove(cloud.region, orphan.image, poll_seconds=cloud.poll_seconds)
    for one in gone:
        emit(Removed(kind=cleanup.IMAGE if one.startswith("ami-") else cleanup.SNAPSHOT, id=one))
    return len(gone)


def _of_clusters(region: Region, now: datetime) -> list[Orphan]:
    everything = cleanup.remaining(region, None)
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
                    dollars_per_hour=costs.of_cluster(
                        region, history.merged((), members, storage_per_hour=0, now=now), mine, now=now
                    ).per_hour,
                )
            )
    return found


def _of_images(region: Region, now: datetime) -> list[Orphan]:
    """Images that will not be finished, and snapshots whose image is gone."""
    whole = {one.generation: one for one in images.own(region)}
    loose = images.snapshots(region)
    found = []
    for generation in sorted({*whole, *(one.generation for one in loose)} - {""}):
        image = whole.get(generation)
        mine = [one for one in loose if one.generation == generation]
        born = image.created if image else min(one.created for one in mine)
        if now - datetime.fromisoformat(born) < BUILD_TIME or (image and image.state == images.AVAILABLE):
            continue
        kept = tuple(
            Resource(kind=cleanup.SNAPSHOT, id=one.id, cluster="", created=one.created, size_gib=one.size_gib)
            for one in mine
        )
        own = (Resource(kind=cleanup.IMAGE, id=image.id, cluster="", created=born),) if image else ()
        found.append(
            Orphan(
                cluster=image.name if image else f"sparknet-{generation}",
                region=region.name,
                reason=f"its image is {image.state}" if image else "its image is gone",
                resources=(*own, *kept),
                dollars_per_hour=sum(map(costs.of_resource, kept)),
                image=generation,
            )
        )
    return found


def _reason(
    region: Region, cluster: str, resources: Sequence[Resource], members: Sequence[Node], now: datetime
) -> str:
    """Why the cluster is of no use; empty if it is."""
    expires = [node.expires for node in members if node.expires != tags.NEVER]
    if expires and all(datetime.fromisoformat(one) < now for one in expires):
        return "its --max-hours are over"
    group = network.find_group(region, cluster)
    if group is not None and group.tags.get(tags.STATE) == tags.REMOVING:
        return "its destroy did not come to its end"
    if group is None and not members and not any(one.name == launch_lock.name(cluster) for one in resources):
        return "its destroy did not come to its end"  # a launch makes its lock and the group first
    born = [datetime.fromisoformat(one.created) for one in resources if one.created]
    if born and now - max(born) < LAUNCH_TIME:
        return ""  # somebody may be at work on it
    if not any(node.role == MASTER for node in members):
        return "it has no master"
    if group is None or not group.is_ready:
        return "its launch never came to an end"
    return ""
