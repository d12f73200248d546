"""Diagnosis: what is wrong with a cluster that was ready once, and with the nodes under a job that failed.

Every node is asked; one that does not answer is a problem like any other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from infra import attachments, jobs
from infra.cloud import Cloud, Member, connect
from infra.errors import InfraError, SetupError
from infra.node import checks
from infra.node.checks import Problem
from infra.node.host import on_all

LOG_LINES = 2000
#: as Spark writes it: Lost task 1.0 in stage 0.0 (TID 1) (10.0.0.4 executor 0): ... No space left on device
NO_SPACE = re.compile(r"\((\d+\.\d+\.\d+\.\d+) executor .*No space left on device")


def of_nodes(members: Sequence[Member]) -> tuple[Problem, ...]:
    """Nodes that do not answer, and disks that are dead, full, or not mounted."""

    def look(member: Member) -> tuple[Problem, ...]:
        try:
            return checks.disks(member.host, member.name)
        except InfraError as error:
            said = str(error).removeprefix(f"{member.name}: ").splitlines()[0]
            return (Problem(node=member.name, check="answer", said=said),)

    return tuple(problem for found in on_all(members, look) for problem in found) if members else ()


def of_cluster(cloud: Cloud, name: str) -> tuple[Problem, ...]:
    """What is wrong with the cluster's nodes, by what they say, and by what EC2 says of them."""
    members = connect(cloud, name)
    lacking = attachments.lacking(cloud.region, name, [member.node for member in members])
    detached = (
        Problem(node=member.name, check="disk", said=lacking[member.node.id])
        for member in members
        if member.node.id in lacking
    )
    return (*of_nodes(members), *detached)


def require_room(cloud: Cloud, name: str) -> tuple[Problem, ...]:
    """Raises SetupError if a node's disk is full, dead or gone: an executor there would never start, and a
    job wait for it in silence. What else is wrong with the nodes.
    """
    found = of_cluster(cloud, name)
    disks = [one for one in found if one.check == "disk"]
    if disks:
        table = "\n".join(f"    {one}" for one in disks)
        raise SetupError(
            f"The job was not started, since no worker can run where its disk takes nothing:\n{table}\n"
            f"  {cloud.command('repair', name)} puts other nodes in their place"
        )
    return found


def of_job(cloud: Cloud, cluster: str, job: str) -> tuple[Problem, ...]:
    """What the nodes say now, and which of them the job's log says were full while it ran."""
    members = connect(cloud, cluster)
    now = of_nodes(members)
    # of a node with a problem now, what its disk said before is no news
    known = {problem.node for problem in now}
    log = "\n".join(jobs.log(cloud, cluster, job, lines=LOG_LINES))
    names = {member.node.private_ip: member.name for member in members}
    full = {names.get(address, address) for address in NO_SPACE.findall(log)} - known
    then = (
        Problem(
            node=name,
            check="disk",
            said="had no space left while the job ran: remove files there, or launch with larger disks",
        )
        for name in sorted(full)
    )
    return (*now, *then)
