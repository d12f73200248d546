"""Cluster: the recipes. Each is a list of steps; all of them can be run again.

    launch     look, make what is missing, take the surplus away, set up, wait until Spark is ready
    destroy    machines first, then all that belonged to them, until two listings find nothing

What a cluster is stands in the tags of its resources and nowhere else.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Collection
from pathlib import Path

from infra import (
    attachments,
    bill,
    budget,
    growth,
    healers,
    job_storage,
    lifetime,
    plan,
    power,
    provision,
    replacement,
    shrinking,
)
from infra.cloud import Cloud, Cluster, Member, connect, find, in_all_regions, look, names, of_nodes
from infra.ec2 import keys, launch_lock, network, nodes, tags
from infra.ec2.network import SecurityGroup
from infra.ec2.nodes import MASTER, Node
from infra.ec2.tags import ClusterTags
from infra.errors import Interrupted, SetupError
from infra.events import Emit, Note, phase
from infra.healing import Recipe
from infra.node import command_log
from infra.numbers import Numbers
from infra.shrinking import Leaving
from infra.spec import ClusterSpec
from infra.survey import Survey, survey
from infra.teardown import destroy, end, undone_on_failure

__all__ = [
    "Cloud",
    "Cluster",
    "Member",
    "connect",
    "destroy",
    "find",
    "in_all_regions",
    "launch",
    "leaving",
    "names",
    "shrink",
    "start_healing",
    "stop_healing",
]

ENDINGS_SECONDS = 3.0
RUNNING_SECONDS = 300.0  # until EC2 calls what it gave running


def launch(cloud: Cloud, spec: ClusterSpec, emit: Emit) -> Cluster:
    """Bring the cluster to what ``spec`` says, and return it when Spark is ready.

    From nothing it makes all; after an interrupted launch it goes on; a ready cluster of another size grows
    or shrinks. If it fails, everything is removed, or, of a cluster that was ready before, what this run
    added. Raises ClusterBusy if somebody else is at it.
    """
    # What cannot be bought is refused before the first thing is made. Where an unfinished launch has made
    # some already, the survey comes later, under the teardown: if it fails, that is removed too.
    found = None if _is_unfinished(cloud, spec.name) else _survey(cloud, spec, emit)
    cluster: Cluster | None = None
    try:
        with launch_lock.acquired(cloud.region, spec.name, cloud.home, emit) as lock:
            cluster = _launch(cloud, spec, emit, found, lock)
    except Interrupted as stop:
        if cluster is None:
            raise
        remove = cloud.command("destroy", spec.name)
        raise Interrupted(f"{stop}, but {spec.name} was ready by then; {remove} removes it") from None
    return cluster


def shrink(cloud: Cloud, name: str, leaving: Collection[Leaving], emit: Emit) -> Cluster:
    """Take the workers ``leaving`` from a ready cluster; nothing is done on the others.

    Raises ClusterBusy if somebody else is changing the cluster.
    """
    with launch_lock.acquired(cloud.region, name, cloud.home, emit), phase(emit, "shrink"):
        there, group = find(cloud, name), network.find_group(cloud.region, name)
        if group is not None:
            numbers = growth.wanted_numbers(group, there, 0).without(shrinking.numbers_of(leaving))
            # first: who finds a worker gone that was asked for puts another in its place
            network.mark_ready(cloud.region, group, secrets.token_hex(8), numbers)
        shrinking.take_away(cloud, name, leaving, emit)
        return find(cloud, name)


def leaving(cloud: Cloud, name: str, workers: int) -> tuple[Leaving, ...]:
    """The workers that the cluster would do without if it had ``workers``; none if that are not fewer."""
    there, group = look(cloud, name), network.find_group(cloud.region, name)
    if group is None or not group.is_ready:
        return ()
    numbers = growth.wanted_numbers(group, there, 0)
    surplus = len(numbers.wanted) - workers
    return shrinking.choose(there, numbers, shrinking.ask_spark(cloud, there), surplus) if surplus > 0 else ()


def _launch(cloud: Cloud, spec: ClusterSpec, emit: Emit, found: Survey | None, lock: str) -> Cluster:
    """``launch`` while the launch lock of that id is held."""
    region = cloud.region
    before, old_group = look(cloud, spec.name), network.find_group(region, spec.name)
    was_ready = old_group is not None and old_group.is_ready
    # jobs may run on a cluster that was ready: a change of it that fails takes back only what it added
    kept = {node.id for node in before.nodes} if was_ready else set()

    def work() -> Cluster:
        known = found or _survey(cloud, spec, emit)
        with phase(emit, "network"):
            cluster_tags, group = _make_group_and_key(
                cloud, spec, known, old_group, has_nodes=bool(before.nodes)
            )
        _note_limits(cloud, spec, group, emit)
        setup = provision.Setup(
            spec=spec,
            # with a log of every command: of a launch that failed, the nodes are gone when one asks why
            connect=command_log.logged(cloud.connect, _log_folder(cloud, spec.name)),
            gpus={name: one.gpus for name, one in known.types.items()},
            emit=emit,
            pace=cloud.pace,
            lacking=attachments.lacking(region, spec.name, before.nodes),
            why_ended=_Endings(cloud, spec.name).of,
            idle_minutes=group.lifetime.idle_minutes,
        )
        # before anything is bought: who may not make a role learns it now
        profile = healers.prepare(cloud, spec, cluster_tags, emit) if spec.heal else ""
        storage = job_storage.prepare(cloud, spec, cluster_tags, group, emit) if spec.bucket else ""
        numbers = _take_surplus_away(cloud, spec, group, before, emit)
        buyer = growth.Growth(
            cloud=cloud,
            spec=spec,
            survey=known,
            cluster_tags=cluster_tags,
            group=group,
            numbers=numbers,
            emit=emit,
        )
        cluster = _bring_up(cloud, setup, buyer.buy, set() if spec.repair else kept)
        bill.remember(cloud, spec, known.image, group.created, cluster.nodes)
        # the next change is a purchase of its own: with the old tokens EC2 would answer with the old nodes
        network.mark_ready(region, group, secrets.token_hex(8), numbers)
        if group.lifetime.budget:  # with these nodes it lasts for another while
            lifetime.extend(cloud, spec.name, emit)
        job_storage.turn_on(cloud, cluster, storage)
        if profile:
            healers.turn_on(cloud, _recipe(spec, known), profile, cluster, emit)
        return cluster

    return undone_on_failure(cloud, spec.name, emit, work, kept=kept, whole=not was_ready, lock=lock)


def start_healing(cloud: Cloud, spec: ClusterSpec, emit: Emit) -> None:
    """Turn on the healer of a cluster that is there; it buys as ``spec`` says. Raises ClusterBusy."""
    with launch_lock.acquired(cloud.region, spec.name, cloud.home, emit):
        there, group = find(cloud, spec.name), network.find_group(cloud.region, spec.name)
        if group is None or not group.is_ready:
            raise SetupError(
                f"{spec.name} is not ready; {cloud.command('launch', spec.name)} brings it up first."
            )
        found = _survey(cloud, spec, emit)
        profile = healers.prepare(cloud, spec, _tags_of(cloud, spec, found, group), emit)
        healers.turn_on(cloud, _recipe(spec, found), profile, there, emit)


def stop_healing(cloud: Cloud, name: str) -> None:
    """Turn off the healer of the cluster, if there is one."""
    healers.turn_off(cloud, find(cloud, name))


def _recipe(spec: ClusterSpec, found: Survey) -> Recipe:
    return Recipe(spec=spec, pools=found.pools, gpus={name: one.gpus for name, one in found.types.items()})


def _note_limits(cloud: Cloud, spec: ClusterSpec, group: SecurityGroup, emit: Emit) -> None:
    """Say so where a cluster that is there does not get the limits that are asked for."""
    there = group.lifetime
    differs = (spec.idle_minutes and spec.idle_minutes != there.idle_minutes) or (
        spec.budget and spec.budget != there.budget
    )
    if differs:
        change = cloud.command("extend", spec.name)
        emit(Note(text=f"{spec.name} still ends itself {there}; {change} changes that"))


def _budget_ends(cloud: Cloud, spec: ClusterSpec, found: Survey) -> str:
    """When the budget may be spent, as a tag says it. Raises UsageError for one that is of no use."""
    if spec.budget is None:
        return ""
    spent = budget.of_launch(cloud.region, spec, found)
    budget.require_enough(spent, spec.budget)
    return spent.reaches(spec.budget).isoformat(timespec="seconds")


def _take_surplus_away(
    cloud: Cloud, spec: ClusterSpec, group: SecurityGroup, before: Cluster, emit: Emit
) -> Numbers:
    """End the workers beyond ``spec.workers``; the numbers of those there are to be.

    Before stopped nodes are started: those that are to go would be started and billed for nothing.
    """
    numbers = growth.wanted_numbers(group, before, spec.workers)
    surplus = len(numbers.wanted) - spec.workers
    if not surplus:
        return numbers
    health = shrinking.ask_spark(cloud, before) if group.is_ready else None
    chosen = shrinking.choose(before, numbers, health, surplus)
    shrinking.take_away(cloud, spec.name, chosen, emit)
    return numbers.without(shrinking.numbers_of(chosen))


def _bring_up(
    cloud: Cloud, setup: provision.Setup, buy: Callable[[Cluster], None], kept: Collection[str]
) -> Cluster:
    """Buy what is missing and set it up; nodes that fail are replaced, as many as the spec allows."""
    spec, emit, left = setup.spec, setup.emit, setup.spec.most_replaced
    failed: tuple[Node, ...] = ()
    cause = SetupError("")
    while True:
        before = look(cloud, spec.name, without={node.id for node in failed})
        with phase(emit, "buy"):
            buy(before)
        if failed:
            replacement.discard(cloud, spec.name, failed, cause, emit)
            failed = ()
        with phase(emit, "boot"):
            _end_other_masters(cloud, before)
            power.start(cloud, before, emit)
            cluster = _wait_for_nodes(cloud, spec, before.ended)
        try:
            provision.set_up(setup, cluster.nodes)
        except SetupError as error:
            cause = error
            if spec.repair:
                failed = replacement.repairable(error, cluster)  # which end when their successors are bought
            else:
                failed = replacement.candidates(error, cluster, kept=kept, most=left)
            if not failed or len(failed) > left:
                raise
            left -= len(failed)
            if not spec.repair:
                replacement.discard(cloud, spec.name, failed, error, emit)
                failed = ()
        else:
            return cluster


def _log_folder(cloud: Cloud, name: str) -> Path:
    return command_log.folder_of(cloud.home, cloud.region.name, name)


def _is_unfinished(cloud: Cloud, name: str) -> bool:
    """Whether there is something of the cluster, and no launch came to its end."""
    group = network.find_group(cloud.region, name)
    return not group.is_ready if group else bool(look(cloud, name).nodes)


def _survey(cloud: Cloud, spec: ClusterSpec, emit: Emit) -> Survey:
    """What the region has; the types of the nodes that are there already are known as well."""
    with phase(emit, "choose"):
        before = look(cloud, spec.name)
        found = survey(cloud.region, spec, also={node.instance_type for node in before.nodes})
        for note in found.notes:
            emit(Note(text=note))
        missing = max(0, spec.workers - len(before.workers))
        if missing or before.master is None:
            plan.require_place(spec, found, missing)
            plan.require_quota(cloud.region, spec, found, missing, master=before.master is None)
    return found


def _make_group_and_key(
    cloud: Cloud,
    spec: ClusterSpec,
    found: Survey,
    old_group: SecurityGroup | None,
    *,
    has_nodes: bool,
) -> tuple[ClusterTags, SecurityGroup]:
    """The security group and the key, and the tags of the launch that first made them.

    With the same generation a launch that goes on has the same ClientTokens: EC2 answers with what the first
    attempt made, and makes nothing twice.
    """
    region = cloud.region
    cluster_tags = _tags_of(cloud, spec, found, old_group)
    group = old_group or network.make_group(region, cluster_tags, found.subnets[0].vpc_id)
    cluster_tags = _tags_of(cloud, spec, found, group)
    network.open_group(region, group, spec.network.authorized_address or cloud.caller_address())
    if not spec.access.key_pair:
        keys.make_pair(region, cluster_tags, cloud.home, may_replace=not has_nodes)
    return cluster_tags, group


def _end_other_masters(cloud: Cloud, before: Cluster) -> None:
    """Masters that a repair that was killed has left."""
    if before.master is None:
        return
    there = nodes.alive(nodes.describe(cloud.region, before.name))
    others = {node.id for node in there if node.role == MASTER} - {before.master.id, *before.ended}
    if others:
        end(cloud, before.name, others, why=f"replaced by {tags.owner()}")


def _tags_of(cloud: Cloud, spec: ClusterSpec, found: Survey, group: SecurityGroup | None) -> ClusterTags:
    """What all that is made carries: with the generation and the times of the ``group`` that is there."""
    made = ClusterTags.new(
        spec.name,
        group.generation if group else secrets.token_hex(8),
        max_hours=spec.max_hours,
        idle_minutes=spec.idle_minutes,
        budget=spec.budget,
        budget_ends=_budget_ends(cloud, spec, found) if group is None else "",
        extra=spec.tags,
        now=cloud.region.now(),
    )
    if group is None:
        return made
    return growth.of_group(made, group)


def _wait_for_nodes(cloud: Cloud, spec: ClusterSpec, ended: Collection[str]) -> Cluster:
    running = nodes.wait_running(
        cloud.region,
        spec.name,
        spec.nodes,
        ended=ended,
        deadline_seconds=RUNNING_SECONDS,
        poll_seconds=cloud.poll_seconds,
    )
    return of_nodes(spec.name, running)


class _Endings:
    """Why nodes ended, looked up for all of them at once, and not more often than every few seconds."""

    def __init__(self, cloud: Cloud, name: str) -> None:
        self._cloud, self._name = cloud, name
        self._lock = threading.Lock()  # the nodes are asked about from threads of their own
        self._looked_at = -math.inf
        self._reasons: dict[str, str] = {}

    def of(self, node: Node) -> str:
        """EC2's reason; empty while the node is alive."""
        with self._lock:
            if time.monotonic() - self._looked_at > ENDINGS_SECONDS:
                found = nodes.describe(self._cloud.region, self._name)
                self._reasons = {one.id: one.reason or one.state for one in found if not one.is_alive}
                self._looked_at = time.monotonic()
            return self._reasons.get(node.id, "")
