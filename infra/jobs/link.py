"""Link: the way to the master on which a cluster's jobs are, made anew when it breaks.

A job is a folder there, ``var/lib/sparknet/jobs/<id>``, and nothing else:

    command         what is run, as a shell script    pid, ticks, boot   its process group, and its beginning
    properties      Spark's, for this job             ticket, workers    its turn, and its share of them
    trainer/        the trainer's packages            submitted, started, cancelled
    work/           the project: where it runs        log                all it writes
    output/         what it leaves for the user       exit_code          how it ended, once it has
    spark-events/   Spark's event log                 sent.json          what of work/ was sent, and as what
    progress.json   how far it is, if it trains       page               the address of its live page

So a job survives the connection, the laptop, and this program; ``logs``, ``jobs`` and ``cancel`` find it
again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import PurePosixPath
from shlex import quote
from typing import TypeVar

from infra import job_names
from infra.cloud import Cloud, find
from infra.ec2 import nodes
from infra.ec2.nodes import Node
from infra.errors import (
    CommandFailed,
    HostError,
    HostRefused,
    HostRejectedLogin,
    HostUnreachable,
    JobError,
    SetupError,
)
from infra.node import bootstrap
from infra.node.host import Host

JOBS = PurePosixPath("var/lib/sparknet/jobs")
RECONNECT_SECONDS = 300.0  # a laptop that was asleep, a network that changed, a master that boots
SIGNALLED = 128  # the shell's status of a command that a signal ended is above it

T = TypeVar("T")


class Link:
    """The connection to the master of the cluster ``name``.

    Raises ClusterNotFound, and SetupError if the cluster has no running master.
    """

    def __init__(self, cloud: Cloud, name: str) -> None:
        self.cloud, self.name = cloud, name
        self.master = _master_node(cloud, name)
        self.host: Host = cloud.connect(self.master)
        self._last_contact: float | None = None

    @property
    def address(self) -> str:
        """Where the workers see the master."""
        return self.master.private_ip

    def path(self, below_root: PurePosixPath | str) -> PurePosixPath:
        """A path on the master."""
        return self.host.root / below_root

    def script(self, name: str) -> str:
        """The words of a shell that run one of the scripts of ami/job."""
        file = self.script_path(name)
        return f"bash {file}" if name.endswith(".sh") else f"{self.python} -I {file}"

    def script_path(self, name: str) -> str:
        """One of the scripts of ami/job, as a word of a shell."""
        return quote(str(self.path(bootstrap.ON_NODE) / "job" / name))

    @property
    def python(self) -> str:
        """The cluster's Python, as a word of a shell."""
        return quote(str(self.path("opt/sparknet/venv/bin/python")))

    def job(self, identity: str) -> PurePosixPath:
        """The folder of a job. Raises JobError for an unknown one."""
        folder = self.path(JOBS) / identity
        is_there = job_names.is_folder(identity) and (
            self.host.run(
                f"test -e {quote(str(folder / 'pid'))}", timeout_seconds=60, check=False
            ).exit_status
            == 0
        )
        if not is_there:
            raise unknown(identity)
        return folder

    def touched(self) -> None:
        """Something came over the link."""
        self._last_contact = time.monotonic()

    def keep(self, job: str, work: Callable[[Host], T]) -> T:
        """What ``work`` returns; it is begun again over a new connection where the old one breaks.

        Raises JobError if the master has ended meanwhile, and the HostError if it cannot be reached for
        ``RECONNECT_SECONDS``.
        """
        began = time.monotonic()
        while True:
            try:
                done = work(self.host)
            except (HostRefused, HostUnreachable, HostRejectedLogin, CommandFailed) as error:
                if isinstance(error, CommandFailed) and error.status <= SIGNALLED:
                    raise
                if isinstance(error, HostRejectedLogin) and self._last_contact is None:
                    raise  # a machine that boots turns away whom it knows; this is somebody else
                self._require_master(job)
                if time.monotonic() - max(began, self._last_contact or 0.0) > RECONNECT_SECONDS:
                    raise
                time.sleep(self.cloud.poll_seconds)
                self._connect_again()
            else:
                self.touched()
                return done

    def _connect_again(self) -> None:
        try:
            self.host = self.cloud.connect(self.master)
        except HostError:
            return  # the old one, where the master does not take one at the moment

    def _require_master(self, job: str) -> None:
        """Raises JobError if EC2 no longer runs the master: the job ended with it, and will not come back."""
        name, cloud = self.name, self.cloud
        there = nodes.describe(cloud.region, name)
        now = next((node for node in there if node.id == self.master.id), None)
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
            f"The master of {name} ({self.master.id}) has ended ({state}), and {job} with it: what it had "
            f"not stored elsewhere is lost. {cure}; then submit the program again."
        )


def unknown(job: str) -> JobError:
    return JobError(f"There is no job {job}; sparknet-ec2 jobs lists them.")


def _master_node(cloud: Cloud, name: str) -> Node:
    master = find(cloud, name).master
    if master is None or master.state != "running":
        raise SetupError(f"{name} has no running master; {cloud.command('launch', name)} brings it back.")
    return master
