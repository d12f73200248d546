"""Logs: what a job says, as it says it, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath
from shlex import quote

from infra.cloud import Cloud
from infra.errors import CommandFailed, JobError
from infra.jobs import noise
from infra.jobs.link import Link
from infra.node.host import Host, read_text

MARGIN = 20  # lines that are read for each that is shown: Spark says much
FOLLOW_SECONDS = 30 * 24 * 3600.0  # longer than any --max-hours


def follow(cloud: Cloud, cluster: str, job: str, on_line: Callable[[str], None]) -> int:
    """Pass on every line of the job's log, from its first, until it ends; its own exit status.

    A lost connection is made again, and no line is passed on twice. Raises JobError for an unknown job and
    for one whose master has ended, and HostError if that cannot be reached for ``RECONNECT_SECONDS``.
    """
    link = Link(cloud, cluster)
    folder = link.job(job)
    lines = 0

    def pass_on(line: str) -> None:
        nonlocal lines
        lines += 1
        link.touched()
        on_line(line)

    def work(host: Host) -> int:
        command = f"{link.script('follow.sh')} {quote(str(folder))} {lines + 1}"
        host.run(command, timeout_seconds=FOLLOW_SECONDS, on_line=pass_on)
        return _exit_status(host, folder)

    return link.keep(job, work)


def log(cloud: Cloud, cluster: str, job: str, *, lines: int, is_raw: bool = True) -> list[str]:
    """The last ``lines`` lines of the job's log; without Spark's own unless ``is_raw``."""
    link = Link(cloud, cluster)
    file = link.job(job) / "log"
    count = lines if is_raw else lines * MARGIN
    said = link.host.run(f"tail -n {count} {quote(str(file))}", timeout_seconds=60, check=False).stdout
    found = said.splitlines()
    return found if is_raw else noise.without(found)[-lines:]


def _exit_status(host: Host, folder: PurePosixPath) -> int:
    try:
        return int(read_text(host, folder / "exit_code"))
    except (CommandFailed, ValueError):
        raise JobError(
            f"The job {folder.name} ended without a word: its machine went down under it."
        ) from None
