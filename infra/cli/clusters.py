"""The verbs about whole clusters: launch, plan, destroy, gc."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from infra.cli import buckets, format, options
from infra.cli.local import close_if_empty
from infra.cli.options import option
from infra.cli.progress import ProgressDisplay
from infra.cli.status import spent
from infra.cli.target import Target, launching
from infra.errors import InfraError, UsageError
from infra.interrupts import interrupts_held

if TYPE_CHECKING:
    from infra.cluster import Cloud
    from infra.shrinking import Leaving
    from infra.spec import ClusterSpec

ALL_REGIONS = option("--all-regions", is_flag=True, help="In every region the account can use.")
YES = click.option("-y", "--yes", is_flag=True, help="Do not ask.")


@click.command()
@options.names_a_cluster
@options.reaches_a_cluster
@options.decorate(options.CLUSTER)
@options.decorate(options.OF_SPARK_EC2)
@click.option("--dry-run", is_flag=True, help="Only show what would be made, as `plan` does.")
@options.JSON
@YES
def launch(where: Target, dry_run: bool, as_json: bool, yes: bool, **values: Any) -> int:
    """Make a cluster: a master and -s workers, with Spark running on them.

    Run again, it goes on where it was interrupted, and brings a ready cluster to another -s; it asks before
    it takes away a worker on which a job runs. What a failed or interrupted launch made is removed.
    """
    if dry_run:
        return _plan(where, values, as_json=as_json)
    wanted = _wanted(where, values)
    with launching(where):
        _confirm_smaller(where, wanted, yes=yes)
        bring_up(where, wanted, as_json=as_json)
    return 0


def _confirm_smaller(where: Target, wanted: ClusterSpec, *, yes: bool) -> None:
    from infra import cluster

    cloud = where.open()
    if cloud is not None:
        confirm_leaving(where.name, cluster.leaving(cloud, where.name, wanted.workers), yes=yes)


def confirm_leaving(cluster: str, leaving: Sequence[Leaving], *, yes: bool) -> None:
    """Say which workers are to go, and ask if a job runs on one of them.

    Raises UsageError where nobody can be asked.
    """
    if not leaving:
        return
    click.echo(f"To leave {cluster}: {', '.join(map(str, leaving))}.", err=True)
    if any(one.is_busy for one in leaving) and not yes:
        busy = ", ".join(one.name for one in leaving if one.is_busy)
        _confirm(f"{busy} under the job that runs there")


def bring_up(where: Target, wanted: ClusterSpec, *, as_json: bool = False) -> None:
    """Launch, and say how long it took and what comes next."""
    from infra import cluster
    from infra.node import command_log

    display = ProgressDisplay()
    cloud: Cloud | None = None
    try:
        with interrupts_held():  # a half-started server would be nobody's
            cloud = where.open(display.emit, start=True)
        assert cloud is not None
        made = cluster.launch(cloud, wanted, display.emit)
    except BaseException as error:
        if cloud is None:
            raise
        with interrupts_held():
            said = command_log.folder_of(cloud.home, cloud.region.name, wanted.name)
            is_kept = isinstance(error, InfraError) and said.is_dir()
            close_if_empty(where, cloud, keep=command_log.FOLDER if is_kept else "")
            if is_kept:
                with suppress(OSError):  # of a terminal that is closed: the error is what counts
                    click.echo(f"All that was run on the nodes, and what they said: {said}", err=True)
        raise
    display.timings()
    if as_json:
        format.print_json(made)
        return
    seconds = time.monotonic() - display.began
    workers = format.counted(len(made.workers), "worker")
    click.echo(f"{made.name} is ready: a master and {workers} in {seconds:.0f} s.")
    click.echo(f"next:  sparknet-ec2 submit CifarApp --name {made.name}")
    click.echo(f"       sparknet-ec2 destroy --name {made.name}")


@click.command()
@options.names_a_cluster
@options.reaches_a_cluster
@options.decorate(options.CLUSTER)
@options.decorate(options.OF_SPARK_EC2)
@options.JSON
def plan(where: Target, as_json: bool, **values: Any) -> int:
    """Show what launch would make, where, and at what price. Changes nothing."""
    return _plan(where, values, as_json=as_json)


def _plan(where: Target, values: dict[str, Any], *, as_json: bool) -> int:
    from infra import plan as planning

    wanted = _wanted(where, values)
    cloud: Cloud | None = None
    try:
        with interrupts_held():
            cloud = where.open(ProgressDisplay().emit, start=True)
        assert cloud is not None
        found = planning.plan(cloud.region, wanted, cloud.caller_address)
    finally:
        if cloud is not None:
            with interrupts_held():
                close_if_empty(where, cloud)
    if as_json:
        format.print_json(format.plan_values(found))
    else:
        click.echo(format.plan(found))
    return found.problems[0].exit_status if found.problems else 0


def _wanted(where: Target, values: dict[str, Any]) -> ClusterSpec:
    """The spec, after a word on options that something else has replaced."""
    for name, sentence in options.REPLACED.items():
        if values.pop(name):
            click.echo(sentence, err=True)
    return options.spec(where, values)


@click.command()
@options.names_a_cluster
@options.reaches_a_cluster
@ALL_REGIONS
@click.option("--bucket", "with_bucket", is_flag=True, help="Its bucket too, with all that is in it.")
@YES
def destroy(where: Target, all_regions: bool, with_bucket: bool, yes: bool) -> None:
    """Remove a cluster, in whatever state it is: machines, volumes, groups, template, key, spot requests.

    The bucket of launch --bucket is kept, and named with its price, unless --bucket is given here too.
    """
    display = ProgressDisplay()
    cloud = where.open(display.emit)
    for here in _everywhere(cloud, all_regions):
        _destroy(here, where.name, display, yes=yes, with_bucket=with_bucket)
    if cloud is None:
        click.echo(f"There is no cluster {where.name}; 0 resources left.")
    close_if_empty(where, cloud)


def remove(where: Target) -> None:
    """``destroy`` without a question."""
    display = ProgressDisplay()
    cloud = where.open(display.emit)
    if cloud is not None:
        _destroy(cloud, where.name, display, yes=True, with_bucket=False)
    close_if_empty(where, cloud)


def _destroy(cloud: Cloud, name: str, display: ProgressDisplay, *, yes: bool, with_bucket: bool) -> None:
    from infra import bill, cluster
    from infra.ec2 import cleanup

    place = f"in {cloud.region.name}"
    left: list[cleanup.Resource] | None = None
    with suppress(InfraError):  # what may not be listed must not keep the machines alive
        left = cleanup.remaining(cloud.region, name)
    known = bill.note(cloud, name) if left else None  # nor must what has no price
    bucket = buckets.of_cluster(cloud, name, known)
    if not yes and (left != [] or (bucket and with_bucket)):
        also = f", and the bucket {bucket} with all that is in it" if bucket and with_bucket else ""
        _confirm(f"{name} {place} and its {'' if left is None else f'{len(left)} '}resources{also}")
    if left == []:
        others = cluster.names(cloud)
        there = f" There are: {', '.join(others)}." if others else ""
        click.echo(f"There is no cluster {name} {place}; 0 resources left.{there}")
    else:
        removed = cluster.destroy(cloud, name, display.emit, known=known)
        click.echo(f"{name} {place} is gone: {len(removed)} resources removed, 0 resources left.")
    if known:
        click.echo(spent(cloud, known.cost))
    if bucket and (left != [] or with_bucket):
        buckets.conclude(cloud, bucket, is_to_go=with_bucket)


@click.command()
@options.reaches_a_cluster
@ALL_REGIONS
@options.JSON
@YES
def gc(where: Target, all_regions: bool, as_json: bool, yes: bool) -> None:
    """Find what costs money and belongs to no usable cluster, and with --yes remove it.

    Images and buckets that were made on purpose are named with their price, and kept.
    """
    from infra import costs, orphans
    from infra.ec2 import buckets as ec2_buckets

    display = ProgressDisplay()
    cloud = where.open(display.emit)
    places = _everywhere(cloud, all_regions)
    found = [(here, orphan) for here in places for orphan in orphans.find(here.region)]
    images = [one for one in (costs.of_images(here.region) for here in places) if one.images]
    kept = [bucket for here in places for bucket in ec2_buckets.own(here.region)]
    if as_json:
        format.print_json({"orphans": [orphan for _, orphan in found], "images": images, "buckets": kept})
    else:
        click.echo(format.orphans([orphan for _, orphan in found]) if found else "No orphans.")
        for one in images:
            click.echo(format.images(one))
        for bucket in kept:
            click.echo(f"kept for jobs: {buckets.text(bucket)} (destroy --bucket, or aws s3 rb --force)")
    for here, orphan in found if yes else ():
        count = orphans.remove(here, orphan, display.emit)
        click.echo(f"{orphan.cluster} is gone: {count} resources removed, 0 resources left.", err=as_json)
    if found and not yes and not as_json:
        click.echo("Remove them with sparknet-ec2 gc --yes" + (" --all-regions." if all_regions else "."))
    close_if_empty(where, cloud)


def _everywhere(cloud: Cloud | None, all_regions: bool) -> list[Cloud]:
    if cloud is None:
        return []
    from infra import cluster

    return cluster.in_all_regions(cloud) if all_regions else [cloud]


def _confirm(what: str) -> None:
    if not sys.stdin.isatty():
        raise UsageError(f"Removing {what} needs --yes where nobody can be asked.")
    click.confirm(f"Remove {what}?", abort=True)
