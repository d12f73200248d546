"""Listing: the jobs of a cluster, how each of them stands, and which one a word means."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shlex import quote

from infra import job_names
from infra.cloud import Cloud
from infra.errors import JobError
from infra.jobs.link import JOBS, Link, unknown

QUEUED, RUNNING, DONE, FAILED, CANCELLED, LOST = "queued", "running", "done", "failed", "cancelled", "lost"
#: who ended a job: its exit code is the program's own only where the program did
PROGRAM, CANCEL, MACHINE = "program", "cancel", "machine"
ENDED_BY = {DONE: PROGRAM, FAILED: PROGRAM, CANCELLED: CANCEL, LOST: MACHINE}
EVERY = "all"  # workers
TIME = r"-\d{8}-\d{6}(-\d+)?"  # the end of an id


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job, as its master knows it.

    ``state`` is "queued", "running", "done", "failed", "cancelled" or "lost" (the machine went down under
    it). ``ended_by`` is "program", "cancel", "machine", or "" of one that has not ended.
    """

    id: str
    started: str
    state: str
    exit_code: int | None
    ended_by: str = ""
    program: str = ""  # the name of its file without .py; of a job that an older version started nothing
    workers: str = EVERY  # how many it may use


def jobs(cloud: Cloud, cluster: str) -> list[Job]:
    """All jobs of the cluster, the oldest first."""
    return of_link(Link(cloud, cluster))


def of_link(link: Link) -> list[Job]:
    """All jobs of the link's cluster, the oldest first."""
    command = f"{link.script('list.sh')} {quote(str(link.path(JOBS)))}"
    rows = (line.split("\t") for line in link.host.run(command, timeout_seconds=60).stdout.splitlines())
    return sorted((_job(*row) for row in rows), key=lambda job: (job.started, job.id))


def resolve(cloud: Cloud, cluster: str, word: str) -> str:
    """The id of the job that ``word`` names: its id, or the newest one of a program, or of such a beginning.

    Raises JobError if there is none.
    """
    known = jobs(cloud, cluster)
    if word in {one.id for one in known}:
        return word
    name = job_names.line(Path(word).name.removesuffix(".py"))
    of_program = [one.id for one in known if name and one.program == name]
    spelled = re.compile(f"{re.escape(name)}{TIME}")
    alike = of_program or [one.id for one in known if name and spelled.fullmatch(one.id)]
    if not alike:
        raise unknown(word)
    return alike[-1]


def latest(cloud: Cloud, cluster: str) -> str:
    """The id of the job that was started last. Raises JobError if there is none."""
    known = jobs(cloud, cluster)
    if not known:
        raise JobError(f"No job was given to {cluster} yet; sparknet-ec2 submit CifarApp starts one.")
    return known[-1].id


def state(link: Link, folder: PurePosixPath) -> Job:
    """How one job stands. Raises JobError if it is not there."""
    found = {job.id: job for job in of_link(link)}
    if folder.name not in found:
        raise unknown(folder.name)
    return found[folder.name]


def cancel(cloud: Cloud, cluster: str, job: str) -> bool:
    """End the job; False if it had ended before."""
    link = Link(cloud, cluster)
    folder = link.job(job)
    before = state(link, folder).state
    link.host.run(f"{link.script('cancel.sh')} {quote(str(folder))}", timeout_seconds=60)
    return before in (QUEUED, RUNNING)


def _job(identity: str, started: str, said: str, program: str = "", workers: str = "") -> Job:
    code = int(said) if said.isdigit() else None
    if code is not None:
        said = FAILED if code else DONE
    return Job(
        id=identity,
        started=started,
        state=said,
        exit_code=130 if said == CANCELLED else code,
        ended_by=ENDED_BY.get(said, ""),
        program=program,
        workers=workers or EVERY,
    )
