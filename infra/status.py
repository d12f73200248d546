"""Status: all there is to know of a cluster: its nodes and why some are gone, what Spark says of them, what
runs, what it has cost, and what ends it.
"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import datetime

from infra import bill, diagnosis, history
from infra.bill import Bill
from infra.cloud import Cloud, Cluster, look
from infra.ec2 import cleanup, notices
from infra.ec2.lifetime import Lifetime
from infra.ec2.notices import Notice
from infra.errors import ClusterNotFound, InfraError
from infra.history import Run
from infra.jobs import progress
from infra.jobs.progress import RunningJob
from infra.node import spark
from infra.node.checks import Problem


@dataclass(frozen=True, kw_only=True)
class Status:
    """A cluster, and what Spark's master says of it (None if it cannot be asked).

    ``asked``: the names of the workers that were asked for, there or lost. ``troubles`` is empty where nobody
    looked for any.
    """

    cluster: Cluster
    asked: tuple[str, ...]
    health: spark.Health | None
    bill: Bill
    jobs: tuple[RunningJob, ...]
    lifetime: Lifetime
    notices: dict[str, Notice]  # by instance id, of nodes that EC2 is taking back
    troubles: tuple[Problem, ...]

    @property
    def healing(self) -> str:
        """Whether lost workers are replaced by themselves, and what came of it last."""
        group = self.bill.group
        if group is None or not group.heals:
            return "off"
        return f"on; {group.healer}" if group.healer else "on"

    @property
    def runs(self) -> tuple[Run, ...]:
        """Its nodes: those that live by their names, then those that have ended, the last first."""
        living = sorted(
            (run for run in self.bill.runs if not run.is_gone),
            key=lambda run: (run.role != "master", _number(run)),
        )
        gone = sorted((run for run in self.bill.runs if run.is_gone), key=lambda run: run.ended, reverse=True)
        return (*living, *gone)

    @property
    def missing(self) -> tuple[str, ...]:
        """The workers that were asked for and are not there."""
        there = {node.name for node in self.cluster.workers}
        return tuple(name for name in self.asked if name not in there)

    def spark_of(self, run: Run) -> str:
        """What Spark says of a node: "alive", "absent", or nothing of one that need not be there."""
        node = next((one for one in self.cluster.nodes if one.id == run.id), None)
        if node is None or node.state != "running" or self.health is None or self.health.status == "DOWN":
            return ""
        if node.role == "master":
            return self.health.status.lower()
        return "alive" if node.private_ip in self.health.addresses else "absent"


def status(cloud: Cloud, name: str, *, with_troubles: bool = True) -> Status:
    """What there is of the cluster called ``name``. Raises ClusterNotFound where there is nothing.

    ``with_troubles``: every node is asked what is wrong with it, which takes a login each.
    """
    found = bill.look(cloud, name)
    if found is None:
        raise _not_found(cloud, name)
    cluster = look(cloud, name)
    health, jobs = _ask_master(cloud, cluster)
    return Status(
        cluster=cluster,
        asked=found.group.numbers.names if found.group else (),
        health=health,
        bill=found,
        jobs=jobs,
        lifetime=next((Lifetime.of(node.tags) for node in cluster.nodes), Lifetime()),
        notices=notices.of_nodes(cloud.region, cluster.nodes),
        troubles=diagnosis.of_cluster(cloud, name) if with_troubles and cluster.nodes else (),
    )


def names(cloud: Cloud) -> list[str]:
    """The clusters of the region of which anything is left."""
    return sorted({one.cluster for one in cleanup.remaining(cloud.region, None)})


def _ask_master(cloud: Cloud, cluster: Cluster) -> tuple[spark.Health | None, tuple[RunningJob, ...]]:
    master = cluster.master
    if master is None or master.state != "running":
        return None, ()
    health: spark.Health | None = None
    jobs: tuple[RunningJob, ...] = ()
    with suppress(InfraError), closing(cloud.connect(master)) as host:
        health = spark.health(host, master.private_ip)
        jobs = progress.of_running(host)
    return health, jobs


def _not_found(cloud: Cloud, name: str) -> ClusterNotFound:
    others = [one for one in names(cloud) if one != name]
    there = f"there are: {', '.join(others)}" if others else "there is none"
    past = [one for one in history.lives(cloud.home, cloud.region.name, name) if one.runs]
    was = ""
    if past:
        seen = datetime.fromisoformat(past[-1].destroyed or past[-1].seen)
        was = f"; the last one ended by {seen:%Y-%m-%d %H:%M} UTC ({cloud.command('cost', name)})"
    return ClusterNotFound(
        f"There is no cluster {name} in {cloud.region.name} of --cloud {cloud.kind} ({there}){was}; "
        f"make it with sparknet-ec2 launch --name {name}."
    )


def _number(run: Run) -> tuple[int, str]:
    ending = run.name.rpartition("-")[2]
    return (int(ending) if ending.isdigit() else 0, run.name)
