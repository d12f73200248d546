"""Cloud: where clusters are made, and which there are. What a cluster is stands in the tags of its
resources.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path

from infra.ec2 import nodes
from infra.ec2.nodes import MASTER, WORKER, Node
from infra.ec2.region import Region
from infra.errors import ClusterNotFound
from infra.node.host import Host


@dataclass(frozen=True, kw_only=True)
class Member:
    """A node and the connection to it."""

    node: Node
    host: Host

    @property
    def name(self) -> str:
        return self.node.name


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How long to wait for a node's first answer, and how often to ask."""

    poll_seconds: float = 2.0
    login_seconds: float = 180.0  # a GPU image is up a minute or two after EC2 calls it running

    @property
    def key_seconds(self) -> float:
        """cloud-init puts the key in place a while after sshd answers."""
        return self.login_seconds / 4


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """Where clusters are made: an API, a way to reach what it makes, and a folder for keys here."""

    kind: str  # "aws" or "local", for messages
    region: Region
    connect: Callable[[Node], Host]
    caller_address: Callable[[], str]  # CIDR that ssh will come from
    home: Path
    poll_seconds: float = 2.0
    login_seconds: float = 180.0  # until a machine that runs has to let us in
    url_for_hosts: str = ""  # of the API, where nodes reach the embedded cloud; empty for that of AWS
    home_of_processes: str = ""  # of an embedded cloud whose nodes are no machines that one logs in to

    @property
    def pace(self) -> Pace:
        """How long to wait for one node, and how often to ask it."""
        return Pace(poll_seconds=min(self.poll_seconds, 2.0), login_seconds=self.login_seconds)

    def command(self, verb: str, name: str) -> str:
        """What to type for ``verb`` on the cluster ``name`` of this cloud."""
        where = "" if self.kind == "local" else f" --cloud {self.kind}"
        return f"sparknet-ec2 {verb} --name {name}{where} --region {self.region.name}"


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster as it was found: its living nodes, and the ids of ended ones that EC2 still lists."""

    name: str
    master: Node | None
    workers: tuple[Node, ...]
    ended: tuple[str, ...] = ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        return (*([self.master] if self.master else []), *self.workers)


def find(cloud: Cloud, name: str) -> Cluster:
    """The cluster called ``name``. Raises ClusterNotFound, naming those there are."""
    found = look(cloud, name)
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


def connect(cloud: Cloud, name: str) -> list[Member]:
    """The running nodes of the cluster, each with its host; the master first. Raises ClusterNotFound."""
    running = [node for node in find(cloud, name).nodes if node.state == "running"]
    return [Member(node=node, host=cloud.connect(node)) for node in running]


def look(cloud: Cloud, name: str, *, without: Collection[str] = ()) -> Cluster:
    """What there is of the cluster called ``name``, which may be nothing.

    ``without``: ids of nodes that count as ended, since others are to take their places.
    """
    found = nodes.describe(cloud.region, name)
    there = of_nodes(name, [node for node in found if node.id not in without])
    return replace(there, ended=(*there.ended, *sorted(without)))


def of_nodes(name: str, found: list[Node]) -> Cluster:
    """The cluster that consists of the living ones of ``found``."""
    living = nodes.alive(found)
    masters = [node for node in living if node.role == MASTER]
    return Cluster(
        name=name,
        master=masters[0] if masters else None,
        workers=tuple(node for node in living if node.role == WORKER),
        ended=tuple(node.id for node in found if not node.is_alive),
    )
