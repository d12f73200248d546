"""Nodes: the instances of a cluster as EC2 describes them, waiting for them, ending them."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from infra import numbers
from infra.ec2 import tags
from infra.ec2.error_codes import explain
from infra.ec2.region import ApiError, Region, matches
from infra.errors import CapacityError, DeadlineExceeded, SetupError, last_lines
from infra.polling import Pending, poll
from infra.spec import ON_DEMAND, SPOT

MASTER, WORKER = "master", "worker"
GONE = ("terminated", "shutting-down")
IDLE = ("stopping", "stopped", *GONE)  # in these states EC2 charges for volumes alone
LISTED_SECONDS = 3600.0  # EC2 shows an instance that has ended for about an hour
RECLAIMED = "Server.SpotInstanceTermination"
#: StateTransitionReason: who ended an instance, and when
_TRANSITION = re.compile(r"(.*?) ?\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)")
UNKNOWN, PROTECTED = "InvalidInstanceID.NotFound", "OperationNotPermitted"
TERMINATE_BATCH = 500  # EC2 takes a thousand ids; half of it leaves room in the request


@dataclass(frozen=True, kw_only=True)
class Node:
    """One machine of a cluster. ``name`` is its role, and for workers a number that they keep for life."""

    name: str
    id: str
    cluster: str
    role: str
    state: str
    reason: str  # why it is in that state, EC2's code
    instance_type: str
    zone: str
    purchase: str  # SPOT or ON_DEMAND
    private_ip: str
    public_ip: str
    launched: str  # ISO 8601
    image: str
    key_pair: str
    volumes: tuple[str, ...]  # added volumes, without the root, in order of their device
    tags: dict[str, str]
    ended: str = ""  # ISO 8601, when it stopped running; empty while it runs, and where EC2 does not say

    @property
    def is_alive(self) -> bool:
        return self.state not in GONE

    @property
    def is_named(self) -> bool:
        """Whether its name is its own, and not a number that was free."""
        return tags.NODE in self.tags

    @property
    def expires(self) -> str:
        """When it ends itself, ISO 8601, or ``tags.NEVER``."""
        return self.tags.get(tags.EXPIRES, tags.NEVER)


def describe(region: Region, cluster: str | None) -> list[Node]:
    """All nodes of ``cluster`` (None: of every cluster) that EC2 still knows, dead ones included.

    Master first, then workers by number. A worker that has no name yet is shown under a free number, in
    order of launch; one that ended without a name under its id. One call for each thousand nodes.
    """
    found = [
        instance
        for reservation in region.pages(
            "describe_instances", "Reservations", Filters=tags.of_cluster(cluster), MaxResults=1000
        )
        for instance in reservation["Instances"]
    ]
    found.sort(key=lambda i: (i["LaunchTime"], i["InstanceId"]))
    read = _named([_node(instance, tags.as_dict(instance.get("Tags"))) for instance in found])
    return sorted(
        read, key=lambda node: (node.cluster, node.role != MASTER, numbers.number_of(node.name) or 0)
    )


def name(region: Region, node: Node, to_be: str) -> None:
    """Give the node its name, for life."""
    region.change(
        "create_tags",
        Resources=[node.id],
        Tags=[
            {"Key": tags.NODE, "Value": to_be},
            {"Key": "Name", "Value": f"{node.cluster}-{to_be}"},
        ],
        just_made=(UNKNOWN,),
    )


def purchase_of(instance: dict[str, Any]) -> str:
    """How an instance of DescribeInstances was bought: EC2 names a lifecycle for spot instances alone."""
    return SPOT if instance.get("InstanceLifecycle") == "spot" else ON_DEMAND


def alive(nodes: Iterable[Node]) -> list[Node]:
    return [node for node in nodes if node.is_alive]


def anything_runs(region: Region) -> bool:
    """Whether there is any instance at all, ours or not."""
    found = region.pages("describe_instances", "Reservations")
    return any(one["State"]["Name"] not in GONE for reservation in found for one in reservation["Instances"])


def wait_running(
    region: Region,
    cluster: str,
    count: int,
    *,
    ended: Collection[str] = (),
    deadline_seconds: float,
    poll_seconds: float = 1.0,
) -> list[Node]:
    """Wait until ``count`` nodes run, and return them. One describe call a poll, however many nodes there
    are.

    ``ended``: ids of nodes that were gone before. Raises CapacityError if EC2 took one back, SetupError if
    one failed to start or somebody ended it, DeadlineExceeded.
    """

    def overdue(nodes: list[Node], running: list[Node]) -> DeadlineExceeded:
        others = [node for node in nodes if node.state != "running"]
        states = ", ".join(f"{node.id} {node.state}" for node in others)
        return DeadlineExceeded(
            f"{len(running)} of {count} nodes of {cluster} run after {deadline_seconds:g} s "
            f"({states or 'EC2 does not list the others'}).",
            nodes=[node.name for node in others],
        )

    def check() -> list[Node] | Pending:
        nodes = describe(region, cluster)
        # "running" and its address may come from two copies of EC2's state, one behind the other
        running = [node for node in nodes if node.state == "running" and node.private_ip]
        if len(running) >= count:
            return running
        lost = [node for node in nodes if not node.is_alive and node.id not in ended]
        if lost and len(alive(nodes)) < count:
            raise _loss(lost[0])
        return Pending(lambda: overdue(nodes, running))

    return poll(check, deadline_seconds=deadline_seconds, every=poll_seconds, sleep=region.sleep)


def console(region: Region, identity: str, *, lines: int) -> str:
    """The last lines of what the machine itself said; empty while EC2 has nothing of it."""
    said = region.read("get_console_output", InstanceId=identity, Latest=True).get("Output", "")
    return last_lines(str(said), lines)


def terminate(region: Region, ids: Iterable[str]) -> tuple[str, ...]:
    """Ask EC2 to end the instances, which may be repeated; those that it protects against termination."""
    everything = list(ids)
    kept: list[str] = []
    for start in range(0, len(everything), TERMINATE_BATCH):
        batch = everything[start : start + TERMINATE_BATCH]
        answer = region.change("terminate_instances", InstanceIds=batch, tolerate=(UNKNOWN, PROTECTED))
        if answer is None:  # one unknown or protected id makes EC2 refuse the whole batch
            kept += [one for one in batch if not _terminate_one(region, one)]
    return tuple(kept)


def _terminate_one(region: Region, identity: str) -> bool:
    """Whether EC2 ends it, or does not know it."""
    try:
        region.attempt("terminate_instances", InstanceIds=[identity])
    except ApiError as error:
        if error.code == PROTECTED:
            return False
        if not matches(error.code, ("InvalidInstanceID.*",)):
            raise explain(error.code, error.message, error.operation) from None
    return True


def stop(
    region: Region, cluster: str, identity: str, *, deadline_seconds: float, poll_seconds: float = 1.0
) -> None:
    """Stop one node and wait until it is. Raises SetupError if it ends instead, DeadlineExceeded."""
    stop_all(region, cluster, [identity], deadline_seconds=deadline_seconds, poll_seconds=poll_seconds)


def stop_all(
    region: Region,
    cluster: str,
    ids: Collection[str],
    *,
    deadline_seconds: float,
    poll_seconds: float = 1.0,
) -> None:
    """Stop nodes and wait until they are. Raises SetupError if one ends instead, DeadlineExceeded."""
    if not ids:
        return
    region.change("stop_instances", InstanceIds=list(ids))

    def overdue(states: dict[str, str]) -> DeadlineExceeded:
        left = ", ".join(f"{one} is still {state}" for one, state in states.items() if state != "stopped")
        return DeadlineExceeded(f"{left} {deadline_seconds:g} s after the call to stop it.")

    def check() -> Pending | None:
        known = {node.id: node.state for node in describe(region, cluster)}
        states = {one: known.get(one, "unknown") for one in ids}
        for one, state in states.items():
            if state in GONE:
                raise SetupError(f"{one} was to stop, and is {state}.")
        are_stopped = all(state == "stopped" for state in states.values())
        return None if are_stopped else Pending(lambda: overdue(states))

    poll(check, deadline_seconds=deadline_seconds, every=poll_seconds, sleep=region.sleep)


def wait_gone(
    region: Region,
    cluster: str | None,
    wanted: Callable[[Node], bool],
    *,
    deadline_seconds: float,
    poll_seconds: float = 1.0,
) -> None:
    """Wait until every instance for which ``wanted`` holds is terminated. Raises DeadlineExceeded."""

    def overdue(left: list[Node]) -> DeadlineExceeded:
        states = ", ".join(f"{node.id} is {node.state}" for node in left)
        return DeadlineExceeded(
            f"{states} {deadline_seconds:g} s after the call to end it; run sparknet-ec2 destroy again."
        )

    def check() -> Pending | None:
        left = [node for node in describe(region, cluster) if node.state != "terminated" and wanted(node)]
        return Pending(lambda: overdue(left)) if left else None

    poll(check, deadline_seconds=deadline_seconds, every=poll_seconds, sleep=region.sleep)


def _named(found: list[Node]) -> list[Node]:
    """The same nodes, living workers without a name each with a number that is free in its cluster."""
    taken = dict[str, set[int]]()
    for node in found:
        if node.is_alive and (number := numbers.number_of(node.name)):
            taken.setdefault(node.cluster, set()).add(number)
    rest = {node.cluster: numbers.free(taken.get(node.cluster, ())) for node in found}
    return [
        replace(node, name=numbers.name_of(next(rest[node.cluster])))
        if node.is_alive and node.role == WORKER and not node.is_named
        else node
        for node in found
    ]


def _node(instance: dict[str, Any], known: dict[str, str]) -> Node:
    role = known.get(tags.ROLE, "")
    return Node(
        name=role if role == MASTER else known.get(tags.NODE) or instance["InstanceId"],
        id=instance["InstanceId"],
        cluster=known.get(tags.CLUSTER, ""),
        role=role,
        state=instance["State"]["Name"],
        reason=_reason(instance),
        instance_type=instance["InstanceType"],
        zone=instance["Placement"]["AvailabilityZone"],
        purchase=purchase_of(instance),
        private_ip=instance.get("PrivateIpAddress", ""),
        public_ip=instance.get("PublicIpAddress", ""),
        launched=instance["LaunchTime"].isoformat(),
        image=instance.get("ImageId", ""),
        key_pair=instance.get("KeyName", ""),
        volumes=_added_volumes(instance),
        tags=known,
        ended=_ended(instance) if instance["State"]["Name"] in IDLE else "",
    )


def _reason(instance: dict[str, Any]) -> str:
    code = str(instance.get("StateReason", {}).get("Code", ""))
    # of a reclaimed instance EC2 sometimes tells no more than this
    by_service = instance.get("StateTransitionReason", "").startswith("Service initiated")
    return code or (RECLAIMED if by_service and purchase_of(instance) == SPOT else "")


def _ended(instance: dict[str, Any]) -> str:
    found = _TRANSITION.search(instance.get("StateTransitionReason", ""))
    return datetime.fromisoformat(found[2]).replace(tzinfo=UTC).isoformat() if found else ""


def _added_volumes(instance: dict[str, Any]) -> tuple[str, ...]:
    mappings = sorted(instance.get("BlockDeviceMappings", []), key=lambda m: str(m["DeviceName"]))
    return tuple(
        mapping["Ebs"]["VolumeId"]
        for mapping in mappings
        if mapping["DeviceName"] != instance.get("RootDeviceName") and "Ebs" in mapping
    )


def _loss(node: Node) -> Exception:
    if node.reason in (RECLAIMED, "Server.InsufficientInstanceCapacity"):
        return CapacityError(
            f"EC2 took {node.id} ({node.instance_type} in {node.zone}) back before it ran ({node.reason}); "
            "launch again, with --fallback on-demand if that repeats."
        )
    if node.reason.startswith("Client.User"):
        return SetupError(
            f"Somebody ended {node.id} of {node.cluster} while the cluster came up ({node.reason}): is a "
            "destroy under way? Wait for its end, and launch again."
        )
    return SetupError(f"{node.id} ({node.instance_type} in {node.zone}) ended before it ran: {node.reason}.")
