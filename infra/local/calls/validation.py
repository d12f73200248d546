"""What EC2 refuses by the look of a request: ids that cannot be, filters that it does not know, pages.

moto takes any word for an id, and answers everything at once whatever ``MaxResults`` says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.responses.amis import AmisResponse
from moto.ec2.responses.elastic_block_store import ElasticBlockStore
from moto.ec2.responses.elastic_network_interfaces import ElasticNetworkInterfaces
from moto.ec2.responses.security_groups import SecurityGroups
from moto.ec2.responses.subnets import Subnets

from infra.local.calls.cloud import Cloud
from infra.local.calls.patches import Original, patch

ID = re.compile(r"[a-z]+-([0-9a-f]{8}|[0-9a-f]{17})")

#: Parameters of calls to EC2: how the ids in them begin, and the code for one that cannot be.
IDS = {
    "InstanceId": ("i-", "InvalidInstanceID.Malformed"),
    "ImageId": ("ami-", "InvalidAMIID.Malformed"),
    "GroupId": ("sg-", "InvalidGroupId.Malformed"),
    "SecurityGroupId": ("sg-", "InvalidGroupId.Malformed"),
}
NOT_AN_ID = ("resolve:ssm:", "pg-")  # an image by its parameter; a placement group's id is a GroupId, too

PAGED = (
    (AmisResponse, "describe_images", "Images"),
    (ElasticBlockStore, "describe_snapshots", "Snapshots"),
    (ElasticBlockStore, "describe_volumes", "Volumes"),
    (ElasticNetworkInterfaces, "describe_network_interfaces", "NetworkInterfaces"),
    (SecurityGroups, "describe_security_groups", "SecurityGroups"),
    (Subnets, "describe_subnets", "Subnets"),
)


def malformed_id(parameters: Mapping[str, Any]) -> tuple[str, str] | None:
    """(code, message) if a call to EC2 names an id that cannot be."""
    for name, value in parameters.items():
        prefix, code = IDS.get(name.partition(".")[0], ("", ""))
        text = str(value)
        if code and not text.startswith(NOT_AN_ID) and not (text.startswith(prefix) and ID.fullmatch(text)):
            return code, f'Invalid id: "{text}" (expecting "{prefix}...")'
    return None


def unknown_filter(error: NotImplementedError) -> tuple[str, str] | None:
    """(code, message) if moto did not know a filter; None if it lacks something else."""
    found = re.search(r"[Ff]ilter\b.*?'([^']+)'", str(error))
    return ("InvalidParameterValue", f"The filter '{found[1]}' is invalid") if found else None


def _paged(key: str) -> Original:
    """The answer's list cut into pages, as ``MaxResults`` and ``NextToken`` ask for."""

    def describe(_cloud: Cloud, original: Original, response: Any) -> ActionResult:
        answer: ActionResult = original(response)
        size = response._get_param("MaxResults")
        if not size:
            return answer
        result = dict(answer.result)  # type: ignore[call-overload]
        everything, first = list(result[key]), int(response._get_param("NextToken") or 0)
        following = first + int(size)
        result[key] = everything[first:following]
        if following < len(everything):
            result["NextToken"] = str(following)
        return ActionResult(result)

    return describe


for _owner, _name, _key in PAGED:
    patch(_owner, _name, why="moto answers all pages at once")(_paged(_key))
