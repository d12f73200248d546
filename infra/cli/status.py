"""The verbs that look: status, cost."""

from __future__ import annotations

import itertools
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from infra.cli import format, options, status_page
from infra.cli.options import option
from infra.cli.target import LOCAL, Target, open_local
from infra.errors import ClusterNotFound, Interrupted

if TYPE_CHECKING:
    from infra.cloud import Cloud
    from infra.costs import Cost
    from infra.history import Life
    from infra.status import Status

TROUBLES_EVERY = 6  # looks of --watch: every node is logged in to for them
TOLD = "limits-told"  # a file of the embedded cloud: its limits have been shown


@click.command()
@options.names_a_cluster
@options.reaches_a_cluster
@option("--all", "every", is_flag=True, help="All clusters of the region.")
@option("--watch", is_flag=True, help="Look again and again, until Ctrl-C.")
@option(
    "--interval",
    type=options.FiniteRange(min=1),
    default=10.0,
    show_default=True,
    help="Seconds between two looks of --watch.",
)
@options.JSON
def status(where: Target, every: bool, watch: bool, interval: float, as_json: bool) -> None:
    """Show a cluster: its nodes, those that ended too, Spark, what runs, what it costs, and what ends it."""
    if watch:
        with suppress(Interrupted):  # which is how one leaves
            _watch(where, every=every, as_json=as_json, interval=interval)
        return
    found = _look(where, every=every)
    if as_json:
        told = [status_page.values(one) for one in found]
        format.print_json(told if every else told[0])
        return
    _print(where, found)
    if where.cloud == LOCAL:
        _print_limits(where.cluster_files)


def _watch(where: Target, *, every: bool, as_json: bool, interval: float) -> None:
    """Look until the cluster is gone. Raises ClusterNotFound then."""
    for number in itertools.count():
        found = _look(where, every=every, with_troubles=number % TROUBLES_EVERY == 0)
        if as_json:
            told = [status_page.values(one) for one in found]
            format.print_json(told if every else told[0], indent=None)
        else:
            if sys.stdout.isatty():
                click.clear()
            _print(where, found)
            click.echo("until Ctrl-C" if sys.stdout.isatty() else "")
        sys.stdout.flush()
        time.sleep(interval)


def _look(where: Target, *, every: bool, with_troubles: bool = True) -> list[Status]:
    from infra import status as look_at

    cloud = where.require()
    names = look_at.names(cloud) if every else [where.name]
    return [look_at.status(cloud, name, with_troubles=with_troubles) for name in names]


def _print(where: Target, found: list[Status]) -> None:
    cloud = where.require()
    place = f"{where.region} of --cloud {where.cloud}"
    for one in found:
        click.echo(status_page.text(one, cloud, place))
    if not found:
        click.echo(f"There is no cluster in {place}.")


@click.command()
@options.names_a_cluster
@options.reaches_a_cluster
@option("--all", "every", is_flag=True, help="Of all clusters that this machine has seen, past ones too.")
@options.JSON
def cost(where: Target, every: bool, as_json: bool) -> None:
    """Show what a cluster costs an hour, and has cost so far; of one that is gone, what it had cost."""
    from infra import bill, costs, history

    cloud = where.open()
    found = None if cloud is None or every else bill.look(cloud, where.name)
    home = cloud.home if cloud else where.cluster_files
    past = history.all_lives(home) if every else _past(home, where)
    if cloud is None or found is None:
        _past_cost(where, past, as_json=as_json)
        return
    images = costs.of_images(cloud.region)
    if as_json:
        told = {"cluster": where.name, "cost": found.cost, "runs": found.runs, "images": images}
        format.print_json({**told, "past": past})
        return
    click.echo(spent(cloud, found.cost))
    if past:
        click.echo(status_page.lives(past))
    if images.images:
        click.echo(format.images(images))


def _past(home: Path, where: Target) -> list[Life]:
    """The clusters of that name that are gone."""
    from infra import history

    known = history.lives(home, where.region, where.name)
    return [one for one in known if one.destroyed]


def _past_cost(where: Target, past: list[Life], *, as_json: bool) -> None:
    if not past:
        raise ClusterNotFound(
            f"There is no cluster {where.name} in {where.region} of --cloud {where.cloud}, and this machine "
            "knows of none there was; sparknet-ec2 cost --all lists those that it has seen."
        )
    if as_json:
        format.print_json({"cluster": where.name, "cost": None, "past": past})
    else:
        click.echo(status_page.lives(past))


def spent(cloud: Cloud, cost: Cost) -> str:
    """What it has cost, and costs, as a line."""
    billed = "" if cloud.kind != LOCAL else " (simulated: nobody is billed)"
    return f"{status_page.money(cost)}{billed}"


def _print_limits(folder: Path) -> None:
    """What is not real: all of it once, and afterwards where to find it."""
    local = open_local(start=False)
    if local is None:
        return
    told = folder / TOLD
    if told.exists():
        click.echo("note: this cloud is simulated; sparknet-ec2 local status says what is not real in it.")
        return
    for sentence in local.limits():
        click.echo(f"note: {sentence}")
    told.touch()
