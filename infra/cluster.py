"""Cluster: the recipes. Each is a list of steps; all of them can be run again.

    launch     look, make what is missing, take the surplus away, set up, wait until Spark is ready
    status     what is there, and what Spark says
    destroy    machines first, then all that belonged to them, until two listings find nothing

What a cluster is stands in the tags of its resources and nowhere else.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from infra import bootstrap, plan, provision, service
from infra.ec2 import fleet, keys, network, nodes, sweep, template
from infra.ec2.network import SecurityGroup
from infra.ec2.nodes import MASTER, WORKER, Node
from infra.ec2.region import Region
from infra.ec2.sweep import Resource
from infra.ec2.tags import Stamp
from infra.errors import ClusterNotFound, InfraError, Leftovers
from infra.events import Emit, Note, Removed
from infra.interrupts import interrupts_held
from infra.provision import Member, phase
from infra.remote import Host
from infra.spec import ClusterSpec

__all__ = [
    "Cloud",
    "Cluster",
    "Member",
    "Status",
    "connect",
    "destroy",
    "find",
    "in_all_regions",
    "launch",
    "names",
    "status",
]

CAPACITY_SECONDS = 300.0
RUNNING_SECONDS = 300.0
GONE_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Where clusters are made: an API, a way to reach what it makes, and a folder for keys here."""

    kind: str  # "aws" or "local", for messages
    region: Region
    connect: Callable[[Node], Host]
    caller_address: Callable[[], str]  # CIDR that ssh will come from
    home: Path
    poll_seconds: float = 2.0


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster as it was found: its living nodes."""

    name: str
    master: Node | None
    workers: tuple[Node, ...]

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (*([self.master] if self.master else []), *self.workers)


@dataclass(frozen=True, kw_only=True)
class Status:
    """A cluster and what Spark's master says of it (None if it cannot be asked)."""

    cluster: Cluster
    health: service.Health | None


def find(cloud: Cloud, name: str) -> Cluster:
    """The cluster called ``name``. Raises ClusterNotFound, naming those there are."""
    found = _look(cloud, name)
    if found.nodes:
        return found
    others = names(cloud)
    there = f"there are: {', '.join(others)}" if others else "there is none"
    raise ClusterNotFound(
        f"There is no cluster {name} in {cloud.region.name} of --cloud {cloud.kind} ({there}); "
        f"make it with sparknet-ec2 launch --name {name}."
    )


def names(cloud: Cloud) -> list[str]:
    """The clusters of the region that have living nodes."""
    return sorted({node.cluster for node in nodes.alive(nodes.describe(cloud.region, None))})


def in_all_regions(cloud: Cloud) -> list[Cloud]:
    """The same cloud in every region the account can use; its own first."""
    found = {one["RegionName"] for one in cloud.region.read("describe_regions")["Regions"]}
    others = sorted(found - {cloud.region.name})
    return [cloud, *(replace(cloud, region=cloud.region.at(name)) for name in others)]


def status(cloud: Cloud, name: str) -> Status:
    """What is there, and what Spark says."""
    cluster = find(cloud, name)
    master = cluster.master
    if master is None or master.state != "running":
        return Status(cluster=cluster, health=None)
    try:
        return Status(cluster=cluster, health=service.health(cloud.connect(master), master.private_ip))
    except InfraError:
        return Status(cluster=cluster, health=None)


def connect(cloud: Cloud, name: str) -> list[Member]:
    """The running nodes of the cluster, each with its host; the master first. Raises ClusterNotFound."""
    running = [node for node in find(cloud, name).nodes if node.state == "running"]
    return [Member(node=node, host=cloud.connect(node)) for node in running]


def launch(cloud: Cloud, spec: ClusterSpec, emit: Emit) -> Cluster:
    """Bring the cluster to what ``spec`` says, and return it when Spark is ready.

    From nothing it makes all; after an interrupted launch it goes on; a ready cluster of another size grows
    or shrinks. If it fails, everything is removed, or, of a cluster that was ready before, what this run
    added.
    """
    region = cloud.region
    before, ground = _look(cloud, spec.name), network.find_group(region, spec.name)
    was_ready = ground is not None and ground.is_ready
    kept = {node.id for node in before.nodes} if was_ready else set()
    with _undone_on_failure(cloud, spec.name, emit, kept=kept, whole=not was_ready):
        with phase(emit, "choose"):
            found = _survey(cloud, spec, before, emit)
        with phase(emit, "network"):
            stamp, group = _make_ground(cloud, spec, found, ground, has_nodes=bool(before.nodes))
        with phase(emit, "buy"):
            _make_nodes(cloud, spec, found, stamp, group, before, emit)
        with phase(emit, "boot"):
            _remove_surplus(cloud, spec, before)
            cluster = _wait_for_nodes(cloud, spec)
        gpus = {name: one.gpus for name, one in found.types.items()}
        provision.set_up(
            spec, cluster.nodes, cloud.connect, gpus, emit, poll_seconds=min(cloud.poll_seconds, 2.0)
        )
        network.mark_ready(region, group, secrets.token_hex(8))
    return cluster


def destroy(cloud: Cloud, name: str, emit: Emit) -> list[Resource]:
    """Remove all of the cluster, in whatever state it is; what there was. Raises Leftovers."""
    with phase(emit, "remove"):
        removed = sweep.remove_all(cloud.region, name, emit, settle_seconds=cloud.poll_seconds)
    keys.forget(cloud.home, cloud.region.name, name)
    return removed


def _look(cloud: Cloud, name: str) -> Cluster:
    return _cluster(name, nodes.describe(cloud.region, name))


def _cluster(name: str, found: list[Node]) -> Cluster:
    living = nodes.alive(found)
    masters = [node for node in living if node.role == MASTER]
    return Cluster(
        name=name,
        master=masters[0] if masters else None,
        workers=tuple(node for node in living if node.role == WORKER),
    )


def _survey(cloud: Cloud, spec: ClusterSpec, before: Cluster, emit: Emit) -> plan.Survey:
    """What the region has; the types of the nodes that are there already are known as well."""
    there = {node.instance_type for node in before.nodes}
    found = plan.survey(cloud.region, spec, also=there)
    for note in found.notes:
        emit(Note(text=note))
    missing = spec.workers - len(before.workers)
    if missing > 0:
        plan.require_quota(cloud.region, spec, found, missing)
    return found


def _make_ground(
    cloud: Cloud,
    spec: ClusterSpec,
    found: plan.Survey,
    ground: SecurityGroup | None,
    *,
    has_nodes: bool,
) -> tuple[Stamp, SecurityGroup]:
    """The security group and the key; the stamp of the run that first made them: its tokens stay."""
    region = cloud.region
    stamp = Stamp.new(
        spec.name,
        ground.generation if ground else secrets.token_hex(8),
        max_hours=spec.max_hours,
        extra=spec.tags,
    )
    group = ground or network.make_group(region, stamp, found.subnets[0].vpc_id)
    stamp = replace(stamp, generation=group.generation, created=group.created, expires=group.expires)
    network.open_group(region, group, spec.network.authorized_address or cloud.caller_address())
    if spec.access.key_pair and spec.access.identity_file:
        keys.check_file(spec.access.identity_file)
    else:
        keys.make_pair(region, stamp, cloud.home, may_replace=not has_nodes)
    return stamp, group


def _make_nodes(
    cloud: Cloud,
    spec: ClusterSpec,
    found: plan.Survey,
    stamp: Stamp,
    group: SecurityGroup,
    before: Cluster,
    emit: Emit,
) -> None:
    """Buy what is missing: workers first, since they are what may not be had."""
    missing, region = spec.workers - len(before.workers), cloud.region
    if missing <= 0 and before.master:
        return
    ours = template.find(region, spec.name) or template.make(region, recipe(spec, found, group), stamp)
    zones = {node.zone for node in before.workers}
    if missing > 0:
        order = fleet.Order(
            count=missing,
            pools=_same_place(found.pools, before, spec),
            template=ours,
            stamp=stamp,
            purchase=spec.purchase,
            existing=tuple(node.id for node in before.workers),
        )
        zones |= fleet.buy_workers(region, order, emit, deadline_seconds=CAPACITY_SECONDS)
    if before.master is None:
        # next to the workers: traffic between zones costs
        places = sorted(found.master_places, key=lambda place: (place.zone not in zones, place.zone))
        fleet.buy_master(region, places, ours, stamp, emit)


def recipe(spec: ClusterSpec, found: plan.Survey, group: SecurityGroup) -> template.Recipe:
    """What all nodes start from."""
    return template.Recipe(
        image=found.image.id,
        root_device=found.image.root_device,
        key_pair=spec.access.key_pair or keys.key_name(spec.name),
        security_groups=(group.id, *spec.network.additional_security_groups),
        user_data=bootstrap.user_data(spec),
        spill=spec.spill,
        instance_profile=spec.instance_profile,
        placement_group=spec.network.placement_group,
    )


def _same_place(pools: tuple[fleet.Pool, ...], before: Cluster, spec: ClusterSpec) -> tuple[fleet.Pool, ...]:
    """Those of ``pools`` where the workers are already; all of them if there are none or ``spread``."""
    if not before.workers or spec.purchase.spread:
        return pools
    there = {(node.instance_type, node.zone) for node in before.workers}
    return tuple(pool for pool in pools if (pool.instance_type, pool.zone) in there) or pools


def _remove_surplus(cloud: Cloud, spec: ClusterSpec, before: Cluster) -> None:
    """End the newest workers beyond ``spec.workers``."""
    surplus = {node.id for node in before.workers[spec.workers :]}
    if surplus:
        _end(cloud, spec.name, surplus)


def _end(cloud: Cloud, name: str, ids: set[str]) -> None:
    nodes.terminate(cloud.region, sorted(ids))
    nodes.wait_gone(
        cloud.region,
        name,
        lambda node: node.id in ids,
        deadline_seconds=GONE_SECONDS,
        poll_seconds=cloud.poll_seconds,
    )


def _wait_for_nodes(cloud: Cloud, spec: ClusterSpec) -> Cluster:
    running = nodes.wait_running(
        cloud.region,
        spec.name,
        spec.nodes,
        deadline_seconds=RUNNING_SECONDS,
        poll_seconds=cloud.poll_seconds,
    )
    return _cluster(spec.name, running)


@contextmanager
def _undone_on_failure(cloud: Cloud, name: str, emit: Emit, *, kept: set[str], whole: bool) -> Iterator[None]:
    """Whatever ends the body before its end, an interrupt too, first takes down what was made.

    ``whole``: all of the cluster; otherwise the nodes that are not ``kept``. Raises the body's error, or
    Leftovers with it if not everything could be removed.
    """
    try:
        yield
    except BaseException as error:
        with interrupts_held():
            try:
                if whole:
                    _take_down(cloud, name, emit)
                else:
                    _take_back(cloud, name, kept, emit)
            except InfraError as second:
                raise Leftovers(
                    f"{error}\nand not everything that had been made could be removed: {second}"
                ) from error
        raise


def _take_down(cloud: Cloud, name: str, emit: Emit) -> None:
    emit(Note(text=f"The launch of {name} did not succeed; removing what it made."))
    removed = destroy(cloud, name, emit)
    emit(Note(text=f"{len(removed)} resources removed, 0 resources left."))


def _take_back(cloud: Cloud, name: str, kept: set[str], emit: Emit) -> None:
    """Of a cluster that was ready before: the nodes that are new."""
    added = {node.id for node in _look(cloud, name).nodes} - kept
    if not added:
        return
    emit(Note(text=f"The change of {name} did not succeed; removing the nodes it added."))
    _end(cloud, name, added)
    for identity in sorted(added):
        emit(Removed(kind="instance", id=identity))
