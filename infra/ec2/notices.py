"""Notices: spot instances that EC2 is about to take back, as far as can be known from outside.

The status of an instance's spot request says ``marked-for-termination`` from the notice to the end, two
minutes later, whatever runs on the node. What the node does with it is its agent's business (ami/agent).
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-request-status.html
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from infra.ec2.nodes import Node
from infra.ec2.region import Region
from infra.errors import InfraError
from infra.spec import SPOT

TERMINATE = "terminate"
MARKED = ("marked-for-termination", "marked-for-stop")


@dataclass(frozen=True, kw_only=True)
class Notice:
    """EC2 takes the node back (``action`` is TERMINATE), and said so at ``time``, ISO 8601, empty if
    unknown."""

    node: str
    id: str
    action: str = TERMINATE
    time: str = ""

    def __str__(self) -> str:
        since = f" since {self.time}" if self.time else ""
        return f"{self.node} ({self.id}) is being taken back by EC2{since}"


def of_nodes(region: Region, nodes: Iterable[Node]) -> dict[str, Notice]:
    """By instance id, the notices of those of ``nodes`` that are alive. One call, none without spot nodes;
    nothing where requests may not be listed."""
    living = {node.id: node for node in nodes if node.is_alive and node.purchase == SPOT}
    if not living:
        return {}
    filters = [
        {"Name": "instance-id", "Values": sorted(living)},
        {"Name": "status-code", "Values": list(MARKED)},
    ]
    try:
        found = list(region.pages("describe_spot_instance_requests", "SpotInstanceRequests", Filters=filters))
    except InfraError:
        return {}
    marked = {
        one["InstanceId"]: one["Status"] for one in found if one.get("Status", {}).get("Code") in MARKED
    }
    return {one: _notice(living[one], status) for one, status in marked.items()}


def _notice(node: Node, status: dict[str, Any]) -> Notice:
    said = status.get("UpdateTime")
    return Notice(node=node.name, id=node.id, time=said.isoformat() if said else "")
