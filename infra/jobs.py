"""Jobs: programs given to the cluster with spark-submit, on its master, independent of who gave them.

A job is a folder on the master, ``var/lib/sparknet/jobs/<id>``, and nothing else:

    command     what is run, as a shell script        pid         its process group
    log         all it writes                           exit_code   how it ended, once it has
    program     what the program's file is called     started     when
    output/     what it leaves for the user           trainer.zip, and what is in it, and the program

So a job survives the connection, the laptop, and this program; ``logs``, ``jobs`` and ``cancel`` find it
again.
"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from shlex import join, quote

from infra import job_names
from infra.cluster import Cloud, find
from infra.ec2 import nodes
from infra.ec2.nodes import Node
from infra.errors import (
    CommandFailed,
    HostError,
    HostRefused,
    HostUnreachable,
    InfraError,
    Interrupted,
    JobError,
    SetupError,
    UsageError,
)
from infra.interrupts import interrupts_held
from infra.node import bootstrap, bundle
from infra.node.host import Host, LeftOut, read_text, write_text
from infra.program import Program

JOBS = PurePosixPath("var/lib/sparknet/jobs")
FOLLOW_SECONDS = 30 * 24 * 3600.0  # longer than any --max-hours
RECONNECT_SECONDS = 300.0  # a laptop that was asleep, a network that changed
MOST_A_SECOND = 100  # jobs of one name
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

SIGNALLED = 128  # the shell's status of a command that a signal ended is above it

#: Exit statuses that are no decision of the program: an uncaught exception, and death by a signal.
UNDECIDED = {1, *range(129, 256)} - {Interrupted.exit_status}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job, as its master knows it: ``state`` is "running", "done", "failed", "cancelled" or "lost"."""

    id: str
    started: str
    state: str
    exit_code: int | None
    program: str = ""  # the name of its file without .py; of a job that an older version started nothing


@dataclass(frozen=True, kw_only=True)
class Results:
    """What was fetched of a job: the files here, sorted, and what of its output is no file or folder."""

    files: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]


def submit(
    cloud: Cloud, cluster: str, what: Program, arguments: Sequence[str], *, env: Mapping[str, str]
) -> str:
    """Start ``what`` on the cluster's master and return the job's id; it runs whoever listens.

    Raises ClusterNotFound, UsageError for an impossible variable, SetupError if the cluster has no running
    master.
    """
    for variable in env:
        if not VARIABLE.fullmatch(variable):
            raise UsageError(f"{variable!r} cannot be the name of an environment variable.")
    host, address = _master(cloud, cluster)
    folder = _make_folder(host, job_names.of_now(what.name))
    try:
        _stage(host, address, folder, what, arguments, env)
    except BaseException:
        with suppress(InfraError):  # what is half there was never a job
            host.run(f"rm -rf {quote(str(folder))}", timeout_seconds=60, check=False)
        raise
    try:
        with interrupts_held():  # or nobody would know whether it runs
            host.run(f"bash {_script(host, 'start.sh')} {quote(str(folder))}", timeout_seconds=60)
    except Interrupted as stop:
        raise Interrupted(f"{stop}; {goes_on(cloud, cluster, folder.name)}") from None
    return folder.name


def goes_on(cloud: Cloud, cluster: str, job: str) -> str:
    """What to tell somebody who leaves a job that runs."""
    return f"{job} goes on. See it with {cloud.command(f'logs -f {job}', cluster)}, end it with " + (
        f"{cloud.command(f'cancel {job}', cluster)}."
    )


def _make_folder(host: Host, identity: str) -> PurePosixPath:
    """A new folder for a job: ``identity``, or, where that is taken, that with a number.

    mkdir itself decides: no two jobs share a folder, however close they are. Raises CommandFailed.
    """
    for number in range(1, MOST_A_SECOND + 1):
        folder = host.root / JOBS / job_names.nth(identity, number)
        words = f"mkdir {quote(str(folder))}"
        made = host.run(words, timeout_seconds=60, check=False)
        if made.exit_status == 0:
            return folder
        is_taken = host.run(f"test -e {quote(str(folder))}", timeout_seconds=60, check=False)
        if is_taken.exit_status:
            raise CommandFailed(host.name, words, made.exit_status, made.stderr)
    raise SetupError(f"{MOST_A_SECOND} jobs {identity} were started in one second; submit it again.")


def _stage(
    host: Host,
    address: str,
    folder: PurePosixPath,
    what: Program,
    arguments: Sequence[str],
    env: Mapping[str, str],
) -> None:
    """Put all that the job needs into its folder."""
    host.run(f"mkdir {quote(str(folder / 'output'))}", timeout_seconds=60)
    with tempfile.TemporaryDirectory(prefix="sparknet-") as scratch:
        zipped = Path(scratch) / "trainer.zip"
        zipped.write_bytes(bundle.build().zipped)
        host.put(zipped, folder / "trainer.zip")
    host.put(what.file, folder / what.script)
    write_text(host, folder / "program", f"{job_names.line(what.name)}\n")
    unpack = f"{_python(host)} -m zipfile -e {quote(str(folder / 'trainer.zip'))} {quote(str(folder))}"
    host.run(unpack, timeout_seconds=120)  # the driver finds the packages' data as files
    command = _command(host, address, folder, what, arguments, env)
    write_text(host, folder / "command", command, mode=0o600)


def follow(cloud: Cloud, cluster: str, job: str, on_line: Callable[[str], None]) -> int:
    """Pass on every line of the job's log, from its first, until it ends; its exit status, as ``status_of``
    says.

    A lost connection is made again, and no line is passed on twice. Raises JobError for an unknown job and
    for one whose master has ended, and HostError if that cannot be reached for ``RECONNECT_SECONDS``.
    """
    master = _master_node(cloud, cluster)
    host = cloud.connect(master)
    folder = _folder(host, job)
    lines, last_contact = 0, time.monotonic()

    def pass_on(line: str) -> None:
        nonlocal lines, last_contact
        lines, last_contact = lines + 1, time.monotonic()
        on_line(line)

    while True:
        try:
            command = f"bash {_script(host, 'follow.sh')} {quote(str(folder))} {lines + 1}"
            host.run(command, timeout_seconds=FOLLOW_SECONDS, on_line=pass_on)
            return _exit_status(host, folder)
        except (HostRefused, HostUnreachable, CommandFailed) as error:
            if isinstance(error, CommandFailed) and error.status <= SIGNALLED:
                raise
            _require_master(cloud, cluster, master, job)
            if time.monotonic() - last_contact > RECONNECT_SECONDS:
                raise
            time.sleep(cloud.poll_seconds)
            host = _again(cloud, master, host)


def log(cloud: Cloud, cluster: str, job: str, *, lines: int) -> str:
    """The last ``lines`` lines of the job's log."""
    host, _ = _master(cloud, cluster)
    file = _folder(host, job) / "log"
    return host.run(f"tail -n {lines} {quote(str(file))}", timeout_seconds=60, check=False).stdout


def jobs(cloud: Cloud, cluster: str) -> list[Job]:
    """All jobs of the cluster, the oldest first."""
    host, _ = _master(cloud, cluster)
    command = f"bash {_script(host, 'list.sh')} {quote(str(host.root / JOBS))}"
    rows = (line.split("\t") for line in host.run(command, timeout_seconds=60).stdout.splitlines())
    return sorted((_job(*row) for row in rows), key=lambda job: (job.started, job.id))


def resolve(cloud: Cloud, cluster: str, word: str) -> str:
    """The id of the job that ``word`` names: its id, or the program that the newest one of it ran.

    Raises JobError if there is none.
    """
    known = jobs(cloud, cluster)
    if word in {one.id for one in known}:
        return word
    name = job_names.line(Path(word).name.removesuffix(".py"))
    for one in reversed(known):
        if name and one.program == name:
            return one.id
    raise _unknown(word)


def latest(cloud: Cloud, cluster: str) -> str:
    """The id of the job that was started last. Raises JobError if there is none."""
    known = jobs(cloud, cluster)
    if not known:
        raise JobError(f"No job was given to {cluster} yet; sparknet-ec2 submit CifarApp starts one.")
    return known[-1].id


def cancel(cloud: Cloud, cluster: str, job: str) -> bool:
    """End the job; False if it had ended before."""
    host, _ = _master(cloud, cluster)
    folder = _folder(host, job)
    known = {one.id: one for one in jobs(cloud, cluster)}
    host.run(f"bash {_script(host, 'cancel.sh')} {quote(str(folder))}", timeout_seconds=60)
    return known[job].state == "running"


def fetch(cloud: Cloud, cluster: str, job: str, target: Path) -> Results:
    """Copy what the job left in its ``output`` to the folder ``target``.

    Raises SetupError if they cannot be written here.
    """
    host, _ = _master(cloud, cluster)
    source = _folder(host, job) / "output"
    try:
        target.mkdir(parents=True, exist_ok=True)
        left_out = host.get(source, target)
    except OSError as error:
        raise SetupError(
            f"The results of {job} cannot be written to {target}: {error.strerror or error}; they are still "
            f"on the cluster: sparknet-ec2 logs {job} --output ANOTHER."
        ) from None
    files = tuple(sorted(path for path in target.rglob("*") if path.is_file()))
    return Results(files=files, left_out=left_out)


def status_of(exit_code: int) -> int:
    """What ``submit`` leaves with: the program's own decision, or 7 if it failed without one."""
    return JobError.exit_status if exit_code in UNDECIDED else exit_code


def _command(
    host: Host,
    address: str,
    folder: PurePosixPath,
    what: Program,
    arguments: Sequence[str],
    env: Mapping[str, str],
) -> str:
    """The script that the job runs."""
    conf, output = host.root / "opt/sparknet/conf", folder / "output"
    submit_words = [
        str(host.root / "opt/sparknet/spark/bin/spark-submit"),
        *("--master", f"spark://{address}:7077"),
        *("--name", folder.name),
        *("--py-files", str(folder / "trainer.zip")),
        str(folder / what.script),
        *(["--output", str(output)] if what.is_app else []),
        *arguments,
    ]
    exports = {"SPARK_CONF_DIR": str(conf), "PYTHONUNBUFFERED": "1", "SPARKNET_OUTPUT": str(output), **env}
    return "\n".join(
        (
            *(f"export {name}={quote(value)}" for name, value in exports.items()),
            f"cd {quote(str(folder))}",
            f"exec {join(submit_words)}",
            "",
        )
    )


def _master(cloud: Cloud, name: str) -> tuple[Host, str]:
    """The master's host and its private address."""
    master = _master_node(cloud, name)
    return cloud.connect(master), master.private_ip


def _master_node(cloud: Cloud, name: str) -> Node:
    master = find(cloud, name).master
    if master is None or master.state != "running":
        raise SetupError(f"{name} has no running master; {cloud.command('launch', name)} brings it back.")
    return master


def _require_master(cloud: Cloud, name: str, master: Node, job: str) -> None:
    """Raises JobError if EC2 no longer runs ``master``: the job ended with it, and will not come back."""
    there = nodes.describe(cloud.region, name)
    now = next((node for node in there if node.id == master.id), None)
    if now is not None and now.state == "running":
        return
    state = f"{now.state}{f', {now.reason}' if now.reason else ''}" if now else "gone"
    if now is not None and now.is_alive:
        cure = f"{cloud.command('start', name)} starts it again"
    elif nodes.alive(there):
        cure = f"{cloud.command('repair', name)} puts another one in its place"
    else:
        cure = f"{cloud.command('launch', name)} makes the cluster anew"
    raise JobError(
        f"The master of {name} ({master.id}) has ended ({state}), and {job} with it: what it had not stored "
        f"elsewhere is lost. {cure}; then submit the program again."
    )


def _again(cloud: Cloud, master: Node, host: Host) -> Host:
    """A new connection; the old one where the master does not take one at the moment."""
    try:
        return cloud.connect(master)
    except HostError:
        return host


def _folder(host: Host, job: str) -> PurePosixPath:
    folder = host.root / JOBS / job
    is_there = job_names.is_folder(job) and (
        host.run(f"test -e {quote(str(folder / 'pid'))}", timeout_seconds=60, check=False).exit_status == 0
    )
    if not is_there:
        raise _unknown(job)
    return folder


def _unknown(job: str) -> JobError:
    return JobError(f"There is no job {job}; sparknet-ec2 jobs lists them.")


def _exit_status(host: Host, folder: PurePosixPath) -> int:
    try:
        return int(read_text(host, folder / "exit_code"))
    except (CommandFailed, ValueError):
        raise JobError(
            f"The job {folder.name} ended without a word: its machine went down under it."
        ) from None


def _job(identity: str, started: str, state: str, program: str = "") -> Job:
    code = int(state) if state.isdigit() else None
    names = {0: "done", 130: "cancelled"}
    return Job(
        id=identity,
        started=started,
        state=state if code is None else names.get(code, "failed"),
        exit_code=code,
        program=program,
    )


def _python(host: Host) -> str:
    return quote(str(host.root / "opt/sparknet/venv/bin/python"))


def _script(host: Host, name: str) -> str:
    return quote(str(host.root / bootstrap.ON_NODE / "job" / name))
