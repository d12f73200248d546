"""The verbs about jobs: submit, jobs, logs, cancel."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from infra.cli import format, options
from infra.cli.options import option
from infra.cli.target import LOCAL, Target
from infra.errors import InfraError, Interrupted, UsageError

if TYPE_CHECKING:
    from infra.cloud import Cloud

SHARED = ("SPARKNET_DATA", "https_proxy", "http_proxy", "no_proxy", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")

OUTPUT = option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="Folder for what the job leaves."
)


@click.command(cls=options.PassesOn)
@options.reaches_a_cluster
@OUTPUT
@option("-e", "--env", "variables", multiple=True, help="NAME=VALUE, or NAME to pass on its value here.")
@option("--detach", is_flag=True, help="Do not wait for the end.")
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def submit(
    where: Target,
    program: str,
    arguments: tuple[str, ...],
    output: Path | None,
    variables: tuple[str, ...],
    detach: bool,
) -> int:
    """Run PROGRAM (CifarApp, or a .py file) on the cluster, show what it says, and fetch what it leaves.

    What stands after -- goes to the program: sparknet-ec2 submit CifarApp -- --tau 10 --rounds 100
    """
    from infra import diagnosis, jobs
    from infra.program import find

    what = find(program)
    cloud = where.require()
    for problem in diagnosis.require_room(cloud, where.name):
        click.echo(f"TROUBLE: {problem}", err=True)
    env = {**(_shared() if where.cloud == LOCAL else {}), **_variables(variables)}
    job = jobs.submit(cloud, where.name, what, arguments, env=env)
    with _names_the_job(cloud, where.name, job):
        click.echo(f"job {job} on {where.name}", err=True)
        if detach:
            click.echo(job)
            return 0
        code = _follow(where, job)
    return _conclude(where, job, code, output or Path("output") / job)


@click.command()
@options.reaches_a_cluster
@options.JSON
def jobs(where: Target, as_json: bool) -> None:
    """List the jobs of a cluster."""
    from infra import jobs as spark_jobs

    known = spark_jobs.jobs(where.require(), where.name)
    if as_json:
        format.print_json(known)
        return
    rows = [(job.id, job.state, "" if job.exit_code is None else job.exit_code, job.started) for job in known]
    click.echo(
        format.table(("job", "state", "exit", "started"), rows) if rows else f"No jobs on {where.name} yet."
    )


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
@options.JSON
@click.argument("job", required=False)
def logs(where: Target, job: str | None, follow: bool, lines: int, output: Path | None, as_json: bool) -> int:
    """Show what JOB says (by default the newest one); with --output, fetch what it left."""
    from infra import jobs as spark_jobs

    if as_json and (follow or output):
        raise UsageError("--json shows what the job has said so far: leave out --follow and --output.")
    cloud = where.require()
    chosen = spark_jobs.resolve(cloud, where.name, job) if job else spark_jobs.latest(cloud, where.name)
    if follow:
        with _names_the_job(cloud, where.name, chosen):
            code = _follow(where, chosen)
        return _conclude(where, chosen, code, output)
    said = spark_jobs.log(cloud, where.name, chosen, lines=lines)
    if as_json:
        format.print_json({"job": chosen, "lines": said.splitlines()})
        return 0
    click.echo(said, nl=False)
    if output:
        _fetch(where, chosen, output)
    return 0


@click.command()
@options.reaches_a_cluster
@click.argument("job", required=False)
def cancel(where: Target, job: str | None) -> None:
    """End JOB (by default the newest one)."""
    from infra import jobs as spark_jobs

    cloud = where.require()
    chosen = spark_jobs.resolve(cloud, where.name, job) if job else spark_jobs.latest(cloud, where.name)
    was_running = spark_jobs.cancel(cloud, where.name, chosen)
    click.echo(f"{chosen} {'is cancelled' if was_running else 'had ended before'}.")


@contextmanager
def _names_the_job(cloud: Cloud, cluster: str, job: str) -> Iterator[None]:
    """An interrupt in here ends nothing on the cluster, and says so."""
    from infra import jobs

    try:
        yield
    except Interrupted as stop:
        raise Interrupted(f"{stop}; {jobs.goes_on(cloud, cluster, job)}") from None


def _follow(where: Target, job: str) -> int:
    """Show what the job says until it ends; the status it ended with."""
    from infra import jobs

    progress = format.JobOutput()
    try:
        return jobs.follow(where.require(), where.name, job, progress.line)
    finally:
        progress.end()


def _conclude(where: Target, job: str, code: int, output: Path | None) -> int:
    """Fetch what an ended job left, and return the status to leave with: the job's own, where it has one."""
    from infra import jobs

    status = jobs.status_of(code)
    if output:
        try:
            _fetch(where, job, output)
        except InfraError as error:
            if not status:
                raise
            click.echo(str(error), err=True)
    if code == Interrupted.exit_status:
        click.echo(f"{job} was cancelled.", err=True)
    elif status:
        click.echo(f"{job} failed with status {code}.", err=True)
        _explain(where, job)
    return status


def _explain(where: Target, job: str) -> None:
    """What the nodes have to do with it."""
    from infra import diagnosis

    with suppress(InfraError):  # the job's own failure has been shown already
        for problem in diagnosis.of_job(where.require(), where.name, job):
            click.echo(f"    {problem}", err=True)


def _fetch(where: Target, job: str, output: Path) -> None:
    from infra import jobs
    from infra.job_names import line

    results = jobs.fetch(where.require(), where.name, job, output)
    names = ", ".join(line(str(file.relative_to(output))) for file in results.files)
    click.echo(f"{output}: {names}" if results.files else f"{job} left no files.")
    if results.left_out:
        others = ", ".join(line(str(one)) for one in results.left_out)
        click.echo(f"not fetched, being no files: {others}", err=True)


def _shared() -> dict[str, str]:
    """What a program on this very machine finds as its user does: data sets, and the way to download them."""
    found = {name: os.environ[name] for name in SHARED if os.environ.get(name)}
    if "SPARKNET_DATA" in found:
        found["SPARKNET_DATA"] = str(Path(found["SPARKNET_DATA"]).expanduser().absolute())
    return found


def _variables(words: tuple[str, ...]) -> dict[str, str]:
    values = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and name not in os.environ:
            raise UsageError(f"--env {name}: there is no such variable here; say --env {name}=VALUE.")
        values[name] = value if equals else os.environ[name]
    return values
