"""Provision: from running machines to a ready Spark. Log in, install, mount, configure, start, wait,
verify.

Each node goes through the first three at its own speed, all nodes at once; a step that fails is tried a
second time. All of it can be done again: what is there already stays as it is.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from shlex import quote
from typing import TypeVar

from infra.cloud import Member, Pace
from infra.ec2.nodes import MASTER, WORKER, Node
from infra.errors import (
    CommandFailed,
    CommandTimedOut,
    DeadlineExceeded,
    HostError,
    HostRefused,
    HostRejectedLogin,
    HostUnreachable,
    SetupError,
    last_lines,
)
from infra.events import READY, CheckFailed, Emit, NodeProgress, phase
from infra.node import agent, bootstrap, bundle, checks, disks, spark
from infra.node.host import Host, on_all, write_text
from infra.polling import Pending, poll
from infra.spec import ClusterSpec

READY_SECONDS = 180.0
LOGS_SHOWN = 3  # of workers that did not come up

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A node with everything installed that does not depend on the others."""

    member: Member
    resources: spark.NodeResources
    folders: tuple[PurePosixPath, ...] = ()  # for what spills


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all nodes are set up with; ``gpus`` is how many each instance type has."""

    spec: ClusterSpec
    connect: Callable[[Node], Host]
    gpus: Mapping[str, int]
    emit: Emit
    pace: Pace = field(default_factory=Pace)
    lacking: Mapping[str, str] = field(default_factory=dict)  # instance id -> what EC2 says it lacks
    why_ended: Callable[[Node], str] = lambda _node: ""  # empty while it is alive
    idle_minutes: float = 0.0  # after which the nodes end without a job; 0: never

    def prepare(self, node: Node, *, mount: bool = True) -> Prepared:
        """Log in, install and, if ``mount``, mount the disks. Raises HostError, SetupError."""
        member = self._log_in(node)
        if node.id in self.lacking:
            raise HostError(
                node.name,
                f"{self.lacking[node.id]}; sparknet-ec2 repair --name {node.cluster} puts another node in "
                "its place",
            )
        if self.spec.repair:
            _require_sound(member)
        self._install(member)
        self._install_trainer(member)
        resources = _twice(lambda: spark.resources(member.host))
        if not mount:
            return Prepared(member=member, resources=resources)
        self.emit(NodeProgress(node=node.name, phase="disks"))
        folders = _twice(lambda: disks.prepare(member.host, node.volumes))
        return Prepared(member=member, resources=resources, folders=folders)

    def expected_gpus(self, node: Node) -> int:
        """How many GPUs the node has to show: the master computes nothing."""
        is_asked = self.spec.require_gpus and node.role == WORKER
        return self.gpus.get(node.instance_type, 0) if is_asked else 0

    def _log_in(self, node: Node) -> Member:
        """The node's host, once it runs commands. Raises what the last attempt raised."""
        self.emit(NodeProgress(node=node.name, phase="connect"))
        host, pace = self.connect(node), self.pace

        def overdue(error: HostError, seconds: float) -> HostError:
            return type(error)(node.name, f"{error.said}; it was tried for {seconds:g} s ({node.id})")

        def check() -> Member | Pending:
            try:
                host.run("true", timeout_seconds=30)
            except (HostRefused, HostUnreachable, HostRejectedLogin) as error:
                said = error  # Python unbinds the name of an except clause at its end
                ended = self.why_ended(node)
                if ended:
                    raise HostUnreachable(node.name, f"{node.id} has ended ({ended})") from None
                is_rejected = isinstance(error, HostRejectedLogin)
                seconds = pace.key_seconds if is_rejected else pace.login_seconds
                return Pending(lambda: overdue(said, seconds), deadline_seconds=seconds)
            return Member(node=node, host=host)

        try:
            return poll(check, deadline_seconds=pace.login_seconds, every=pace.poll_seconds)
        except HostError:
            host.close()
            raise

    def _install(self, member: Member) -> None:
        """Copy ``ami/`` to the node and run its scripts.

        Where they came to their end before, on this node or in the image it started from, only those run
        again that look at what may have changed since.
        """
        host, folder = member.host, member.host.root / bootstrap.ON_NODE
        mark, wanted = host.root / bootstrap.MARK, bootstrap.content_hash(self.spec)
        known = _twice(
            lambda: host.run(f"cat {quote(str(mark))}", timeout_seconds=60, check=False).stdout.strip()
        )
        if known != wanted:
            self.emit(NodeProgress(node=member.name, phase="copy"))
            _twice(lambda: _copy_scripts(host, folder))
        for step in bootstrap.steps(self.spec, gpus=self.expected_gpus(member.node)):
            if not (step.is_kept and known == wanted):
                self.emit(NodeProgress(node=member.name, phase=step.name))
                _run_step(host, folder, step)
        if known != wanted:
            _twice(lambda: write_text(host, mark, wanted))

    @cached_property
    def _bundle(self) -> bundle.Bundle:
        """The trainer's packages of this machine, zipped once for all nodes."""
        return bundle.build()

    def _install_trainer(self, member: Member) -> None:
        """Unpack the trainer's packages on the node, unless it has the same ones already."""
        host, packages = member.host, self._bundle
        mark = quote(str(host.root / bundle.ON_NODE / ".digest"))
        known = _twice(lambda: host.run(f"cat {mark}", timeout_seconds=60, check=False).stdout.strip())
        if known == packages.digest:
            return
        self.emit(NodeProgress(node=member.name, phase="trainer"))
        zipped, script = host.root / f"{bundle.ON_NODE}.zip", host.root / bootstrap.ON_NODE / "50-trainer.sh"
        words = " ".join(map(quote, (str(script), str(zipped), packages.digest)))

        def install() -> None:
            with tempfile.NamedTemporaryFile(prefix="sparknet-") as file:
                file.write(packages.zipped)
                file.flush()
                host.put(Path(file.name), zipped)
            host.run(f"bash {words}", timeout_seconds=120)

        _twice(install)


def set_up(setup: Setup, nodes: Sequence[Node]) -> spark.Health:
    """Bring ``nodes`` (the master first) to a Spark with all workers; what its master says then.

    Raises HostsFailed naming every node that failed, DeadlineExceeded, or ChecksFailed with a table of what
    keeps nodes from training together; ``nodes`` of each are those to blame.
    """
    with phase(setup.emit, "prepare"):
        prepared = on_all(nodes, setup.prepare)
    # while Spark starts: torch takes seconds to import, as Java takes to start
    facts = _begin(lambda: _inspect(setup, prepared))
    with phase(setup.emit, "spark"):
        try:
            health = _bring_up_spark(setup, prepared)
        except DeadlineExceeded:
            _require_fit(checks.problems(facts.result()), len(nodes), setup.emit)  # which says why
            raise
    with phase(setup.emit, "verify"):
        unreached = _reach([one.member for one in prepared], health)
        _require_fit((*checks.problems(facts.result()), *unreached), len(nodes), setup.emit)
    for node in nodes:
        setup.emit(NodeProgress(node=node.name, phase=READY))
    return health


def _require_sound(member: Member) -> None:
    """Raises SetupError if a disk that Spark spills to is dead, full or not there any more.

    The plan of its disks would go on with those that are left.
    """
    conf = quote(str(member.host.root / checks.SPARK_ENVIRONMENT))
    if member.host.run(f"test -e {conf}", timeout_seconds=30, check=False).exit_status == 0:
        wrong = checks.disks(member.host, member.name)
        if wrong:
            raise SetupError("; ".join(one.said for one in wrong))


def _copy_scripts(host: Host, folder: PurePosixPath) -> None:
    names = f"{quote(str(folder.parent))} {quote(str(folder))}"
    host.run(f'sudo mkdir -p {quote(str(folder))} && sudo chown "$(id -un)" {names}', timeout_seconds=60)
    host.put(bootstrap.AMI, folder)


def _run_step(host: Host, folder: PurePosixPath, step: bootstrap.Step) -> None:
    command = f"bash {quote(str(folder / step.script))}"
    _twice(lambda: host.run(command, env=step.env, timeout_seconds=step.timeout_seconds))


def _twice(work: Callable[[], T]) -> T:
    """``work``, and once more if it fails: a lost packet, a lock, a disk that shows up late.

    One that was still running at its deadline has had its time.
    """
    try:
        return work()
    except CommandTimedOut:
        raise
    except SetupError:
        return work()


def _require_fit(found: Sequence[checks.Problem], nodes: int, emit: Emit) -> None:
    for one in found:
        emit(CheckFailed(node=one.node, check=one.check, said=one.said))
    checks.require_none(found, nodes)


def _begin(work: Callable[[], T]) -> Future[T]:
    """Do ``work`` in a thread of its own; its deadlines are those of the commands in it."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="beside")
    try:
        return pool.submit(work)
    finally:
        pool.shutdown(wait=False)


def _inspect(setup: Setup, prepared: Sequence[Prepared]) -> list[checks.Facts]:
    folders = {one.member.name: one.folders for one in prepared}
    return on_all(
        [one.member for one in prepared],
        lambda member: _twice(
            lambda: checks.inspect(
                member.host, member.name, folders[member.name], gpus=setup.expected_gpus(member.node)
            )
        ),
    )


def _reach(members: list[Member], health: spark.Health) -> tuple[checks.Problem, ...]:
    """Each node tries the master's port and those of the workers that are not its own."""
    endpoints = (f"{members[0].node.private_ip}:{spark.MASTER_PORT}", *health.endpoints)
    names = {member.node.private_ip: member.name for member in members}

    def reach(member: Member) -> dict[str, str]:
        # Spark may still show a node that is gone
        others = names.keys() - {member.node.private_ip}
        return checks.reach(member.host, [one for one in endpoints if one.rpartition(":")[0] in others])

    answers = dict(zip((one.name for one in members), on_all(members, reach), strict=True))
    return checks.port_problems(answers, names, master=members[0].name)


def _bring_up_spark(setup: Setup, prepared: Sequence[Prepared]) -> spark.Health:
    """Start Spark everywhere and wait for it. Raises DeadlineExceeded with the logs of who is missing."""
    members = [one.member for one in prepared]
    for member in members:
        setup.emit(NodeProgress(node=member.name, phase="start"))
    secret = _secret(members[0])
    size = spark.executor_memory(members[0].host) if secret else 0
    configs = _configs(prepared, secret or secrets.token_hex(32), size)
    _start_spark(members, configs, is_new=not secret, idle_minutes=setup.idle_minutes)
    names = {member.node.private_ip: member.name for member in members[1:]}
    master = members[0]

    def without_listener(seen: spark.Health) -> set[str]:
        mine = [one for one in seen.endpoints if one.rpartition(":")[0] in names]
        return checks.refused(checks.reach(master.host, mine))

    try:
        return spark.wait_ready(
            master.host,
            master.node.private_ip,
            names,
            deadline_seconds=READY_SECONDS,
            without_listener=without_listener,
        )
    except DeadlineExceeded as error:
        missing = [member for member in members[1:] if member.name in error.nodes][:LOGS_SHOWN]
        raise DeadlineExceeded(
            "\n".join((str(error), *map(_end_of_log, missing))), nodes=error.nodes
        ) from None


def _end_of_log(member: Member) -> str:
    try:
        ending = last_lines(spark.log(member.host, spark.WORKER_UNIT))
    except SetupError as error:
        return str(error)
    return f"the end of {member.name}'s log:\n{ending or '    (empty)'}"


def _configs(prepared: Sequence[Prepared], secret: str, executor_memory_mib: int) -> list[spark.NodeConfig]:
    """Spark's configuration of each node, the master's first; ``executor_memory_mib``: so far, or 0."""
    master, workers = prepared[0].member, [one.resources for one in prepared[1:]]
    return [
        spark.NodeConfig(
            address=one.member.node.private_ip,
            master_address=master.node.private_ip,
            resources=one.resources,
            local_dirs=one.folders,
            secret=secret,
            worker_memory_mib=one.resources.offered_memory_mib(executor_memory_mib),
            # the smallest worker's: Spark gives executors of one size, and none to a worker that has less
            executor_memory_mib=min(worker.offered_memory_mib(executor_memory_mib) for worker in workers),
            executor_gpus=min(worker.gpus for worker in workers),
        )
        for one in prepared
    ]


def _secret(master: Member) -> str:
    """The cluster's secret, from its master; empty if that is new."""
    try:
        return spark.secret_of(master.host)
    except CommandFailed:
        return ""


def _start_spark(
    members: list[Member], configs: list[spark.NodeConfig], *, is_new: bool, idle_minutes: float
) -> None:
    """Spark, and the agents beside it.

    ``is_new``: the master; workers of another one go on asking for that with its secret, and start again even
    where the new one has its address.
    """
    config_of = dict(zip((member.name for member in members), configs, strict=True))

    def start(member: Member) -> None:
        unit = spark.MASTER_UNIT if member.node.role == MASTER else spark.WORKER_UNIT
        _twice(lambda: spark.configure(member.host, config_of[member.name]))
        _twice(lambda: spark.start(member.host, unit, config_of[member.name], again=is_new))
        role, master = member.node.role, members[0].node.private_ip
        _twice(lambda: agent.start(member.host, role, master=master, idle_minutes=idle_minutes))

    start(members[0])  # first: where it starts again, no worker finds the port of the one before
    on_all(members[1:], start)
