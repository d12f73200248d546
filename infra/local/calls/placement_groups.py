"""Placement groups, which moto does not have: created, listed, deleted."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses import EC2Response
from moto.ec2.utils import generic_filter

from infra.local.calls.cloud import Cloud
from infra.local.calls.patches import Original, patch
from infra.local.models.placement import PlacementGroup

STRATEGIES = ("cluster", "spread", "partition")


@patch.add(EC2Response, "create_placement_group", why="not in moto")
def create_placement_group(cloud: Cloud, _original: Original, response: Any) -> ActionResult:
    groups = cloud.placement_groups.of(response.region)
    name, strategy = response._get_param("GroupName"), response._get_param("Strategy") or "cluster"
    if name in groups:
        raise EC2ClientError(
            "InvalidPlacementGroup.Duplicate", f"The Placement Group '{name}' already exists."
        )
    if strategy not in STRATEGIES:
        raise EC2ClientError(
            "InvalidParameterValue", f"Value ({strategy}) for parameter strategy is invalid."
        )
    response.error_on_dryrun()
    count = response._get_param("PartitionCount")
    groups[name] = PlacementGroup(response.ec2_backend, name, strategy, count)
    groups[name].add_tags(response._parse_tag_specification().get("placement-group", {}))
    return ActionResult({"PlacementGroup": groups[name]})


@patch.add(EC2Response, "describe_placement_groups", why="not in moto")
def describe_placement_groups(cloud: Cloud, _original: Original, response: Any) -> ActionResult:
    groups = cloud.placement_groups.of(response.region)
    names = response._get_param("GroupNames", [])
    ids = response._get_param("GroupIds", [])
    for name in names:
        if name not in groups:
            raise EC2ClientError("InvalidPlacementGroup.Unknown", f"The Placement Group '{name}' is unknown.")
    found = [
        group
        for group in groups.values()
        if (not names or group.group_name in names) and (not ids or group.group_id in ids)
    ]
    filtered = generic_filter(response._filters_from_querystring(), found)
    return ActionResult({"PlacementGroups": filtered})


@patch.add(EC2Response, "delete_placement_group", why="not in moto")
def delete_placement_group(cloud: Cloud, _original: Original, response: Any) -> Any:
    groups = cloud.placement_groups.of(response.region)
    name = response._get_param("GroupName")
    if name not in groups:
        raise EC2ClientError("InvalidPlacementGroup.Unknown", f"The Placement Group '{name}' is unknown.")
    alive = [
        instance
        for instance in response.ec2_backend.all_instances()
        if instance.placement.group_name == name and instance.state != "terminated"
    ]
    if alive:
        raise EC2ClientError(
            "InvalidPlacementGroup.InUse", f"The placement group {name} is in use and may not be deleted."
        )
    response.error_on_dryrun()
    del groups[name]
    return EmptyResult()
