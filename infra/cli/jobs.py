"""The verbs about jobs that there are: jobs, logs, results, cancel."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from infra.cli import format, job_end, options
from infra.cli.options import option
from infra.cli.target import Target
from infra.cli.waiting import waiting
from infra.errors import JobError, UsageError

if TYPE_CHECKING:
    from infra.cloud import Cloud

OUTPUT = option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="Folder for what the job leaves."
)


@click.command()
@options.reaches_a_cluster
@click.option("--past", is_flag=True, help="Those submitted from this machine, on any cluster.")
@options.JSON
def jobs(where: Target, past: bool, as_json: bool) -> None:
    """List the jobs of a cluster: sparknet-ec2 jobs --json

    The exit code of a job is its program's own where "ended_by" is "program"; it may also be "cancel", or
    "machine", which went down under it.
    """
    from infra import jobs as spark_jobs

    if past:
        _print_past(where, as_json=as_json)
        return
    with waiting(f"asking {where.name} for its jobs"):
        known = spark_jobs.jobs(where.require(), where.name)
    if as_json:
        format.print_json(known)
        return
    rows = [(job.id, job.state, "" if job.exit_code is None else job.exit_code, job.started) for job in known]
    click.echo(
        format.table(("job", "state", "exit", "started"), rows) if rows else f"No jobs on {where.name} yet."
    )


def _print_past(where: Target, *, as_json: bool) -> None:
    """What this machine knows of jobs, without asking any master."""
    from infra.jobs import record

    cloud = where.open()
    known = record.known(cloud.home if cloud else where.cluster_files)
    if as_json:
        format.print_json([{**vars(one), "env": sorted(one.env)} for one in known])
        return
    rows = [(one.job, one.cluster, one.region, one.submitted, one.ended, one.checkpoint) for one in known]
    headings = ("job", "cluster", "region", "submitted", "ended", "saves in")
    click.echo(format.table(headings, rows) if rows else "No job was submitted from this machine.")


@click.command()
@options.reaches_a_cluster
@OUTPUT
@option("-f", "--follow", is_flag=True, help="Go on until the job ends, and leave with its status.")
@option(
    "-n",
    "--lines",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    help="So many of the last lines.",
)
@option("--raw", is_flag=True, help="All lines, those that are Spark's own as well.")
@options.JSON
@click.argument("job", required=False)
def logs(
    where: Target, job: str | None, follow: bool, lines: int, raw: bool, output: Path | None, as_json: bool
) -> int:
    """Show what JOB says (by default the newest one): sparknet-ec2 logs -f

    With --output, fetch what it left.
    """
    from infra import jobs as spark_jobs

    if as_json and (follow or output):
        raise UsageError("--json shows what the job has said so far: leave out --follow and --output.")
    cloud = where.require()
    chosen = _chosen(cloud, where.name, job)
    if follow:
        with job_end.names_the_job(cloud, where.name, chosen):
            code = job_end.see_through(where, chosen, output, is_raw=raw)
        return job_end.conclude(where, chosen, code, output)
    with waiting(f"reading what {chosen} says"):
        said = spark_jobs.log(cloud, where.name, chosen, lines=lines, is_raw=raw)
    if as_json:
        format.print_json({"job": chosen, "lines": said})
        return 0
    for line in said:
        click.echo(line)
    if output:
        job_end.fetch(where, chosen, output)
    return 0


@click.command()
@options.reaches_a_cluster
@OUTPUT
@option("--sync", is_flag=True, help="Copy each minute, until the job ends.")
@options.JSON
@click.argument("job", required=False)
def results(where: Target, job: str | None, output: Path | None, sync: bool, as_json: bool) -> None:
    """Fetch what JOB (by default the newest one) has left so far: sparknet-ec2 results CifarApp

    That is what it wrote to the folder SPARKNET_OUTPUT, in work/ what it made or changed where it ran, in
    spark-events/ Spark's event log, and job.log. What is here already is not fetched again, and a copy that
    was cut off goes on where it was. Without --output it goes to output/JOB.
    """
    from infra import jobs as spark_jobs

    cloud = where.require()
    chosen = _chosen(cloud, where.name, job)
    target = output or job_end.RESULTS / chosen
    if sync:
        with job_end.names_the_job(cloud, where.name, chosen), job_end.synced(where, chosen, target):
            click.echo(f"copying to {target} each minute until {chosen} ends", err=True)
            with suppress(JobError):  # it ended with its machine: what is there is fetched all the same
                spark_jobs.follow(cloud, where.name, chosen, lambda _line: None)
    if not as_json:
        job_end.fetch(where, chosen, target)
        return
    found = spark_jobs.fetch(cloud, where.name, chosen, target)
    format.print_json({"job": chosen, "folder": target, "files": found.files, "left_out": found.left_out})


@click.command()
@options.reaches_a_cluster
@click.argument("job", required=False)
def cancel(where: Target, job: str | None) -> None:
    """End JOB (by default the newest one), whether it runs or is queued: sparknet-ec2 cancel CifarApp"""
    from infra import jobs as spark_jobs

    cloud = where.require()
    chosen = _chosen(cloud, where.name, job)
    with waiting(f"waiting for {chosen} to end"):
        was_running = spark_jobs.cancel(cloud, where.name, chosen)
    click.echo(f"{chosen} {'is cancelled' if was_running else 'had ended before'}.")


def _chosen(cloud: Cloud, cluster: str, job: str | None) -> str:
    """The id of the job that is meant."""
    from infra import jobs as spark_jobs

    with waiting(f"asking {cluster} for its jobs"):
        return spark_jobs.resolve(cloud, cluster, job) if job else spark_jobs.latest(cloud, cluster)
