"""Changing what ends a cluster: its nodes are told, and the template of those that are still to come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from infra.budget import Spent, of_cluster, require_enough
from infra.cloud import Cloud, find
from infra.ec2 import network, tags, template
from infra.ec2.lifetime import Lifetime
from infra.ec2.nodes import Node
from infra.errors import HostsFailed
from infra.events import Emit, Note, phase
from infra.node import agent, user_data
from infra.node.host import on_all
from infra.spec import MOST_HOURS, require, require_limits

LEAST = timedelta(minutes=10)  # to see what was done, and to undo it


def extend(
    cloud: Cloud,
    name: str,
    emit: Emit,
    *,
    hours: float | None = None,
    idle_minutes: float | None = None,
    budget: float | None = None,
) -> Lifetime:
    """Move the end of the cluster by ``hours``, which may be negative, and give it other limits; what ends it
    then. None leaves things as they are.

    Raises ClusterNotFound, UsageError for an end that cannot be, and HostsFailed naming the nodes that could
    not be told: they still end as before.
    """
    require_limits(idle_minutes, budget)
    cluster, group = find(cloud, name), network.find_group(cloud.region, name)
    asleep = [node.name for node in cluster.nodes if node.state != "running"]
    require(not asleep, f"{', '.join(asleep)} of {name} do not run, and cannot be told: start them first.")
    before = group.lifetime if group else Lifetime.of(cluster.nodes[0].tags)
    after = _changed(cloud, name, before, hours=hours, idle_minutes=idle_minutes, dollars=budget)
    spent = of_cluster(cloud, name, Spent.read(group.spent) if group else None) if after.budget else None
    if spent and after.budget:
        if budget is not None:
            require_enough(spent, budget)
        after = replace(after, budget_ends=spent.reaches(after.budget).replace(microsecond=0))
    with phase(emit, "extend"):
        template.change(
            cloud.region,
            name,
            lambda document: user_data.with_end(document, expires=after.ends),
            tags=after.as_list(),
        )
        tell(cloud, cluster.nodes, after, emit)
        if group:
            known = [{"Key": tags.SPENT, "Value": str(spent)}] if spent else []
            cloud.region.change("create_tags", Resources=[group.id], Tags=[*after.as_list(), *known])
    return after


def tell(cloud: Cloud, nodes: Sequence[Node], lifetime: Lifetime, emit: Emit) -> None:
    """Tell the nodes, and tag each that has been told. Raises HostsFailed."""

    def tell_one(node: Node) -> None:
        host = cloud.connect(node)
        agent.put_down(host, idle_minutes=f"{lifetime.idle_minutes:g}")
        agent.set_end(host, lifetime.ends)
        cloud.region.change("create_tags", Resources=[node.id], Tags=lifetime.as_list())

    try:
        on_all(nodes, tell_one)
    except HostsFailed as error:
        emit(
            Note(text=f"{', '.join(error.failures)} of {nodes[0].cluster} still end as before: run it again.")
        )
        raise


def _changed(
    cloud: Cloud,
    name: str,
    before: Lifetime,
    *,
    hours: float | None,
    idle_minutes: float | None,
    dollars: float | None,
) -> Lifetime:
    now = cloud.region.now()
    after = replace(
        before,
        expires=_moved(before.expires, hours, now),
        idle_minutes=before.idle_minutes if idle_minutes is None else idle_minutes,
        budget=before.budget if dollars is None else dollars,
    )
    if hours is not None and after.expires is not None:
        require(
            now + LEAST <= after.expires <= now + timedelta(hours=MOST_HOURS),
            f"--hours {hours:g}: {name} would end at {after.expires:%Y-%m-%d %H:%M} UTC, which is not "
            f"between ten minutes and {MOST_HOURS} hours from now; {cloud.command('destroy', name)} ends "
            "it at once.",
        )
    return after


def _moved(expires: datetime | None, hours: float | None, now: datetime) -> datetime | None:
    """So much later; of a cluster without an end so long from now."""
    if hours is None:
        return expires
    return (expires or now) + timedelta(hours=hours)
