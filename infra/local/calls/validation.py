"""What EC2 refuses by the look of a request: ids and tags that cannot be, filters it does not know, pages.

moto takes any word for an id, and answers everything at once whatever ``MaxResults`` says.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
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


#: Calls whose pages may be as small as one item.
OF_ANY_SIZE = {
    "DescribeFleets",
    "DescribeImages",
    "DescribeLaunchTemplateVersions",
    "DescribeLaunchTemplates",
    "DescribeSpotPriceHistory",
}
LEAST_RESULTS, MOST_RESULTS = 5, 1000
MOST_TAGS, MOST_KEY_CHARACTERS, MOST_VALUE_CHARACTERS = 50, 128, 256
TAG_KEY = re.compile(r"(.*?)(?:^|\.)Tag\.(\d+)\.Key")


def refusal(action: str, parameters: Mapping[str, Any]) -> tuple[str, str] | None:
    """(code, message) if EC2 would refuse the call ``action`` by its look."""
    return malformed_id(parameters) or _page_size(action, parameters) or _tags(parameters)


def _page_size(action: str, parameters: Mapping[str, Any]) -> tuple[str, str] | None:
    given = str(parameters.get("MaxResults", ""))
    if not action.startswith("Describe") or not given:
        return None
    least = 1 if action in OF_ANY_SIZE else LEAST_RESULTS
    if given.lstrip("-").isdigit() and least <= int(given) <= MOST_RESULTS:
        return None
    return "InvalidParameterValue", (
        f"Value ( {given} ) for parameter maxResults is invalid. Expecting a value between {least} and "
        f"{MOST_RESULTS}."
    )


def _tags(parameters: Mapping[str, Any]) -> tuple[str, str] | None:
    """Of each list of tags in the call: those of CreateTags, and of every TagSpecification."""
    lists: dict[str, list[str]] = {}
    for name, key in parameters.items():
        found = TAG_KEY.fullmatch(name)
        if not found:
            continue
        keys = lists.setdefault(found[1], [])
        value = str(parameters.get(f"{name.removesuffix('Key')}Value", ""))
        if wrong := _tag(str(key), value, keys):
            return "InvalidParameterValue", wrong
        keys.append(str(key))
    if any(len(keys) > MOST_TAGS for keys in lists.values()):
        return "TagLimitExceeded", f"More than {MOST_TAGS} tags specified"
    return None


def _tag(key: str, value: str, before: Collection[str]) -> str:
    if key.lower().startswith("aws:"):
        return "Tag keys starting with 'aws:' are reserved for internal use"
    if key in before:
        return f"Duplicate tag key '{key}' specified."
    if not 0 < len(key) <= MOST_KEY_CHARACTERS:
        return f"Tag key exceeds the maximum length of {MOST_KEY_CHARACTERS} characters, or is empty"
    if len(value) > MOST_VALUE_CHARACTERS:
        return f"Tag value exceeds the maximum length of {MOST_VALUE_CHARACTERS} characters"
    return ""


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
