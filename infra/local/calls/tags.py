"""CreateTags: on nothing that is not there. moto looks only for some kinds of resources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models import EC2Backend

from infra.local.calls.cloud import Cloud
from infra.local.calls.patches import Original, patch

#: How ids begin, the code for one that is not found, and whether there is one.
KINDS: dict[str, tuple[str, Callable[[Any, str], bool]]] = {
    "acl-": ("InvalidNetworkAclID.NotFound", lambda backend, one: one in backend.network_acls),
    "eipalloc-": (
        "InvalidAllocationID.NotFound",
        lambda backend, one: any(one == address.allocation_id for address in backend.describe_addresses()),
    ),
    "eni-": ("InvalidNetworkInterfaceID.NotFound", lambda backend, one: one in backend.enis),
    "fleet-": ("InvalidFleetId.NotFound", lambda backend, one: one in backend.fleets),
    "i-": ("InvalidInstanceID.NotFound", lambda backend, one: backend.get_instance_by_id(one) is not None),
    "key-": (
        "InvalidKeyPair.NotFound",
        lambda backend, one: any(one == pair.id for pair in backend.key_pairs.values()),
    ),
    "lt-": ("InvalidLaunchTemplateId.NotFound", lambda backend, one: one in backend.launch_templates),
    "nat-": ("NatGatewayNotFound", lambda backend, one: one in backend.nat_gateways),
    "sir-": (
        "InvalidSpotInstanceRequestID.NotFound",
        lambda backend, one: one in backend.spot_instance_requests,
    ),
}


@patch(EC2Backend, "do_resources_exist", why="unknown ids of every kind are errors")
def do_resources_exist(cloud: Cloud, original: Original, backend: Any, resource_ids: list[str]) -> bool:
    for one in resource_ids:
        kind = one.partition("-")[0] + "-"
        code, is_there = KINDS.get(kind, ("InvalidPlacementGroup.Unknown", lambda *_: True))
        if kind == "pg-":
            groups = cloud.placement_groups.of(backend.region_name).values()
            found = one in {group.id for group in groups}
        else:
            found = is_there(backend, one)
        if not found:
            raise EC2ClientError(code, f"The ID '{one}' does not exist")
    return bool(original(backend, resource_ids))
