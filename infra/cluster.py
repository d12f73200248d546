"""Cluster: the recipes. Each is a list of steps; all of them can be run again.

    launch     look, make what is missing, take the surplus away, set up, wait until Spark is ready
    status     what is there, and what Spark says
    destroy    machines first, then all that belonged to them, until two listings find nothing

What a cluster is stands in the tags of its resources and nowhere else.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from shlex import quote

from infra import bootstrap, disks, service
from infra.ec2 import catalog, fleet, images, keys, network, nodes, sweep, tags, template
from infra.ec2.nodes import MASTER, WORKER, Node
from infra.ec2.region import Region
from infra.ec2.sweep import Resource
from infra.errors import (
    ClusterNotFound,
    CommandFailed,
    HostRefused,
    HostRejectedLogin,
    HostUnreachable,
    InfraError,
    Leftovers,
)
from infra.events import Emit, NodeProgress, Note, PhaseEnded, PhaseStarted, Removed
from infra.interrupts import interrupts_held
from infra.remote import Host, on_all
from infra.spec import ClusterSpec

CAPACITY_SECONDS = 300.0
RUNNING_SECONDS = 300.0
LOGIN_SECONDS = 300.0
LOGIN_GRACE_SECONDS = 45.0  # cloud-init puts the key in place a while after sshd answers
READY_SECONDS = 180.0


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
class Member:
    """A node and the connection to it."""

    node: Node
    host: Host

    @property
    def name(self) -> str:
        return self.node.name


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
    others = sorted({node.cluster for node in nodes.alive(nodes.describe(cloud.region, None))})
    there = f"there are: {', '.join(others)}" if others else "there is none"
    raise ClusterNotFound(
        f"There is no cluster {name} in {cloud.region.name} of --cloud {cloud.kind} ({there}); "
        f"make it with sparknet-ec2 launch --name {name}."
    )


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


def launch(cloud: Cloud, spec: ClusterSpec, emit: Emit) -> Cluster:
    """Bring the cluster to what ``spec`` says, and return it when Spark is ready.

    From nothing it makes all; after an interrupted launch it goes on; a ready cluster of another size grows
    or shrinks. If it fails, everything is removed, or, of a cluster that was ready before, what this run
    added.
    """
    before = _look(cloud, spec.name)
    was_ready = _is_ready(cloud, spec.name)
    kept = {node.id for node in before.nodes} if was_ready else set()
    with _undone_on_failure(cloud, spec.name, emit, kept=kept, whole=not was_ready):
        recipe, pools = _choose(cloud, spec, emit)
        stamp = _make_ground(cloud, spec, emit)
        _make_nodes(cloud, spec, recipe, pools, stamp, before, emit)
        _remove_surplus(cloud, spec, emit)
        with _phase(emit, "boot"):
            nodes.wait_running(
                cloud.region,
                spec.name,
                spec.nodes,
                deadline_seconds=RUNNING_SECONDS,
                poll_seconds=cloud.poll_seconds,
            )
        cluster = _look(cloud, spec.name)
        set_up(cloud, spec, cluster, emit)
        _mark_ready(cloud, spec.name)
    return cluster


def destroy(cloud: Cloud, name: str, emit: Emit) -> list[Resource]:
    """Remove all of the cluster, in whatever state it is; what there was. Raises Leftovers."""
    with _phase(emit, "remove"):
        removed = sweep.remove_all(cloud.region, name, emit, settle_seconds=cloud.poll_seconds)
    keys.forget(cloud.home, cloud.region.name, name)
    return removed


def set_up(cloud: Cloud, spec: ClusterSpec, cluster: Cluster, emit: Emit) -> None:
    """From running machines to a ready Spark: log in, install, mount, configure, start, wait."""
    with _phase(emit, "connect"):
        members = on_all(cluster.nodes, lambda node: _log_in(cloud, node, emit))
    gpus = {
        name: one.gpus
        for name, one in catalog.types(cloud.region, {node.instance_type for node in cluster.nodes}).items()
    }
    with _phase(emit, "install"):
        machines = on_all(members, lambda member: _install(spec, member, gpus, emit))
    with _phase(emit, "disks"):
        folders = on_all(members, lambda member: disks.prepare(member.host, member.node.volumes))
    configs = _configs(members, machines, folders)
    with _phase(emit, "spark"):
        _start_spark(members, configs)
        master = members[0]
        service.wait_ready(
            master.host, master.node.private_ip, len(members) - 1, deadline_seconds=READY_SECONDS
        )


# --- what launch is made of


def _look(cloud: Cloud, name: str) -> Cluster:
    living = nodes.alive(nodes.describe(cloud.region, name))
    masters = [node for node in living if node.role == MASTER]
    return Cluster(
        name=name,
        master=masters[0] if masters else None,
        workers=tuple(node for node in living if node.role == WORKER),
    )


def _choose(cloud: Cloud, spec: ClusterSpec, emit: Emit) -> tuple[template.Recipe, tuple[fleet.Pool, ...]]:
    """What to launch, and the pools to buy it from. Reads only."""
    with _phase(emit, "choose"):
        types, notes = catalog.today(spec.instance_types)
        for note in notes:
            emit(Note(text=note))
        image = images.find(cloud.region, spec.image)
        subnets = network.subnets(cloud.region, spec)
        offered = catalog.offerings(cloud.region, types)
        catalog.require_offered(cloud.region, types, offered)
        pools = tuple(
            fleet.Pool(instance_type=name, zone=subnet.zone, subnet_id=subnet.id)
            for name in types
            for subnet in subnets
            if subnet.zone in offered.get(name, ())
        )
    recipe = template.Recipe(
        image=image.id,
        root_device=image.root_device,
        key_pair=spec.access.key_pair or keys.key_name(spec.name),
        security_groups=spec.network.additional_security_groups,
        user_data=bootstrap.user_data(spec),
        spill=spec.spill,
        instance_profile=spec.instance_profile,
        placement_group=spec.network.placement_group,
    )
    return recipe, pools


def _make_ground(cloud: Cloud, spec: ClusterSpec, emit: Emit) -> tags.Stamp:
    """The security group and the key; the stamp of the run that first made them: its tokens stay."""
    region = cloud.region
    with _phase(emit, "network"):
        known = network.find_group(region, spec.name)
        stamp = tags.Stamp.new(
            spec.name,
            known.generation if known else secrets.token_hex(8),
            max_hours=spec.max_hours,
            extra=spec.tags,
        )
        if known is None:
            vpc = network.subnets(region, spec)[0].vpc_id
            known = network.make_group(region, stamp, vpc)
        stamp = replace(stamp, generation=known.generation, created=known.created or stamp.created)
        network.open_group(region, known, spec.network.authorized_address or cloud.caller_address())
        if spec.access.key_pair and spec.access.identity_file:
            keys.check_file(spec.access.identity_file)
        else:
            keys.make_pair(region, stamp, cloud.home)
    return stamp


def _make_nodes(
    cloud: Cloud,
    spec: ClusterSpec,
    recipe: template.Recipe,
    pools: tuple[fleet.Pool, ...],
    stamp: tags.Stamp,
    before: Cluster,
    emit: Emit,
) -> None:
    """Buy what is missing: workers first, since they are what may not be had."""
    missing = spec.workers - len(before.workers)
    if missing <= 0 and before.master:
        return
    region = cloud.region
    with _phase(emit, "buy"):
        group = network.find_group(region, spec.name)
        assert group is not None
        ours = template.find(region, spec.name) or template.make(
            region, replace(recipe, security_groups=(group.id, *recipe.security_groups)), stamp
        )
        if missing > 0:
            order = fleet.Order(
                count=missing,
                pools=_same_place(pools, before, spec),
                template=ours,
                stamp=stamp,
                purchase=spec.purchase,
                existing=tuple(node.id for node in before.workers),
            )
            fleet.buy_workers(region, order, emit, deadline_seconds=CAPACITY_SECONDS)
        if before.master is None:
            places = _master_places(cloud, spec)
            fleet.buy_master(region, spec.master_instance_type, places, ours, stamp, emit)


def _same_place(pools: tuple[fleet.Pool, ...], before: Cluster, spec: ClusterSpec) -> tuple[fleet.Pool, ...]:
    """Those of ``pools`` where the workers are already; all of them if there are none or ``spread``."""
    if not before.workers or spec.purchase.spread:
        return pools
    there = {(node.instance_type, node.zone) for node in before.workers}
    return tuple(pool for pool in pools if (pool.instance_type, pool.zone) in there) or pools


def _master_places(cloud: Cloud, spec: ClusterSpec) -> list[fleet.Pool]:
    """Zones for the master: the workers' own first, then the others that offer its type."""
    region, name = cloud.region, spec.master_instance_type
    offered = catalog.offerings(region, [name])
    catalog.require_offered(region, [name], offered)
    workers = {node.zone for node in _look(cloud, spec.name).workers}
    places = [
        fleet.Pool(instance_type=name, zone=subnet.zone, subnet_id=subnet.id)
        for subnet in network.subnets(region, spec)
        if subnet.zone in offered[name]
    ]
    return sorted(places, key=lambda place: (place.zone not in workers, place.zone))


def _remove_surplus(cloud: Cloud, spec: ClusterSpec, emit: Emit) -> None:
    """End the newest workers beyond ``spec.workers``."""
    surplus = {node.id for node in _look(cloud, spec.name).workers[spec.workers :]}
    if not surplus:
        return
    with _phase(emit, "shrink"):
        nodes.terminate(cloud.region, sorted(surplus))
        nodes.wait_gone(
            cloud.region, spec.name, lambda node: node.id in surplus, deadline_seconds=RUNNING_SECONDS
        )


def _is_ready(cloud: Cloud, name: str) -> bool:
    group = network.find_group(cloud.region, name)
    return group is not None and group.is_ready


def _mark_ready(cloud: Cloud, name: str) -> None:
    """The launch is over: the next one draws its tokens from a new generation."""
    group = network.find_group(cloud.region, name)
    if group is not None:
        network.mark_ready(cloud.region, group, secrets.token_hex(8))


def _log_in(cloud: Cloud, node: Node, emit: Emit) -> Member:
    """The node's host, once it runs commands. Raises what the last attempt raised."""
    emit(NodeProgress(node=node.name, phase="connect"))
    began = time.monotonic()
    while True:
        waited = time.monotonic() - began
        try:
            host = cloud.connect(node)
            host.run("true", timeout_seconds=30)
        except (HostRefused, HostUnreachable):
            if waited > LOGIN_SECONDS:
                raise
        except HostRejectedLogin:
            if waited > LOGIN_GRACE_SECONDS:
                raise
        else:
            return Member(node=node, host=host)
        time.sleep(min(cloud.poll_seconds, 2.0))


def _install(spec: ClusterSpec, member: Member, gpus: dict[str, int], emit: Emit) -> service.Machine:
    """Copy ``ami/`` to the node and run its scripts; each is tried twice."""
    host, folder = member.host, member.host.root / bootstrap.ON_NODE
    host.run(
        f'sudo mkdir -p {quote(str(folder))} && sudo chown -R "$(id -un)" {quote(str(folder.parent))}',
        timeout_seconds=60,
    )
    host.put(bootstrap.AMI, folder)
    needs_gpus = spec.require_gpus and member.node.role == WORKER
    for step in bootstrap.steps(spec, gpus=gpus.get(member.node.instance_type, 0) if needs_gpus else 0):
        emit(NodeProgress(node=member.name, phase=step.name))
        command = f"bash {quote(str(folder / step.script))}"
        first = host.run(command, env=step.env, timeout_seconds=step.timeout_seconds, check=False)
        if first.exit_status != 0:
            host.run(command, env=step.env, timeout_seconds=step.timeout_seconds)
    return service.machine(host)


def _configs(
    members: list[Member],
    machines: list[service.Machine],
    folders: list[tuple[PurePosixPath, ...]],
) -> list[service.NodeConfig]:
    """Spark's configuration of each node, the master's first."""
    workers = machines[1:]
    secret = _secret(members[0])
    return [
        service.NodeConfig(
            address=member.node.private_ip,
            master_address=members[0].node.private_ip,
            machine=machine,
            local_dirs=dirs,
            secret=secret,
            executor_memory_mib=min(worker.spark_memory_mib for worker in workers),
            executor_gpus=min(worker.gpus for worker in workers),
        )
        for member, machine, dirs in zip(members, machines, folders, strict=True)
    ]


def _secret(master: Member) -> str:
    """The cluster's secret: the one its master has, or a new one."""
    try:
        return service.secret_of(master.host)
    except CommandFailed:
        return secrets.token_hex(32)


def _start_spark(members: list[Member], configs: list[service.NodeConfig]) -> None:
    config_of = dict(zip((member.name for member in members), configs, strict=True))

    def start(member: Member) -> None:
        unit = service.MASTER_UNIT if member.node.role == MASTER else service.WORKER_UNIT
        service.configure(member.host, config_of[member.name])
        service.start(member.host, unit, config_of[member.name])

    start(members[0])
    on_all(members[1:], start)


@contextmanager
def _phase(emit: Emit, name: str) -> Iterator[None]:
    began = time.monotonic()
    emit(PhaseStarted(phase=name))
    yield
    emit(PhaseEnded(phase=name, seconds=time.monotonic() - began))


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
            emit(Note(text=f"Launch of {name} did not succeed; removing what it made."))
            try:
                if whole:
                    removed = len(destroy(cloud, name, emit))
                else:
                    removed = _remove_added(cloud, name, kept, emit)
            except InfraError as second:
                raise Leftovers(
                    f"{error}\nand not everything it had made could be removed: {second}"
                ) from error
            left = len(sweep.remaining(cloud.region, name)) if whole else 0
            emit(
                Note(
                    text=f"{removed} resources removed, {left} left."
                    if whole
                    else f"{removed} nodes removed."
                )
            )
        raise


def _remove_added(cloud: Cloud, name: str, kept: set[str], emit: Emit) -> int:
    added = {node.id for node in _look(cloud, name).nodes} - kept
    nodes.terminate(cloud.region, sorted(added))
    nodes.wait_gone(cloud.region, name, lambda node: node.id in added, deadline_seconds=RUNNING_SECONDS)
    for identity in sorted(added):
        emit(Removed(kind="instance", id=identity))
    return len(added)
