"""Replacement: a node that fails while a cluster is brought up is ended, and another one takes its place.

Only where that may help: some nodes failed and others did not, they are few, and none of them was part of a
cluster that was ready before, where somebody may be at work. ``repair`` replaces those as well, but never a
master that answers, with which the job would end; and it buys first, and ends what fails once it has others.
"""

from __future__ import annotations

from collections.abc import Collection

from infra.cloud import Cloud, Cluster
from infra.ec2 import keys, nodes, tags
from infra.ec2.nodes import MASTER, Node
from infra.errors import HostRefused, HostsFailed, HostUnreachable, InfraError, SetupError, shorten
from infra.events import Emit, NodeReplaced, Note
from infra.teardown import end

CONSOLE_LINES = 10


def candidates(error: SetupError, cluster: Cluster, *, kept: Collection[str], most: int) -> tuple[Node, ...]:
    """The nodes that ``error`` is about, if new ones may do better; otherwise none.

    ``kept``: ids of nodes that must stay, since somebody may be at work on them. ``most``: so many may be
    replaced.
    """
    failed = tuple(node for node in cluster.nodes if node.name in error.nodes)
    # a key, a security group, an image: new nodes would fail in the same way
    is_common = len(failed) == len(cluster.nodes)
    if is_common or len(failed) > most or any(node.id in kept for node in failed):
        return ()
    return failed


def repairable(error: SetupError, cluster: Cluster) -> tuple[Node, ...]:
    """The nodes of a ready cluster that ``error`` is about, without a master that answers."""
    failed = candidates(error, cluster, kept=(), most=len(cluster.nodes))
    return tuple(node for node in failed if node.role != MASTER or _is_silent(error, node))


def _is_silent(error: SetupError, node: Node) -> bool:
    return isinstance(_cause(error, node), HostUnreachable | HostRefused)


def discard(cloud: Cloud, name: str, failed: Collection[Node], error: SetupError, emit: Emit) -> None:
    """End the nodes and forget the keys they showed: their addresses may be given to others."""
    for node in failed:
        cause = _cause(error, node)
        emit(NodeReplaced(node=node.name, id=node.id, why=shorten(str(cause), 200)))
        console = _console(cloud, node) if isinstance(cause, HostUnreachable | HostRefused) else ""
        if console:
            emit(Note(text=f"the end of {node.name}'s console:\n{console}"))
    end(cloud, name, {node.id for node in failed}, why=f"replaced by {tags.owner()}, since it failed")
    addresses = [address for node in failed for address in (node.public_ip, node.private_ip)]
    keys.forget_hosts(cloud.home, cloud.region.name, name, addresses)


def _cause(error: SetupError, node: Node) -> Exception:
    return error.failures.get(node.name, error) if isinstance(error, HostsFailed) else error


def _console(cloud: Cloud, node: Node) -> str:
    """The end of the machine's own console; empty where EC2 does not give it."""
    try:
        return nodes.console(cloud.region, node.id, lines=CONSOLE_LINES)
    except InfraError:
        return ""
