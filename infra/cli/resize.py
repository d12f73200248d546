"""The verbs about a cluster that is there: add-slaves, remove-slaves, repair, stop, start.

Each but ``stop`` is a launch that knows how many workers there should be.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from infra.cli import clusters, options
from infra.cli.options import option
from infra.cli.progress import ProgressDisplay
from infra.cli.target import Target, launching
from infra.errors import UsageError

if TYPE_CHECKING:
    from infra.cloud import Cloud
    from infra.spec import ClusterSpec

HOW_MANY = option("--num-slaves", type=click.IntRange(min=1), default=1, show_default=True, help="So many.")
OF_LAUNCH = [one for one in options.CLUSTER if one is not options.SLAVES]
# of a cluster that only shrinks: how to reach the nodes that stay, and what has to be on them
OF_WHAT_STAYS = options.of_cluster(
    "key-pair", "authorized-address", "open-to-the-world", "spark-version", "without-gpu"
)


@click.command()
@options.names_a_cluster
@options.reaches_a_cluster
@HOW_MANY
@options.decorate(OF_LAUNCH)
def add_slaves(where: Target, num_slaves: int, **values: Any) -> None:
    """Add workers to a cluster."""
    _launch_again(where, values, workers=_size(where) + num_slaves)


@click.command()
@options.names_a_cluster
@options.reaches_a_cluster
@HOW_MANY
@options.decorate(OF_WHAT_STAYS)
def remove_slaves(where: Target, num_slaves: int, **values: Any) -> None:
    """Take workers from a cluster, the newest first."""
    left = _size(where) - num_slaves
    if left < 1:
        raise UsageError(
            f"{where.name} has {left + num_slaves} workers, and one has to stay; sparknet-ec2 destroy --name "
            f"{where.name} removes all."
        )
    _bring_up(where, _as_it_is(where, values, workers=left))


@click.command()
@options.names_a_cluster
@options.reaches_a_cluster
@options.decorate(OF_LAUNCH)
def repair(where: Target, **values: Any) -> None:
    """Put other nodes in the place of those that are gone, do not answer, or have lost a disk or a GPU."""
    _launch_again(where, values, workers=_size(where), repair=True)


@click.command()
@options.names_a_cluster
@options.reaches_a_cluster
def stop(where: Target) -> None:
    """Stop the machines of a cluster; their volumes stay, and cost. Spot instances cannot be stopped."""
    from infra import power

    cloud = where.require()
    stopped = power.stop(cloud, where.name, ProgressDisplay().emit)
    click.echo(f"{where.name} is stopped: {len(stopped.nodes)} machines. Its volumes are kept, and billed.")
    click.echo(f"next:  {cloud.command('start', where.name)}")


@click.command()
@options.names_a_cluster
@options.reaches_a_cluster
@options.decorate(OF_LAUNCH)
def start(where: Target, **values: Any) -> None:
    """Start the machines of a stopped cluster, and Spark on them."""
    _launch_again(where, values, workers=_size(where))


def _size(where: Target) -> int:
    """How many workers the cluster should have: as many as the last launch was for."""
    from infra import cluster
    from infra.ec2 import network

    cloud: Cloud = where.require()
    there = cluster.find(cloud, where.name)
    group = network.find_group(cloud.region, where.name)
    return (group.workers if group else None) or max(1, len(there.workers))


def _launch_again(where: Target, values: dict[str, Any], *, workers: int, repair: bool = False) -> None:
    _bring_up(where, replace(options.spec(where, {**values, "slaves": workers}), repair=repair))


def _as_it_is(where: Target, values: dict[str, Any], *, workers: int) -> ClusterSpec:
    """The cluster with other ``workers``: of its own types and in its own VPC, since nothing is bought."""
    from infra import cluster
    from infra.ec2 import network

    cloud = where.require()
    there, group = cluster.find(cloud, where.name), network.find_group(cloud.region, where.name)
    types = {
        "instance_types": ",".join(dict.fromkeys(node.instance_type for node in there.workers)),
        "master_instance_type": there.master.instance_type if there.master else "",
        "vpc_id": group.vpc_id if group else "",
        "slaves": workers,
    }
    return options.spec(where, {**options.defaults(), **{k: v for k, v in types.items() if v}, **values})


def _bring_up(where: Target, wanted: ClusterSpec) -> None:
    with launching(where):
        clusters.bring_up(where, wanted)
