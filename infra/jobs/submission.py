"""Submission: a program is given to the cluster with spark-submit, on its master; it runs whoever listens."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shlex import quote

from infra import bill, job_names
from infra.cloud import Cloud
from infra.ec2 import nodes
from infra.errors import CapacityError, CommandFailed, InfraError, Interrupted, SetupError
from infra.interrupts import interrupts_held
from infra.jobs import project, record, requirements, script
from infra.jobs.delivery import Moved, OnMoved, Parcel, deliver
from infra.jobs.link import JOBS, Link
from infra.jobs.listing import EVERY
from infra.jobs.project import Project
from infra.jobs.request import Request, is_elsewhere
from infra.node import bootstrap, bundle, spark
from infra.node.host import Result, write_text

MOST_A_SECOND = 100  # jobs of one name
STATUS_NO_SLOT = 75  # of start.sh


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """A job that was started or queued, what travelled with it, and how much of that was new.

    ``problem``: a sentence where it could not be recorded for ``resubmit``.
    """

    job: str
    project: Project
    moved: Moved
    problem: str = ""


def submit(
    cloud: Cloud, cluster: str, request: Request, *, on_moved: OnMoved = lambda _: None, origin: str = ""
) -> Submitted:
    """Start what is asked for on the cluster's master, or let it wait there for its turn; it is recorded.

    ``origin``: the job that it goes on from.
    Raises ClusterNotFound, UsageError for a project that cannot travel, SetupError if the cluster has no
    running master or the requirements cannot be installed, CapacityError if other jobs have its workers.
    """
    found = project.collect(request.program)
    link, bucket = Link(cloud, cluster), record.bucket_of(cloud, cluster)
    folder = _make_folder(link, job_names.of_now(request.title))
    try:
        if not request.is_queued:
            _require_slot(link, folder, request)
        saves = record.place(cloud.region.name, cluster, folder.name, bucket)
        moved = _stage(link, folder, request, found, on_moved, saves=saves)
        with interrupts_held():  # or nobody would know whether it runs
            _start(link, folder, request)
    except Interrupted as stop:
        if _has_started(link, folder):
            raise Interrupted(f"{stop}; {goes_on(cloud, cluster, folder.name)}") from None
        _forget(link, folder)
        raise
    except BaseException:
        _forget(link, folder)  # what is half there was never a job
        raise
    with interrupts_held():  # it runs by now
        made = record.of(cloud, cluster, folder.name, request, found, bucket=bucket, origin=origin)
        problem = record.keep(cloud, made, request, found)
    return Submitted(job=folder.name, project=found, moved=moved, problem=problem)


def goes_on(cloud: Cloud, cluster: str, job: str) -> str:
    """What to tell somebody who leaves a job that runs."""
    return f"{job} goes on. See it with {cloud.command(f'logs -f {job}', cluster)}, end it with " + (
        f"{cloud.command(f'cancel {job}', cluster)}."
    )


def _make_folder(link: Link, identity: str) -> PurePosixPath:
    """A new folder for a job: ``identity``, or, where that is taken, that with a number.

    mkdir itself decides: no two jobs share a folder, however close they are. Raises CommandFailed.
    """
    for number in range(1, MOST_A_SECOND + 1):
        folder = link.path(JOBS) / job_names.nth(identity, number)
        words = f"mkdir {quote(str(folder))}"
        made = link.host.run(words, timeout_seconds=60, check=False)
        if made.exit_status == 0:
            return folder
        is_taken = link.host.run(f"test -e {quote(str(folder))}", timeout_seconds=60, check=False)
        if is_taken.exit_status:
            raise CommandFailed(link.host.name, words, made.exit_status, made.stderr)
    raise SetupError(f"{MOST_A_SECOND} jobs {identity} were started in one second; submit it again.")


def _forget(link: Link, folder: PurePosixPath) -> None:
    with suppress(InfraError):
        link.host.run(f"rm -rf {quote(str(folder))}", timeout_seconds=60, check=False)


def _has_started(link: Link, folder: PurePosixPath) -> bool:
    asked = f"test -e {quote(str(folder / 'pid'))}"
    with suppress(InfraError):
        return link.host.run(asked, timeout_seconds=60, check=False).exit_status == 0
    return False


def _stage(
    link: Link, folder: PurePosixPath, request: Request, found: Project, on_moved: OnMoved, *, saves: str
) -> Moved:
    """Put all that the job needs into its folder."""
    parts = " ".join(quote(str(folder / name)) for name in (script.OUTPUT, script.EVENTS, script.WORK))
    link.host.run(f"mkdir {parts}", timeout_seconds=60)
    modules = script.modules(found)
    moved = deliver(link, folder, list(_parcels(request, found, modules)), on_moved)
    trainer, packages = (quote(str(folder / name)) for name in (script.TRAINER, script.PROGRAM.parent))
    # the driver finds the packages' data as files
    link.host.run(f"{link.python} -m zipfile -e {trainer} {packages}", timeout_seconds=120)
    write_text(link.host, folder / "program", f"{job_names.line(request.title)}\n")
    place = script.Place(
        root=link.host.root,
        address=link.address,
        folder=folder,
        cores=_cores(link, request),
        machines=_machines(link),
        python=requirements.install(link, request) if request.requirements else "",
        has_modules=bool(modules),
        saves=saves,
    )
    settings = script.settings(request, folder / script.EVENTS, script.of_place(request, place))
    write_text(link.host, folder / "properties", settings, mode=0o600)
    write_text(link.host, folder / "command", script.command(request, place), mode=0o600)
    return moved


def _machines(link: Link) -> str:
    """What the job's page is to say of the cluster; nothing of its price where nobody knows that."""
    there = [node for node in nodes.describe(link.cloud.region, link.name) if node.state == "running"]
    known = bill.note(link.cloud, link.name)
    kinds = Counter(f"{node.instance_type}, {node.purchase}" for node in there)
    told = {
        "name": link.name,
        "region": link.cloud.region.name,
        "machines": dict(kinds),
        "per_hour": known.cost.per_hour if known else None,
        "simulated": link.cloud.kind == "local",
    }
    return json.dumps(told)


def _parcels(request: Request, found: Project, modules: bytes) -> Iterable[Parcel]:
    yield Parcel(path=script.TRAINER, source=bundle.build().zipped)
    yield Parcel(path=str(script.PROGRAM), source=bootstrap.AMI / "job/program.py")
    if modules:
        yield Parcel(path=script.MODULES, source=modules)
    for item in found.items:
        yield Parcel(path=f"{script.WORK}/{item.path}", source=item.file, mode=item.mode)
    given = {"py-files": request.py_files, "files": request.files, "jars": request.jars}
    for kind, paths in given.items():
        for path in paths:
            if not is_elsewhere(path):
                yield Parcel(path=script.sent_as(kind, path), source=Path(path))


def _cores(link: Link, request: Request) -> int:
    """Of the smallest worker; asked only where it matters."""
    if request.workers is None:
        return 0
    found = spark.health(link.host, link.address)
    if found.workers < request.workers:
        raise CapacityError(
            f"--num-workers {request.workers}: {link.name} has {found.workers} workers that run; "
            f"{link.cloud.command('add-slaves', link.name)} adds some."
        )
    return found.least_cores


def _require_slot(link: Link, folder: PurePosixPath, request: Request) -> None:
    """Before anything travels. Raises CapacityError."""
    write_text(link.host, folder / "workers", f"{request.workers or EVERY}\n")
    asked = f"{link.python} -I -S {link.script_path('slots.py')} {quote(str(folder))} {quote(link.address)}"
    holders = link.host.run(asked, timeout_seconds=60).stdout.split("\n")
    _refuse(link, request, [one for one in holders if one])


def _start(link: Link, folder: PurePosixPath, request: Request) -> None:
    words = [str(folder), link.address, str(request.workers or EVERY)]
    words += ["queue"] if request.is_queued else []
    command = f"{link.script('start.sh')} {' '.join(map(quote, words))}"
    ran: Result = link.host.run(command, timeout_seconds=60, check=False)
    if ran.exit_status == STATUS_NO_SLOT:
        _refuse(link, request, ran.stdout.split())
    if ran.exit_status:
        raise CommandFailed(link.host.name, command, ran.exit_status, ran.stdout + ran.stderr)


def _refuse(link: Link, request: Request, holders: list[str]) -> None:
    """Raises CapacityError if there are any."""
    if not holders:
        return
    names, command = ", ".join(holders), link.cloud.command
    few = "" if request.workers else ", or leave it some of the workers with --num-workers in both"
    raise CapacityError(
        f"{link.name} has no free workers for {request.title}: they belong to {names}. Wait for it with "
        f"--queue{few}; {command(f'cancel {holders[0]}', link.name)} ends it."
    )
