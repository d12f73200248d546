"""The verb resubmit: a job that was lost goes on, on the same cluster or another one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from infra.cli import job_end, options, submit
from infra.cli.jobs import OUTPUT
from infra.cli.options import option
from infra.cli.target import Target
from infra.errors import InfraError, UsageError

if TYPE_CHECKING:
    from infra.cloud import Cloud
    from infra.jobs.record import Record


@click.command()
@options.reaches_a_cluster
@OUTPUT
@option("-e", "--env", "variables", multiple=True, help="NAME=VALUE, or NAME, in place of what it had.")
@option("--bucket", "bucket", default="", help="Where its record is.  [default: the cluster's bucket]")
@option("--detach", is_flag=True, help="Do not wait for the end.")
@option("--queue", is_flag=True, help="Wait for the jobs that have the workers.")
@click.argument("job")
def resubmit(
    where: Target,
    job: str,
    output: Path | None,
    variables: tuple[str, ...],
    bucket: str,
    detach: bool,
    queue: bool,
) -> int:
    """Run JOB once more, as it was submitted; a training goes on from what it had saved last.

    JOB may have been on a cluster that is gone: what was asked for is known on the machine that submitted it,
    and in the bucket of its cluster (launch --bucket). Training that saved nothing begins anew.
    """
    from dataclasses import replace

    from infra.jobs import record, resubmission

    cloud = where.require()
    found, content = record.find(cloud, job, bucket=bucket or record.bucket_of(cloud, where.name))
    _require_ended(cloud, found)
    with tempfile.TemporaryDirectory(prefix="sparknet-") as scratch:
        env = {**submit.shared(where), **submit.variables(variables)}
        request = resubmission.request_of(found, content, Path(scratch), env=env)
        said = f"it goes on from what is in {found.checkpoint}" if found.checkpoint else "it begins anew"
        click.echo(f"{found.job} of {found.cluster} is submitted again; {said}", err=True)
        again = submit.start(where, replace(request, is_queued=queue), origin=found.job)
    with job_end.names_the_job(cloud, where.name, again):
        if detach:
            click.echo(again)
            return 0
        code = job_end.follow(where, again, is_raw=False)
    return job_end.conclude(where, again, code, output or job_end.RESULTS / again)


def _require_ended(cloud: Cloud, found: Record) -> None:
    """Raises UsageError if the job still runs: two would write to one place."""
    from infra import jobs

    try:
        running = [one.id for one in jobs.jobs(cloud, found.cluster) if one.state in ("running", "queued")]
    except InfraError:  # the cluster, or its master, is gone
        return
    if found.job in running:
        raise UsageError(
            f"{found.job} still runs on {found.cluster}: "
            f"{cloud.command(f'logs -f {found.job}', found.cluster)} shows it, "
            f"{cloud.command(f'cancel {found.job}', found.cluster)} ends it."
        )
