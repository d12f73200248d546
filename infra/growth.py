"""Growth: buys the nodes that a cluster lacks, and gives workers their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from infra.cloud import Cloud, Cluster, look
from infra.ec2 import fleet, nodes, template
from infra.ec2.network import SecurityGroup
from infra.ec2.tags import ClusterTags
from infra.events import Emit
from infra.numbers import Numbers, name_of, number_of
from infra.spec import ClusterSpec
from infra.survey import Survey, launch_data

CAPACITY_SECONDS = 300.0  # until pool after pool has answered
NAMING_THREADS = 8  # each name is a call of its own


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What is bought with: the spec, what the region has, and what carries the cluster's tags."""

    cloud: Cloud
    spec: ClusterSpec
    survey: Survey
    cluster_tags: ClusterTags
    group: SecurityGroup
    numbers: Numbers  # of the workers there are to be
    emit: Emit

    def buy(self, before: Cluster) -> None:
        """Buy what ``before`` lacks, workers first, since they are what may not be had; and name them."""
        missing, region = self.spec.workers - len(before.workers), self.cloud.region
        if missing > 0 or before.master is None:
            self._buy(before, missing)
        unnamed = [node for node in before.workers if not node.is_named]
        if missing > 0 or unnamed:
            found = look(self.cloud, self.spec.name, without=before.ended)
            name_workers(found, self.numbers, lambda node, name: nodes.name(region, node, name))

    def _buy(self, before: Cluster, missing: int) -> None:
        region, spec = self.cloud.region, self.spec
        ours = template.find(region, spec.name) or template.make(
            region, launch_data(spec, self.survey, self.group), self.cluster_tags
        )
        zones = {node.zone for node in before.workers}
        near, _ = by_nearness(self.survey.pools, before)
        if missing > 0:
            request = fleet.PurchaseRequest(
                count=missing,
                # of equal speed and without traffic between zones, unless they may differ
                pools=self.survey.pools if spec.purchase.spread or not near else near,
                template=ours,
                cluster_tags=self.cluster_tags,
                purchase=spec.purchase,
                existing=(*(node.id for node in before.workers), *before.ended),
            )
            zones |= fleet.buy_workers(region, request, self.emit, deadline_seconds=CAPACITY_SECONDS)
        if before.master is None:
            # next to the workers: traffic between zones costs
            places = sorted(
                self.survey.master_places, key=lambda place: (place.zone not in zones, place.zone)
            )
            fleet.buy_master(region, places, ours, self.cluster_tags, self.emit, ended=before.ended)


def by_nearness(
    pools: Sequence[fleet.Pool], before: Cluster
) -> tuple[tuple[fleet.Pool, ...], tuple[fleet.Pool, ...]]:
    """Those of ``pools`` where the workers are already, and the others."""
    there = {(node.instance_type, node.zone) for node in before.workers}
    near = tuple(pool for pool in pools if (pool.instance_type, pool.zone) in there)
    return near, tuple(pool for pool in pools if pool not in near)


def of_group(cluster_tags: ClusterTags, group: SecurityGroup) -> ClusterTags:
    """The same tags with the generation, the beginning and the end that the ``group`` of the cluster has."""
    return replace(
        cluster_tags,
        generation=group.generation,
        created=group.created,
        expires=group.expires,
        idle_minutes=group.lifetime.idle_minutes,
        budget=group.lifetime.budget,
        budget_ends=group.lifetime.budget_ends.isoformat() if group.lifetime.budget_ends else "",
    )


def wanted_numbers(group: SecurityGroup, there: Cluster, workers: int) -> Numbers:
    """Those of the workers asked for before, and of those there are, with new ones up to ``workers``."""
    living = [number for node in there.workers if (number := number_of(node.name))]
    return group.numbers.including(living).grown_to(workers)


def name_workers(found: Cluster, numbers: Numbers, give: Callable[[nodes.Node, str], None]) -> None:
    """Give each worker without a name one of ``numbers`` that nobody has, the first launched the lowest.

    Where there are more workers than numbers, as a launch that was killed may leave them, those beyond get
    new ones.
    """
    taken = {number_of(node.name) for node in found.workers if node.is_named}
    unnamed = sorted(
        (node for node in found.workers if not node.is_named), key=lambda node: (node.launched, node.id)
    )
    lacking = max(0, len(unnamed) - len(numbers.wanted - taken))
    free = sorted(numbers.grown_to(len(numbers.wanted) + lacking).wanted - taken)
    pairs = list(
        zip(unnamed, map(name_of, free), strict=False)
    )  # of more numbers, some wait for another node
    with ThreadPoolExecutor(NAMING_THREADS, thread_name_prefix="naming") as threads:
        list(threads.map(lambda pair: give(*pair), pairs))
