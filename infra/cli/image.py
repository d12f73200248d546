"""The verb ``image``: machine images with everything in place, which launch then starts from by itself."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.cli import format, options
from infra.cli.local import close_if_empty
from infra.cli.options import option
from infra.cli.progress import ProgressDisplay
from infra.cli.target import AWS, Target
from infra.interrupts import interrupts_held

if TYPE_CHECKING:
    from infra.cloud import Cloud
    from infra.spec import ClusterSpec

BUILDER_TYPE = "g6.xlarge"


@click.group()
def image() -> None:
    """Machine images of your own: nodes that start from one need not install anything."""


@image.command()
@options.reaches_a_cluster
@option("-t", "--instance-type", default=BUILDER_TYPE, show_default=True, help="Type of the builder.")
@option(
    "-a", "--ami", default="", help="Image to start from.  [default: the newest Deep Learning Base image]"
)
@option("--spark-version", default="", help="Version of pyspark.  [default: the pin]")
@option("--copy-to", "copies", multiple=True, metavar="REGION", help="Copy it there; may be repeated.")
@option("--user-data", type=options.FILE, help="What cloud-init gets.  [default: cloud-config.txt]")
@option("--vpc-id", default="", help="VPC.  [default: the region's default one]")
@option("--subnet-id", default="", help="Subnet.  [default: any of the VPC]")
@option("--authorized-address", default="", help="CIDR that may use ssh.  [default: this machine's]")
@option("--without-gpu", is_flag=True, help="Do not try the builder's GPUs.")
def build(where: Target, copies: tuple[str, ...], **values: Any) -> None:
    """Build an image: a builder, the scripts of ami/, the checks, CreateImage. The builder is removed."""
    from infra import image as images

    request = images.BuildRequest(spec=images.builder(_spec(where, **values)), copy_to=copies)
    display = ProgressDisplay()
    cloud: Cloud | None = None
    try:
        with interrupts_held():
            cloud = where.open(display.emit, start=True)
        assert cloud is not None
        made = images.build(cloud, request, display.emit)
    finally:
        if cloud is not None:
            with interrupts_held():
                close_if_empty(where, cloud)
    click.echo(
        f"{made.name} is built: {made.id} in {made.region}, in {time.monotonic() - display.began:.0f} s."
    )
    click.echo(f"  {made.versions}")
    click.echo("next:  sparknet-ec2 launch  (it starts from the newest image that fits)")


@image.command("list")
@options.reaches_a_cluster
@options.JSON
def list_(where: Target, as_json: bool) -> None:
    """Show the images of the region."""
    from infra.ec2 import images

    cloud = where.open()
    found = images.own(cloud.region) if cloud else []
    if as_json:
        format.print_json(found)
        return
    for one in found:
        size = f"{one.size_gib} GiB"
        click.echo(f"{one.name:<28} {one.id:<22} {one.state:<10} {one.created[:16]:<17} {size:>8}")
    if not found:
        click.echo(f"There is no image of our own in {where.region} of --cloud {where.cloud}.")


@image.command("show")
@click.argument("wanted", metavar="IMAGE")
@options.reaches_a_cluster
@options.JSON
def show_(where: Target, wanted: str, as_json: bool) -> None:
    """Show what an image was made of, and whether launch would take it."""
    from infra import image as images
    from infra.node import bootstrap

    found = images.find(where.require().region, wanted)
    if as_json:
        format.print_json(found)
        return
    fits = found.recipe == bootstrap.content_hash(_spec(where))
    rows = {
        "name": found.name,
        "id": f"{found.id} in {found.region}, {found.state}",
        "built": f"{found.created} by {found.owner}",
        "from": found.source,
        "versions": found.versions,
        "snapshots": f"{', '.join(found.snapshots)} of {found.size_gib} GiB",
        "launch": "starts from it" if fits else "does not take it: ami/ has changed since; build another",
    }
    for name, value in rows.items():
        click.echo(f"{name:<10} {value}")


@image.command()
@click.argument("wanted", metavar="IMAGE")
@options.reaches_a_cluster
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def delete(where: Target, wanted: str, yes: bool) -> None:
    """Delete an image and its snapshots. Clusters that started from it go on."""
    from infra import image as images

    display = ProgressDisplay()
    cloud = where.require(display.emit)
    found = images.find(cloud.region, wanted)
    if not yes:
        if not sys.stdin.isatty():
            raise click.UsageError(f"Deleting {found.name} needs --yes where nobody can be asked.")
        click.confirm(f"Delete {found.name} ({found.id}) and its snapshots?", abort=True)
    gone = images.delete(cloud, found, display.emit)
    click.echo(f"{found.name} is gone: {len(gone)} resources removed.")
    close_if_empty(where, cloud)


def _spec(
    where: Target,
    *,
    instance_type: str = BUILDER_TYPE,
    ami: str = "",
    spark_version: str = "",
    user_data: Path | None = None,
    vpc_id: str = "",
    subnet_id: str = "",
    authorized_address: str = "",
    without_gpu: bool = False,
) -> ClusterSpec:
    from infra.spec import ClusterSpec, Network

    return ClusterSpec(
        region=where.region,
        instance_types=(instance_type,),
        image=ami,
        user_data=user_data,
        spark_version=spark_version,
        require_gpus=where.cloud == AWS and not without_gpu,
        network=Network(
            vpc_id=vpc_id,
            subnet_id=subnet_id,
            private_ips=where.private_ips,
            authorized_address=authorized_address,
        ),
    )
