"""The verbs about machines: launch, status, destroy."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from infra.cli import options, show
from infra.cli.site import LOCAL, Site
from infra.interrupts import interrupts_held

if TYPE_CHECKING:
    from infra.cluster import Cloud


@click.command(context_settings={"show_default": False})
@options.reaches_a_cluster
@options.decorate(options.CLUSTER)
def launch(where: Site, **values: Any) -> None:
    """Make a cluster: a master and -s workers, with Spark running on them.

    Run again, it goes on where it was interrupted, and brings a ready cluster to another -s. What a failed or
    interrupted launch made is removed.
    """
    from infra import cluster

    wanted = options.spec(where, values)
    screen = show.Screen()
    with interrupts_held():  # a half-started server would be nobody's
        cloud = where.open(screen.emit, start=True)
    assert cloud is not None
    try:
        made = cluster.launch(cloud, wanted, screen.emit)
    except BaseException:
        with interrupts_held():
            _close_if_empty(where, cloud)
        raise
    click.echo(
        f"{made.name} is ready: a master and {len(made.workers)} workers in "
        f"{time.monotonic() - screen.began:.0f} s."
    )
    click.echo(f"next:  sparknet-ec2 submit CifarApp --name {made.name}")
    click.echo(f"       sparknet-ec2 destroy --name {made.name}")


@click.command()
@options.reaches_a_cluster
@options.JSON
def status(where: Site, as_json: bool) -> None:
    """Show the nodes of a cluster, and what Spark says of them."""
    from infra import cluster

    found = cluster.status(where.require(), where.name)
    if as_json:
        show.print_json(found)
        return
    health = found.health
    click.echo(f"{found.cluster.name} in {where.region} of --cloud {where.cloud}")
    rows = [
        (
            node.name,
            node.id,
            node.state,
            node.instance_type,
            node.purchase,
            node.zone,
            node.private_ip,
            node.public_ip,
        )
        for node in found.cluster.nodes
    ]
    click.echo(show.table(("node", "id", "state", "type", "bought", "zone", "private", "public"), rows))
    if health is None or health.status == "DOWN":
        click.echo("Spark: not running")
    else:
        click.echo(
            f"Spark: {health.status}, {health.workers} workers, {health.cores} cores, {health.memory_mib:,} "
            f"MiB"
            + (f", {health.gpus} GPUs" if health.gpus else "")
            + (f"; running {', '.join(health.applications)}" if health.applications else "")
        )
    if where.cloud == LOCAL:
        _tell_limits()


@click.command()
@options.reaches_a_cluster
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def destroy(where: Site, yes: bool) -> None:
    """Remove a cluster, in whatever state it is: machines, volumes, groups, template, key, spot requests."""
    from infra import cluster
    from infra.ec2 import sweep

    screen = show.Screen()
    cloud = where.open(screen.emit)
    left = sweep.remaining(cloud.region, where.name) if cloud else []
    if cloud is None or not left:
        click.echo(f"There is no cluster {where.name}; 0 resources left.")
    else:
        if not yes:
            _confirm(where.name, len(left))
        removed = cluster.destroy(cloud, where.name, screen.emit)
        click.echo(f"{where.name} is gone: {len(removed)} resources removed, 0 resources left.")
    _close_if_empty(where, cloud)


def _confirm(name: str, count: int) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError(f"Removing {name} ({count} resources) needs --yes where nobody can be asked.")
    click.confirm(f"Remove {name} and its {count} resources?", abort=True)


def _tell_limits() -> None:
    from infra.cli.site import open_local

    local = open_local(start=False)
    for sentence in local.limits() if local else []:
        click.echo(f"note: {sentence}")


def _close_if_empty(where: Site, cloud: Cloud | None) -> None:
    if where.cloud == LOCAL:
        from infra.cli.local import close_if_empty

        close_if_empty(cloud)
