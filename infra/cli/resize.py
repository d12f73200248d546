"""The verbs about a cluster that is there: add-slaves, remove-slaves, repair, stop, start.

Each but ``stop`` and ``remove-slaves`` is a launch that knows how many workers there should be.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from infra.cli import clusters, format, options
from infra.cli.options import option
from infra.cli.progress import ProgressDisplay
from infra.cli.target import Target, launching
from infra.errors import UsageError

if TYPE_CHECKING:
    from infra.cloud import Cloud
    from infra.spec import ClusterSpec

HOW_MANY = option("--num-slaves", type=click.IntRange(min=1), default=1, show_default=True, help="So many.")
OF_LAUNCH = [one for one in options.CLUSTER if one is not options.SLAVES]


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
@clusters.YES
def remove_slaves(where: Target, num_slaves: int, yes: bool) -> None:
    """Take workers from a cluster: lost ones first, idle before busy, spot before on-demand, the last first.

    Spark decommissions each before its machine ends; nothing is done on the others.
    """
    from infra import cluster

    display = ProgressDisplay()
    cloud = where.require(display.emit)
    left = _size(where) - num_slaves
    if left < 1:
        raise UsageError(
            f"{where.name} has {left + num_slaves} workers, and one has to stay; sparknet-ec2 destroy --name "
            f"{where.name} removes all."
        )
    with launching(where):
        leaving = cluster.leaving(cloud, where.name, left)
        clusters.confirm_leaving(where.name, leaving, yes=yes)
        made = cluster.shrink(cloud, where.name, leaving, display.emit)
    names = ", ".join(one.name for one in leaving)
    click.echo(
        f"{names} of {made.name} are gone; a master and {format.counted(len(made.workers), 'worker')} stay."
    )


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


def _bring_up(where: Target, wanted: ClusterSpec) -> None:
    with launching(where):
        clusters.bring_up(where, wanted)
