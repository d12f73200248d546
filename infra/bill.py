"""Bill: what a cluster has cost, with the nodes that have ended, and what of it is still there.

Whoever asks for it also notes what it found (history.py), before EC2 forgets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from infra import costs, history
from infra.cloud import Cloud
from infra.costs import Cost, PriceBook
from infra.ec2 import cleanup, endings, network, nodes, tags
from infra.ec2.cleanup import Resource
from infra.ec2.endings import Ending, Spent
from infra.ec2.images import Image
from infra.ec2.network import SecurityGroup
from infra.ec2.nodes import Node
from infra.errors import InfraError
from infra.history import Life, Run
from infra.spec import ClusterSpec

# what ended a moment ago may be missing from a listing, and is added to the sum later
SETTLED_AFTER = timedelta(minutes=2)


@dataclass(frozen=True, kw_only=True)
class Bill:
    """A cluster as it is paid for: ``runs`` of its nodes, past ones too, and all ``left`` of it."""

    cost: Cost
    life: Life
    left: tuple[Resource, ...]
    group: SecurityGroup | None

    @property
    def runs(self) -> tuple[Run, ...]:
        return self.life.runs


def look(cloud: Cloud, name: str) -> Bill | None:
    """The bill of the cluster called ``name``; None where nothing is left of one.

    Some twelve calls. Raises what they do.
    """
    region = cloud.region
    listed = nodes.describe(region, name)
    left = cleanup.remaining(region, name)
    group = network.find_group(region, name)
    created = _created(group, listed, left)
    if not left or not created:
        return None
    now = region.now()
    mine = [node for node in listed if node.tags.get(tags.CREATED, created) == created]
    spent = endings.read(group.tags) if group else Spent()
    before = history.life(cloud.home, region.name, name, created)
    known = (*(_run(one) for one in spent.last), *before.runs)
    runs = history.merged(known, mine, storage_per_hour=_storage(left, mine), now=now)
    cost = costs.of_cluster(region, runs, left, spent=spent, now=now)
    bucket = group.tags.get(tags.BUCKET, "") if group else before.bucket
    life = replace(before, runs=runs, dollars=cost.so_far, seen=now.isoformat(), destroyed="", bucket=bucket)
    history.keep(cloud.home, life)
    if group:
        _settle(cloud, group, runs, spent, now)
    return Bill(cost=cost, life=life, left=tuple(left), group=group)


def note(cloud: Cloud, name: str) -> Bill | None:
    """``look``, for whoever does something else: that the bill cannot be had is no reason to fail."""
    try:
        return look(cloud, name)
    except InfraError:
        return None


def remember(cloud: Cloud, spec: ClusterSpec, image: Image, created: str, there: Sequence[Node]) -> None:
    """Note the nodes of a cluster that is ready, without a call: who asks later may find them gone."""
    before = history.life(cloud.home, cloud.region.name, spec.name, created)
    now, storage = cloud.region.now(), costs.of_volumes(spec, image) / spec.nodes
    runs = history.merged(before.runs, there, storage_per_hour=storage, now=now)
    history.keep(cloud.home, replace(before, runs=runs, seen=now.isoformat(), destroyed=""))


def close(cloud: Cloud, bill: Bill, why: str) -> Life:
    """Note that the cluster is gone; its life, with all its nodes ended."""
    now = cloud.region.now()
    ended = tuple(
        run if run.is_gone else replace(run, ended=run.ended or now.isoformat(), why=why, state="terminated")
        for run in bill.runs
    )
    hours = max(0.0, (now - datetime.fromisoformat(bill.life.seen)).total_seconds() / costs.SECONDS_AN_HOUR)
    life = replace(
        bill.life,
        runs=ended,
        dollars=bill.cost.so_far + hours * bill.cost.per_hour,
        seen=now.isoformat(),
        destroyed=now.isoformat(),
    )
    history.keep(cloud.home, life)
    return life


def _created(group: SecurityGroup | None, listed: Sequence[Node], left: Iterable[Resource]) -> str:
    """The tag that tells one cluster from others that had its name: of those that are left, the newest."""
    living = [node.tags.get(tags.CREATED, "") for node in nodes.alive(listed)]
    others = (one.created for one in left if one.kind in (cleanup.KEY, cleanup.TEMPLATE))
    return (group.created if group else "") or max((*living, *others), default="")


def _storage(left: Iterable[Resource], listed: Sequence[Node]) -> float:
    """Dollars an hour of the volumes of one node: all have the same."""
    volumes = sum(costs.of_resource(one) for one in left if one.kind == cleanup.VOLUME)
    return volumes / max(1, len(nodes.alive(listed)))


def _settle(cloud: Cloud, group: SecurityGroup, runs: Sequence[Run], spent: Spent, now: datetime) -> None:
    """Add to the group's tags what has ended since they were written."""
    until = now - SETTLED_AFTER
    new = [
        run
        for run in runs
        if run.ended and not costs.is_settled(run, spent) and datetime.fromisoformat(run.ended) <= until
    ]
    if not new:
        return
    book = PriceBook.of(cloud.region, new)
    gone = sorted((run for run in runs if run.is_gone), key=lambda run: run.ended, reverse=True)
    dollars = spent.dollars + sum(book.dollars(run, now) for run in new)
    last = tuple(_ending(run) for run in gone[: endings.NAMED])
    endings.write(cloud.region, group.id, Spent(dollars=dollars, until=until, last=last))


def _ending(run: Run) -> Ending:
    return Ending(
        name=run.name,
        id=run.id,
        instance_type=run.instance_type,
        zone=run.zone,
        purchase=run.purchase,
        launched=run.launched,
        ended=run.ended,
        why=run.why or "ended",
    )


def _run(one: Ending) -> Run:
    return Run(
        name=one.name,
        id=one.id,
        role=one.name.rpartition("-")[0] or one.name,
        instance_type=one.instance_type,
        zone=one.zone,
        purchase=one.purchase,
        launched=one.launched,
        ended=one.ended,
        why=one.why,
    )
