"""The verb submit: a program, and what it needs, given to a cluster, or to a Spark of somebody else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infra.cli import clusters, format, job_end, options
from infra.cli.job_output import JobOutput
from infra.cli.options import option
from infra.cli.target import LOCAL, Target, open_local
from infra.cli.transfer import TransferDisplay
from infra.cli.waiting import waiting
from infra.errors import UsageError
from infra.events import ignore

if TYPE_CHECKING:
    from infra.jobs import Request, Submitted

SHARED = ("SPARKNET_DATA", "https_proxy", "http_proxy", "no_proxy", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY")
#: what only a cluster of ours can do
OF_CLUSTERS = {
    "detach": "--detach",
    "queue": "--queue",
    "sync": "--sync",
    "requirements": "--requirements",
    "num_workers": "--num-workers",
    "then_destroy": "--then-destroy",
}
THEN_MINUTES = 15.0  # after a job for a single run its cluster ends itself, if nobody is there to destroy it

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
OPTIONS = [
    option("-o", "--output", type=FOLDER, help="Folder for what the job leaves.  [default: output/JOB]"),
    option("--sync", is_flag=True, help="Copy what the job leaves there each minute, not only at its end."),
    option("-e", "--env", "variables", multiple=True, help="NAME=VALUE, or NAME to pass on its value here."),
    option("--detach", is_flag=True, help="Do not wait for the end."),
    option(
        "--then-destroy", is_flag=True, help="Remove the cluster when the job has ended, however it ends."
    ),
    option("--queue", is_flag=True, help="Wait for the jobs that have the workers."),
    option("--job-name", default="", help="What the job is called.  [default: as the program]"),
    option(
        "--folder", type=FOLDER, help="What travels, and where the job runs.  [default: the program's folder]"
    ),
    option("--requirements", type=FILE, help="Packages to install on all nodes, as pip reads them."),
    option("--num-workers", type=int, help="Use so many workers.  [default: all]"),
    option("--driver-memory", default="", help="As 4g."),
    option("--executor-memory", default="", help="As 4g.  [default: half of a worker's memory]"),
    option("--py-files", multiple=True, help="Modules (.py, .zip) for the workers, with commas."),
    option("--files", multiple=True, help="Files for the folder of each worker, with commas."),
    option("--jars", multiple=True, help="Jars for driver and workers, with commas."),
    option("--packages", multiple=True, help="Maven coordinates of jars, with commas."),
    option("--conf", multiple=True, help="spark.KEY=VALUE; may be repeated."),
    option("--master", default="", help="A Spark that somebody else runs: spark://HOST:7077."),
]


@click.command(cls=options.PassesOn)
@options.reaches_a_cluster
@options.decorate(OPTIONS)
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def submit(where: Target, program: str, arguments: tuple[str, ...], **values: Any) -> int:
    """Run PROGRAM on the cluster, show what it says, and fetch what it leaves.

    PROGRAM is CifarApp or another app, a .py file, a folder with a __main__.py, or a module. Its folder
    travels with it, without what .gitignore names; the job runs in a copy of that folder. What stands after
    -- goes to the program:

    \b
      sparknet-ec2 submit CifarApp -- --tau 10 --rounds 100
      sparknet-ec2 submit train.py --requirements requirements.txt --queue -- --rate 0.1

    What the program writes to the folder SPARKNET_OUTPUT comes back, and so does what it makes or changes
    where it runs, Spark's event log, and what it said; results JOB fetches it at any time. The exit status
    is the job's own.
    """
    request = _request(where, program, arguments, values)
    if values["master"]:
        return _elsewhere(request, values)
    output, job = values["output"], start(where, request)
    if values["then_destroy"]:
        _end_with_the_job(where, job)
    with job_end.names_the_job(where.require(), where.name, job):
        if values["detach"]:
            click.echo(job)
            return 0
        output = output or job_end.RESULTS / job
        with job_end.synced(where, job, output if values["sync"] else None):
            code = job_end.see_through(where, job, output)
    status = job_end.conclude(where, job, code, output)
    if values["then_destroy"]:
        clusters.remove(where)
    return status


def _end_with_the_job(where: Target, job: str) -> None:
    """Let the nodes end themselves soon after the job, whoever is still there then."""
    from infra import lifetime

    now = lifetime.extend(where.require(), where.name, ignore, idle_minutes=THEN_MINUTES)
    click.echo(f"{where.name} is removed when {job} has ended; without you it ends itself: {now}", err=True)


def start(where: Target, request: Request, *, origin: str = "") -> str:
    """The job's id; what travelled is said. ``origin``: the job that it goes on from."""
    from infra import diagnosis, jobs

    with waiting(f"looking at the disks of {where.name}"):
        cloud = where.require()
        problems = diagnosis.require_room(cloud, where.name)
    for problem in problems:
        click.echo(f"TROUBLE: {problem}", err=True)
    work = f"installing {request.requirements} on all nodes" if request.requirements else "starting the job"
    with TransferDisplay("sending") as display, waiting(work):
        started = jobs.submit(cloud, where.name, request, on_moved=display.moved, origin=origin)
    _say_sent(started)
    if started.problem:
        click.echo(started.problem, err=True)
    click.echo(f"job {started.job} on {where.name}", err=True)
    return started.job


def _say_sent(started: Submitted) -> None:
    project, moved = started.project, started.moved
    if project.items:
        size, files = format.byte_size(project.size), format.counted(len(project.items), "file")
        click.echo(f"project: {files}, {size}; {format.byte_size(moved.bytes)} of all were new", err=True)
    job_end.say_left_out("not sent", project.left_out)


def _request(where: Target, program: str, arguments: tuple[str, ...], values: dict[str, Any]) -> Request:
    from infra.jobs import Request
    from infra.program import find

    given = {} if values["master"] else shared(where)
    return Request(
        program=find(program, values["folder"]),
        arguments=arguments,
        env={**given, **variables(values["variables"])},
        name=values["job_name"],
        requirements=values["requirements"],
        py_files=_words(values["py_files"]),
        files=_words(values["files"]),
        jars=_words(values["jars"]),
        packages=_words(values["packages"]),
        conf=_settings(values["conf"]),
        driver_memory=values["driver_memory"],
        executor_memory=values["executor_memory"],
        workers=values["num_workers"],
        is_queued=values["queue"],
    )


def _elsewhere(request: Request, values: dict[str, Any]) -> int:
    """On a Spark that is no cluster of ours, by spark-submit, with the driver on this machine."""
    from infra import job_names
    from infra.jobs import foreign

    for name, word in OF_CLUSTERS.items():
        if values[name]:
            raise UsageError(f"{word} is for clusters of sparknet-ec2, not for --master {values['master']}.")
    job = job_names.of_now(request.title)
    output = values["output"] or job_end.RESULTS / job
    shown = JobOutput()
    try:
        code = foreign.run(request, master=values["master"], job=job, output=output, on_line=shown.line)
    finally:
        shown.end()
    click.echo(f"{job} ended with status {code}", err=True)
    return code


def _words(given: tuple[str, ...]) -> tuple[str, ...]:
    """What is separated by commas, and given by several options."""
    return tuple(word for one in given for word in one.split(",") if word)


def _settings(given: tuple[str, ...]) -> dict[str, str]:
    pairs = {}
    for word in given:
        key, equals, value = word.partition("=")
        if not equals:
            raise UsageError(f"--conf {word} is not of the form spark.KEY=VALUE.")
        pairs[key.strip()] = value
    return pairs


def shared(where: Target) -> dict[str, str]:
    """What a program on this very machine finds as its user does: data sets, the way to download them, and
    the embedded cloud.
    """
    if where.cloud != LOCAL:
        return {}
    local = open_local(start=False)
    found = {**local.environment, "AWS_ENDPOINT_URL": local.url_for_hosts} if local else {}
    found |= {name: os.environ[name] for name in SHARED if os.environ.get(name)}
    if "SPARKNET_DATA" in found:
        found["SPARKNET_DATA"] = str(Path(found["SPARKNET_DATA"]).expanduser().absolute())
    return found


def variables(words: tuple[str, ...]) -> dict[str, str]:
    values = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and name not in os.environ:
            raise UsageError(f"--env {name}: there is no such variable here; say --env {name}=VALUE.")
        values[name] = value if equals else os.environ[name]
    return values
