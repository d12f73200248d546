"""What becomes of the buckets of clusters: they are kept, and named with what they cost, unless asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from infra.cli import format
from infra.errors import InfraError

if TYPE_CHECKING:
    from infra.bill import Bill
    from infra.cloud import Cloud
    from infra.ec2.buckets import Bucket


def of_cluster(cloud: Cloud, name: str, known: Bill | None) -> str:
    """The bucket of a cluster that is there, or, if this machine has seen it, that is gone; or nothing."""
    from infra import history

    past = history.lives(cloud.home, cloud.region.name, name)
    return known.life.bucket if known else past[-1].bucket if past else ""


def conclude(cloud: Cloud, bucket: str, *, is_to_go: bool) -> None:
    """After a cluster: remove its bucket, or say that it is kept. Raises UsageError for one of the user's."""
    from infra.ec2 import buckets

    if is_to_go:
        count = buckets.remove(cloud.region, bucket)
        click.echo(f"the bucket {bucket} is gone, with {format.counted(count, 'object')}.")
        return
    try:
        click.echo(f"kept: {text(buckets.look(cloud.region, bucket))}; destroy --bucket removes it.")
    except InfraError as error:  # gone, or not to be looked into: the cluster is gone all the same
        click.echo(f"kept: the bucket {bucket} ({str(error).splitlines()[0]})")


def text(found: Bucket) -> str:
    """A bucket, and what it costs."""
    size = format.byte_size(found.size_bytes)
    return (
        f"the bucket {found.name} with {format.counted(found.objects, 'object')}, {size}, about "
        f"${found.per_month:.2f} a month"
    )
