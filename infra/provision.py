"""Provision: from running machines to a ready Spark. Log in, install, mount, configure, start, wait,
verify.

All of it works on all nodes at once, and can be done again: what is there already stays as it is.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from shlex import quote
from typing import TypeVar

from infra import bootstrap, disks, gate, service
from infra.ec2.nodes import MASTER, WORKER, Node
from infra.errors import CommandFailed, DeadlineExceeded, HostRefused, HostRejectedLogin, HostUnreachable
from infra.events import CheckFailed, Emit, NodeProgress, PhaseEnded, PhaseStarted
from infra.remote import Host, on_all, write_text
from infra.spec import ClusterSpec

LOGIN_SECONDS = 300.0
LOGIN_GRACE_SECONDS = 45.0  # cloud-init puts the key in place a while after sshd answers
READY_SECONDS = 180.0

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Member:
    """A node and the connection to it."""

    node: Node
    host: Host

    @property
    def name(self) -> str:
        return self.node.name


@contextmanager
def phase(emit: Emit, name: str) -> Iterator[None]:
    """Tell when a step begins, and how long it took when it has succeeded."""
    began = time.monotonic()
    emit(PhaseStarted(phase=name))
    yield
    emit(PhaseEnded(phase=name, seconds=time.monotonic() - began))


def set_up(
    spec: ClusterSpec,
    nodes: Sequence[Node],
    connect: Callable[[Node], Host],
    gpus: dict[str, int],
    emit: Emit,
    *,
    poll_seconds: float,
) -> service.Health:
    """Bring ``nodes`` (the master first) to a Spark with all workers; what its master says then.

    ``gpus`` is how many each instance type has. Raises HostsFailed naming every node that failed,
    DeadlineExceeded, or GateFailed with a table of what keeps nodes from training together.
    """
    prepared = prepare(spec, nodes, connect, gpus, emit, poll_seconds=poll_seconds)
    members, machines = [member for member, _ in prepared], [machine for _, machine in prepared]
    with phase(emit, "disks"):
        folders = on_all(members, lambda member: disks.prepare(member.host, member.node.volumes))
    facts = _begin(lambda: _inspect(spec, members, folders, gpus))  # while Spark starts
    with phase(emit, "spark"):
        _start_spark(members, _configs(members, machines, folders))
        master = members[0]
        try:
            health = service.wait_ready(
                master.host,
                master.node.private_ip,
                [member.node.private_ip for member in members[1:]],
                deadline_seconds=READY_SECONDS,
            )
        except DeadlineExceeded:
            _require_fit(gate.findings(facts.result()), len(members), emit)  # which tells why
            raise
    with phase(emit, "verify"):
        unreached = _reach(members, health)
        _require_fit((*gate.findings(facts.result()), *unreached), len(members), emit)
    return health


def prepare(
    spec: ClusterSpec,
    nodes: Sequence[Node],
    connect: Callable[[Node], Host],
    gpus: dict[str, int],
    emit: Emit,
    *,
    poll_seconds: float,
) -> list[tuple[Member, service.Machine]]:
    """Log in to ``nodes`` and install all that does not depend on the cluster. Raises HostsFailed."""
    with phase(emit, "connect"):
        members = on_all(nodes, lambda node: _log_in(node, connect, emit, poll_seconds))
    with phase(emit, "install"):
        return list(
            zip(members, on_all(members, lambda member: _install(spec, member, gpus, emit)), strict=True)
        )


def _require_fit(found: Sequence[gate.Finding], nodes: int, emit: Emit) -> None:
    for one in found:
        emit(CheckFailed(node=one.node, check=one.check, said=one.said))
    gate.require_none(found, nodes)


def _begin(work: Callable[[], T]) -> Future[T]:
    """Do ``work`` in a thread of its own; its deadlines are those of the commands in it."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="beside")
    try:
        return pool.submit(work)
    finally:
        pool.shutdown(wait=False)


def _inspect(
    spec: ClusterSpec,
    members: list[Member],
    folders: list[tuple[PurePosixPath, ...]],
    gpus: dict[str, int],
) -> list[gate.Facts]:
    folders_of = dict(zip((member.name for member in members), folders, strict=True))
    return on_all(
        members,
        lambda member: gate.inspect(
            member.host, member.name, folders_of[member.name], gpus=_gpus(spec, member, gpus)
        ),
    )


def _reach(members: list[Member], health: service.Health) -> list[gate.Finding]:
    """Each node tries the master's port and those of the workers that are not its own."""
    endpoints = (f"{members[0].node.private_ip}:{service.MASTER_PORT}", *health.endpoints)
    addresses = {member.node.private_ip for member in members}  # Spark may still show a node that is gone

    def reach(member: Member) -> tuple[gate.Finding, ...]:
        others = addresses - {member.node.private_ip}
        return gate.reach(
            member.host, member.name, [one for one in endpoints if one.rpartition(":")[0] in others]
        )

    return [finding for found in on_all(members, reach) for finding in found]


def _log_in(node: Node, connect: Callable[[Node], Host], emit: Emit, poll_seconds: float) -> Member:
    """The node's host, once it runs commands. Raises what the last attempt raised."""
    emit(NodeProgress(node=node.name, phase="connect"))
    began = time.monotonic()
    while True:
        waited = time.monotonic() - began
        try:
            host = connect(node)
            host.run("true", timeout_seconds=30)
        except (HostRefused, HostUnreachable):
            if waited > LOGIN_SECONDS:
                raise
        except HostRejectedLogin:
            if waited > LOGIN_GRACE_SECONDS:
                raise
        else:
            return Member(node=node, host=host)
        time.sleep(poll_seconds)


def _install(spec: ClusterSpec, member: Member, gpus: dict[str, int], emit: Emit) -> service.Machine:
    """Copy ``ami/`` to the node and run its scripts; each is tried twice.

    Where they came to their end before, on this node or in the image it started from, only those run again
    that look at what may have changed since.
    """
    host, folder = member.host, member.host.root / bootstrap.ON_NODE
    mark, recipe = host.root / bootstrap.MARK, bootstrap.recipe(spec)
    known = host.run(f"cat {quote(str(mark))}", timeout_seconds=60, check=False).stdout.strip()
    if known != recipe:
        host.run(
            f'sudo mkdir -p {quote(str(folder))} && sudo chown "$(id -un)" {quote(str(folder.parent))} '
            f"{quote(str(folder))}",
            timeout_seconds=60,
        )
        host.put(bootstrap.AMI, folder)
    for step in bootstrap.steps(spec, gpus=_gpus(spec, member, gpus)):
        if step.is_kept and known == recipe:
            continue
        emit(NodeProgress(node=member.name, phase=step.name))
        command = f"bash {quote(str(folder / step.script))}"
        first = host.run(command, env=step.env, timeout_seconds=step.timeout_seconds, check=False)
        if first.exit_status != 0:
            host.run(command, env=step.env, timeout_seconds=step.timeout_seconds)
    if known != recipe:
        write_text(host, mark, recipe)
    return service.machine(host)


def _gpus(spec: ClusterSpec, member: Member, gpus: dict[str, int]) -> int:
    """How many GPUs the node has to show: the master computes nothing."""
    is_asked = spec.require_gpus and member.node.role == WORKER
    return gpus.get(member.node.instance_type, 0) if is_asked else 0


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
        return service.secret_of(master.host) or secrets.token_hex(32)
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
