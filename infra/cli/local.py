"""The verb ``local``: the embedded cloud itself, apart from the clusters in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from infra.cli import format, options
from infra.cli.target import AWS, Target, open_local
from infra.home import home

if TYPE_CHECKING:
    from infra.cluster import Cloud

KEEP_MARK = "keep"  # a file in the home: `local start` started the embedded cloud, and `local stop` ends it


@click.group()
def local() -> None:
    """The embedded cloud: an EC2 of this machine, which launch starts and the last destroy ends."""


@local.command()
@options.JSON
def status(as_json: bool) -> None:
    """Show whether it runs, how boto3 and the AWS CLI reach it, and what is not real in it."""
    cloud = open_local(start=False)
    if cloud is None:
        if as_json:
            format.print_json({"running": False})
        else:
            click.echo("The embedded cloud does not run; launch or `local start` starts it.")
        return
    if as_json:
        format.print_json(
            {"running": True, "pid": cloud.pid, "environment": cloud.environment, "limits": cloud.limits()}
        )
        return
    click.echo(f"The embedded cloud runs as process {cloud.pid}; files in {cloud.folder}.")
    for name, value in cloud.environment.items():
        click.echo(f"  export {name}={value}")
    for sentence in cloud.limits():
        click.echo(f"note: {sentence}")


@local.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Listen here.  [default: any free port]"
)
@click.option(
    "--scenario", type=options.FILE, help="Capacity, prices, quotas and faults, as YAML, TOML or JSON."
)
def start(port: int, scenario: Path | None) -> None:
    """Start it by itself; it then runs until `local stop`, clusters or not."""
    cloud = open_local(start=True, port=port, scenario=scenario)
    (home() / KEEP_MARK).touch()
    assert cloud is not None
    click.echo(f"The embedded cloud runs as process {cloud.pid} at {cloud.endpoint_url}.")


@local.command()
def stop() -> None:
    """End it, with every cluster in it."""
    cloud = open_local(start=False)
    if cloud is not None:
        cloud.stop()
    _forget()
    click.echo("The embedded cloud is stopped." if cloud else "The embedded cloud does not run.")


@local.command()
def clean() -> None:
    """End it whatever state it is in, and remove all its files."""
    _clean()
    click.echo("Nothing of the embedded cloud is left.")


def close_if_empty(where: Target, cloud: Cloud | None, *, keep: str = "") -> None:
    """End the embedded cloud with the last thing in it, unless `local start` started it; of AWS, nothing.

    Without ``cloud`` it does not run, and only what a dead one left is removed. ``keep``: a folder of it that
    stays.
    """
    if where.cloud == AWS:
        return
    from infra.ec2 import buckets, cleanup, images, nodes

    if (home() / KEEP_MARK).exists():
        return
    if cloud is not None and (
        cleanup.remaining(cloud.region, None)
        or nodes.anything_runs(cloud.region)
        or images.own(cloud.region)
        or buckets.own(cloud.region)
    ):
        return
    _clean(keep)


def _clean(keep: str = "") -> None:
    from infra import local as embedded

    embedded.clean(home(), keep=keep)
    _forget()
    if home().is_dir() and not any(home().iterdir()):
        home().rmdir()


def _forget() -> None:
    (home() / KEEP_MARK).unlink(missing_ok=True)
