"""The verbs about healing: heal on and off, and the policies of IAM that people and healers need."""

from __future__ import annotations

from typing import Any

import click

from infra.cli import format, options
from infra.cli.options import option
from infra.cli.progress import ProgressDisplay
from infra.cli.target import Target, launching


@click.command()
@click.argument("switch", type=click.Choice(["on", "off"]))
@options.names_a_cluster
@options.reaches_a_cluster
@options.decorate([one for one in options.CLUSTER if one is not options.SLAVES])
def heal(where: Target, switch: str, **values: Any) -> None:
    """Turn the healer of a cluster on or off: it puts others in the place of workers that are lost.

    It runs on the master, whether or not this machine does, with a role of IAM of exactly the permissions it
    needs, and buys with the options that are given here (--spot-price, --fallback, --instance-type ...), from
    the same pools as a launch with them.
    """
    from infra import cluster

    display = ProgressDisplay()
    cloud = where.require(display.emit)
    found = cluster.find(cloud, where.name)
    if switch == "off":
        cluster.stop_healing(cloud, where.name)
        click.echo(f"{where.name} is not healed any more: workers that are lost stay so.")
        return
    wanted = options.spec(where, {**values, "slaves": max(1, len(found.workers))})
    with launching(where):
        cluster.start_healing(cloud, wanted, display.emit)
    click.echo(f"{where.name} is healed from its master; what it does is in its log and in status.")


@click.command()
@click.argument("who", type=click.Choice(["person", "healer", "bucket"]), default="person")
@options.reaches_a_cluster
@option("--bucket", default="BUCKET", help="Its name.")
def iam_policy(where: Target, who: str, bucket: str) -> None:
    """Print the policy of IAM with which a person uses all verbs, the healer of --name heals, or a master
    saves in --bucket.
    """
    from infra import policies

    found = {
        "person": policies.person(),
        "healer": policies.healer(where.region, where.name),
        "bucket": policies.bucket(where.region, bucket),
    }
    format.print_json(found[who])
