"""Power: stopping a cluster, which costs nothing but its volumes then, and starting it again.

Only on-demand instances stop: a spot instance of an instant fleet belongs to a one-time request, which EC2
can only end. A stopped node keeps its volumes and its private address; its public one is gone.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/Stop_Start.html
"""

from __future__ import annotations

from infra import bill
from infra.cloud import Cloud, Cluster, find
from infra.ec2 import keys, nodes
from infra.ec2.lifetime import Lifetime
from infra.ec2.nodes import Node
from infra.errors import UsageError
from infra.events import Emit, Note, phase
from infra.spec import SPOT

STOP_SECONDS = 600.0
SPOT_NAMED = 4


def stop(cloud: Cloud, name: str, emit: Emit) -> Cluster:
    """Stop all nodes of the cluster and wait until they are. Raises UsageError if some are spot instances."""
    cluster = find(cloud, name)
    _require_on_demand(cloud, cluster)
    ids = [node.id for node in cluster.nodes if node.state != "stopped"]
    with phase(emit, "stop"):
        nodes.stop_all(
            cloud.region, name, ids, deadline_seconds=STOP_SECONDS, poll_seconds=cloud.poll_seconds
        )
    _forget_addresses(cloud, name, cluster.nodes)
    bill.note(cloud, name)  # EC2 tells when a node was started last, and nothing of the times before
    return cluster


def start(cloud: Cloud, cluster: Cluster, emit: Emit) -> None:
    """Start those nodes of the cluster that are stopped; they get other public addresses.

    Raises UsageError if their --max-hours are over.
    """
    stopped = [node for node in cluster.nodes if node.state in ("stopped", "stopping")]
    if not stopped:
        return
    _require_time_left(cloud, cluster.name, stopped)
    emit(Note(text=f"starting {', '.join(node.name for node in stopped)}, which are stopped"))
    # EC2 refuses to start what is still stopping
    stopping = [node.id for node in stopped if node.state == "stopping"]
    nodes.stop_all(
        cloud.region,
        cluster.name,
        stopping,
        deadline_seconds=STOP_SECONDS,
        poll_seconds=cloud.poll_seconds,
    )
    _forget_addresses(cloud, cluster.name, stopped)
    cloud.region.change("start_instances", InstanceIds=[node.id for node in stopped])


def _require_on_demand(cloud: Cloud, cluster: Cluster) -> None:
    spot = [node.name for node in cluster.nodes if node.purchase == SPOT]
    if spot:
        names = ", ".join(spot[:SPOT_NAMED]) + (", ..." if len(spot) > SPOT_NAMED else "")
        fewer = f"remove-slaves --num-slaves {len(cluster.workers) - 1}"
        raise UsageError(
            f"{names} of {cluster.name} are spot instances of an instant fleet: EC2 can end them, and cannot "
            "stop them. What can be done instead:\n"
            f"    {cloud.command(fewer, cluster.name)}\n        keeps the master, its jobs, and one worker\n"
            f"    {cloud.command('destroy', cluster.name)}\n        ends all of it; a job with a checkpoint "
            "goes on from there on a cluster of another day\n"
            "    sparknet-ec2 launch --on-demand\n        makes a cluster that can be stopped"
        )


def _require_time_left(cloud: Cloud, name: str, stopped: list[Node]) -> None:
    ends = [moment for node in stopped if (moment := Lifetime.of(node.tags).ends)]
    if ends and min(ends) < cloud.region.now():
        raise UsageError(
            f"The --max-hours of {name} were over at {min(ends):%Y-%m-%d %H:%M} UTC: its nodes would end "
            "themselves, and their volumes with them, as soon as they start. Take what you need from the "
            f"volumes first (aws ec2 create-snapshot); {cloud.command('destroy', name)} removes the rest."
        )


def _forget_addresses(cloud: Cloud, name: str, stopped: list[Node] | tuple[Node, ...]) -> None:
    # EC2 gives a public address to whoever starts next: its old host key would be taken for an impostor's
    keys.forget_hosts(cloud.home, cloud.region.name, name, [node.public_ip for node in stopped])
