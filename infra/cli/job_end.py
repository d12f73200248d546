"""How a job ends for who waits for it: what it says is shown, what it leaves is fetched, its status is kept.

The last line tells whose the exit status is: ``sparknet-ec2: ...`` of this program, ``JOB ended with status
N`` of the job.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from infra.cli.job_output import JobOutput
from infra.cli.target import Target
from infra.cli.transfer import TransferDisplay
from infra.cli.waiting import waiting
from infra.errors import InfraError, Interrupted, JobError

if TYPE_CHECKING:
    from infra.cloud import Cloud
    from infra.jobs import Results
    from infra.node.host import LeftOut

SYNC_SECONDS = 60.0
RESULTS = Path("output")  # of this machine, a folder a job in it
NAMED = 20  # files


@contextmanager
def names_the_job(cloud: Cloud, cluster: str, job: str) -> Iterator[None]:
    """An interrupt in here ends nothing on the cluster, and says so."""
    from infra import jobs

    try:
        yield
    except Interrupted as stop:
        raise Interrupted(f"{stop}; {jobs.goes_on(cloud, cluster, job)}") from None


def follow(where: Target, job: str, *, is_raw: bool) -> int:
    """Show what the job says until it ends; the status it ended with."""
    from infra import jobs

    output = JobOutput(is_raw=is_raw)
    try:
        return jobs.follow(where.require(), where.name, job, output.line)
    finally:
        output.end()
        if output.hidden:
            click.echo(
                f"({output.hidden:,} lines of Spark's own are not shown; logs --raw {job} shows them)",
                err=True,
            )


def see_through(where: Target, job: str, output: Path | None, *, is_raw: bool = False) -> int:
    """``follow``; what a job left that the machine went down under is fetched, if that is up again."""
    try:
        return follow(where, job, is_raw=is_raw)
    except JobError:
        if output:
            with suppress(InfraError):
                fetch(where, job, output)
        raise


def conclude(where: Target, job: str, code: int, output: Path | None) -> int:
    """Fetch what an ended job left, and say how it ended; the job's own status."""

    if output:
        try:
            fetch(where, job, output)
        except InfraError as error:
            if not code:
                raise
            click.echo(str(error), err=True)
    _note_end(where, job, code)
    if code == Interrupted.exit_status and _was_cancelled(where, job):
        click.echo(f"{job} was cancelled.", err=True)
    elif code:
        explain(where, job)
    click.echo(f"{job} ended with status {code}", err=True)
    return code


def _was_cancelled(where: Target, job: str) -> bool:
    """Whether the status is not the program's own."""
    from infra import jobs

    with suppress(InfraError):  # the job has ended all the same
        known = jobs.jobs(where.require(), where.name)
        return any(one.id == job and one.ended_by == "cancel" for one in known)
    return False


def _note_end(where: Target, job: str, code: int) -> None:
    """For whoever looks at past jobs; nothing of the cluster is asked."""
    from infra.jobs import record

    with suppress(InfraError):
        cloud = where.open()
        home = cloud.home if cloud else where.cluster_files
        ended = f"failed with status {code}" if code else "done"
        record.note_end(home, where.region, where.name, job, ended)


def explain(where: Target, job: str) -> None:
    """What the nodes have to do with it."""
    from infra import diagnosis

    with suppress(InfraError):  # the job's own failure has been shown already
        with waiting("looking at the nodes for the reason"):
            problems = diagnosis.of_job(where.require(), where.name, job)
        for problem in problems:
            click.echo(f"    {problem}", err=True)


def fetch(where: Target, job: str, output: Path) -> Results:
    """Copy what the job has left so far to ``output``, and say what that is."""
    from infra import jobs

    _keep_from_git(output)
    with TransferDisplay(f"fetching {job}") as display, waiting(f"looking at what {job} has left"):
        results = jobs.fetch(where.require(), where.name, job, output, on_moved=display.moved)
    click.echo(f"{output}: {_named(results, output)}" if results.files else f"{job} left no files.")
    say_left_out("not fetched", results.left_out)
    return results


@contextmanager
def synced(where: Target, job: str, output: Path | None) -> Iterator[None]:
    """Meanwhile, what the job leaves is copied to ``output`` once a minute, if there is an ``output``."""
    from infra import jobs

    is_over = threading.Event()

    def work() -> None:
        while not is_over.wait(SYNC_SECONDS):
            try:
                jobs.fetch(where.require(), where.name, job, output or RESULTS / job)
            except InfraError as error:
                click.echo(f"not copied this time: {error}", err=True)

    if output is None:
        yield
        return
    _keep_from_git(output)
    thread = threading.Thread(target=work, name="sync", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
    thread.join()  # the last copy comes after it, to the same folder


def say_left_out(what: str, left_out: tuple[LeftOut, ...]) -> None:
    """Name what did not travel."""
    from infra.job_names import line

    if left_out:
        others = ", ".join(line(str(one)) for one in left_out[:NAMED])
        more = f" and {len(left_out) - NAMED:,} more" if len(left_out) > NAMED else ""
        click.echo(f"{what}: {others}{more}", err=True)


def _named(results: Results, output: Path) -> str:
    """The files, or how many there are if they are many."""
    from infra.job_names import line

    names = [line(str(file.relative_to(output))) for file in results.files]
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _keep_from_git(output: Path) -> None:
    """The folder of all results is none of the project: the next submit would send it back."""
    if output.parent == RESULTS and not RESULTS.exists():
        RESULTS.mkdir()
        (RESULTS / ".gitignore").write_text("*\n")
