"""Shrinking: which workers a cluster can best do without, and their way out, which no job should notice.

Lost ones first, of whom nothing is left but a name; then idle before busy, spot before on-demand, and the
highest number. Spark decommissions a worker before its machine ends: it gets no more work, and hands on what
it has.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from shlex import quote

from infra.cloud import Cloud, Cluster
from infra.ec2 import tags
from infra.ec2.nodes import Node
from infra.errors import InfraError
from infra.events import Emit, Note
from infra.node import bootstrap, spark
from infra.node.host import Host, on_all
from infra.numbers import Numbers, number_of
from infra.spec import SPOT
from infra.teardown import end

DECOMMISSION_SECONDS = 60  # a round that is under way, and blocks that move
SCRIPT = bootstrap.ON_NODE / "decommission.sh"


@dataclass(frozen=True, kw_only=True)
class Leaving:
    """A worker that is to be taken away; ``node`` is None for one that is lost."""

    name: str
    node: Node | None
    is_busy: bool

    def __str__(self) -> str:
        if self.node is None:
            return f"{self.name} (lost)"
        work = "a job runs on it" if self.is_busy else "idle"
        return f"{self.name} ({self.node.purchase}, {work})"


def choose(
    cluster: Cluster, numbers: Numbers, health: spark.Health | None, count: int
) -> tuple[Leaving, ...]:
    """The ``count`` workers to take from ``cluster``, which was made for ``numbers``.

    ``health``: what Spark's master says, by which the busy ones are known; None: nobody is.
    """
    busy = health.busy if health else ()
    there = {node.name: node for node in cluster.workers}
    all_names = {*there, *numbers.names}
    all_of_them = [
        Leaving(
            name=name,
            node=there.get(name),
            is_busy=name in there and there[name].private_ip in busy,
        )
        for name in all_names
    ]
    return tuple(sorted(all_of_them, key=_worth)[:count])


def ask_spark(cloud: Cloud, cluster: Cluster) -> spark.Health | None:
    """What Spark's master says; None where it cannot be asked."""
    if cluster.master is None or cluster.master.state != "running":
        return None
    try:
        return spark.health(cloud.connect(cluster.master), cluster.master.private_ip)
    except InfraError:
        return None


def take_away(cloud: Cloud, cluster: str, leaving: Collection[Leaving], emit: Emit) -> None:
    """Decommission the workers and end their machines; one that does not answer is ended as it is."""
    there = [one.node for one in leaving if one.node is not None]
    if not there:
        return
    emit(Note(text=f"taking away {', '.join(map(str, leaving))}"))
    on_all([node for node in there if node.state == "running"], lambda node: _decommission(cloud, node, emit))
    end(cloud, cluster, {node.id for node in there}, why=f"removed by {tags.owner()}")


def numbers_of(leaving: Collection[Leaving]) -> list[int]:
    return [number for one in leaving if (number := number_of(one.name))]


def _worth(one: Leaving) -> tuple[bool, bool, bool, int]:
    is_on_demand = one.node is not None and one.node.purchase != SPOT
    return one.node is not None, one.is_busy, is_on_demand, -(number_of(one.name) or 0)


def _decommission(cloud: Cloud, node: Node, emit: Emit) -> None:
    try:
        host = cloud.connect(node)
        left = decommission(host, node.private_ip, DECOMMISSION_SECONDS)
    except InfraError as error:
        emit(Note(text=f"{node.name} is ended without notice to its work: {error}"))
        return
    if left:
        emit(
            Note(text=f"{node.name} still worked after {DECOMMISSION_SECONDS} s, and is ended all the same.")
        )


def decommission(host: Host, address: str, seconds: int) -> int:
    """Let Spark's worker of that address hand on its work; how many executors are left after ``seconds``.

    Raises HostError.
    """
    script = quote(str(host.root / SCRIPT))
    said = host.run(f"bash {script} {quote(address)} {seconds}", timeout_seconds=seconds + 30).stdout.split()
    return int(said[-1]) if said and said[-1].isdigit() else 0
