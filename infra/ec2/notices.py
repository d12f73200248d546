"""Notices: spot instances that EC2 is about to take back, as far as can be known from outside.

Two sources. The status of an instance's spot request says ``marked-for-termination`` from the notice to the
end, whatever runs on the node. The tag ``sparknet:notice``, which the agent of a node with a profile
writes (ami/agent), says when, and tells of rebalance recommendations too.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-request-status.html
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from infra.ec2 import tags
from infra.ec2.nodes import Node
from infra.ec2.region import Region
from infra.errors import InfraError
from infra.spec import SPOT

TERMINATE, REBALANCE = "terminate", "rebalance"
MARKED = ("marked-for-termination", "marked-for-stop")


@dataclass(frozen=True, kw_only=True)
class Notice:
    """``action`` is TERMINATE or REBALANCE (it may be taken back soon); ``time`` ISO 8601, empty if unknown:
    when it ends, or when the recommendation was made."""

    node: str
    id: str
    action: str
    time: str = ""

    def __str__(self) -> str:
        if self.action == REBALANCE:
            return f"{self.node} ({self.id}) may be taken back soon, says EC2{self._at(' since')}"
        return f"{self.node} ({self.id}) is being taken back by EC2{self._at(' at')}"

    def _at(self, word: str) -> str:
        return f"{word} {self.time}" if self.time else ""


def of_nodes(region: Region, nodes: Iterable[Node]) -> dict[str, Notice]:
    """By instance id, the notices of those of ``nodes`` that are alive. One call, none without spot nodes."""
    living = {node.id: node for node in nodes if node.is_alive and node.purchase == SPOT}
    found = {one: _marked(living[one]) for one in _requests(region, living)}
    told = {one: notice for one, node in living.items() if (notice := _told(node))}
    return {**found, **told}


def _requests(region: Region, ids: Iterable[str]) -> list[str]:
    """Those of the instances whose spot request is marked; none where they may not be listed."""
    wanted = sorted(ids)
    if not wanted:
        return []
    filters = [{"Name": "instance-id", "Values": wanted}, {"Name": "status-code", "Values": list(MARKED)}]
    try:
        found = list(region.pages("describe_spot_instance_requests", "SpotInstanceRequests", Filters=filters))
    except InfraError:
        return []
    return [str(one["InstanceId"]) for one in found if one.get("Status", {}).get("Code") in MARKED]


def _marked(node: Node) -> Notice:
    return Notice(node=node.name, id=node.id, action=TERMINATE)


def _told(node: Node) -> Notice | None:
    action, _, time = node.tags.get(tags.NOTICE, "").partition(" ")
    return Notice(node=node.name, id=node.id, action=action, time=time) if action else None
