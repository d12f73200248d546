"""Spot: the request behind every spot instance, the price history, and the scores of placement."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS
from moto.ec2.responses import EC2Response
from moto.ec2.responses.spot_instances import SpotInstances
from moto.ec2.utils import random_spot_request_id

from infra.local.patches import Original, patch
from infra.local.pools import SPOT, Pool, zones_with

HISTORY_STEP = timedelta(hours=6)
HISTORY_LENGTH = timedelta(days=90)
MOST_ROWS = 1000  # of one answer, as EC2's


class SpotRequest(TaggedEC2Resource):
    """A one-time request that was fulfilled at once, as RunInstances and CreateFleet make them."""

    def __init__(
        self, instance: Any, max_price: float | None, tags: Mapping[str, str], fleet_id: str | None
    ) -> None:
        self.ec2_backend = instance.ec2_backend
        self.id = random_spot_request_id()
        self.instance = instance
        self.instance_id = instance.id
        self.spot_instance_request_id = self.id
        self.spot_fleet_id = fleet_id
        self.state = "active"
        self.status: dict[str, Any] = {}
        self.set_status("fulfilled", "Your Spot request is fulfilled.")
        self.type = "one-time"
        self.product_description = "Linux/UNIX"
        self.instance_interruption_behavior = "terminate"
        self.create_time = utcnow()
        self.launched_availability_zone = instance.placement.zone
        pool = Pool(instance.instance_type, instance.placement.zone, SPOT)
        self.spot_price = f"{max_price if max_price is not None else patch.cloud.pools.price(pool):.6f}"
        self.launch_specification = {
            "ImageId": instance.image_id,
            "InstanceType": instance.instance_type,
            "KeyName": instance.key_name,
            "SubnetId": instance.subnet_id,
            "SecurityGroups": [
                {"GroupId": group.id, "GroupName": group.name} for group in instance.security_groups
            ],
            "Placement": {"AvailabilityZone": instance.placement.zone},
        }
        self.launch_spec = None
        self.add_tags(dict(tags))

    def set_status(self, code: str, message: str) -> None:
        self.status = {"Code": code, "Message": message, "UpdateTime": utcnow()}

    def close(self, code: str, message: str) -> None:
        self.state = "closed"
        self.set_status(code, message)

    def get_filter_value(self, filter_name: str, method_name: str | None = None) -> Any:  # noqa: ARG002
        known = {
            "state": self.state,
            "status-code": self.status["Code"],
            "spot-instance-request-id": self.id,
            "instance-id": self.instance_id,
            "type": self.type,
            "launch.instance-type": self.instance.instance_type,
            "launched-availability-zone": self.launched_availability_zone,
        }
        if filter_name in known:
            return known[filter_name]
        return super().get_filter_value(filter_name, "DescribeSpotInstanceRequests")


def request_for(
    instance: Any, max_price: float | None, tags: Mapping[str, str], fleet_id: str | None = None
) -> SpotRequest:
    """Make the request of a spot instance, and let each know of the other."""
    request = SpotRequest(instance, max_price, tags, fleet_id)
    instance.ec2_backend.spot_instance_requests[request.id] = request
    instance.spot_instance_request_id = request.id
    instance.lifecycle = "spot"
    return request


def request_of(instance: Any) -> SpotRequest | None:
    """The request of an instance, None if it is not a spot instance of ours."""
    request = instance.ec2_backend.spot_instance_requests.get(
        getattr(instance, "spot_instance_request_id", None)
    )
    return request if isinstance(request, SpotRequest) else None


@patch(SpotInstances, "cancel_spot_instance_requests", why="unknown ids are errors; the instance runs on")
def cancel_spot_instance_requests(_original: Original, response: Any) -> ActionResult:
    ids = response._get_param("SpotInstanceRequestIds", [])
    response.error_on_dryrun()
    known = response.ec2_backend.spot_instance_requests
    for one in ids:
        if one not in known:
            raise EC2ClientError(
                "InvalidSpotInstanceRequestID.NotFound",
                f"The spot instance request ID '{one}' does not exist",
            )
    for one in ids:
        known[one].state = "cancelled"
        if isinstance(known[one], SpotRequest):
            known[one].set_status("request-canceled-and-instance-running", "The request was canceled.")
    return ActionResult(
        {"CancelledSpotInstanceRequests": [{"SpotInstanceRequestId": i, "State": "cancelled"} for i in ids]}
    )


@patch(SpotInstances, "request_spot_instances", why="moto's would make instances without a host")
def request_spot_instances(_original: Original, _response: Any) -> ActionResult:
    raise EC2ClientError(
        "UnsupportedOperation",
        "This simulated cloud has no RequestSpotInstances, which AWS discourages; use CreateFleet or "
        "RunInstances.",
    )


@patch(SpotInstances, "describe_spot_price_history", why="prices of the scenario, moving a little over time")
def describe_spot_price_history(_original: Original, response: Any) -> ActionResult:
    filters = response._filters_from_querystring()
    types = set(response._get_param("InstanceTypes", []) or filters.get("instance-type", []))
    zone = response._get_param("AvailabilityZone")
    zones = {zone} if zone else set(filters.get("availability-zone", []))
    products = response._get_param("ProductDescriptions", []) or filters.get("product-description", [])
    start, end = response._get_param("StartTime"), response._get_param("EndTime")
    rows: list[dict[str, Any]] = []
    if not products or any(product.startswith("Linux/UNIX") for product in products):
        for pool in _spot_pools(response.region, types, zones):
            rows += _history(pool, start, end)
    first = int(response._get_param("NextToken") or 0)
    size = min(MOST_ROWS, response._get_param("MaxResults") or MOST_ROWS)
    following = str(first + size) if first + size < len(rows) else ""
    return ActionResult({"SpotPriceHistory": rows[first : first + size], "NextToken": following})


def _spot_pools(region: str, types: set[str], zones: set[str]) -> list[Pool]:
    rows = INSTANCE_TYPE_OFFERINGS["availability-zone"].get(region, [])
    return sorted(
        Pool(row["InstanceType"], row["Location"], SPOT)
        for row in rows
        if (not types or row["InstanceType"] in types) and (not zones or row["Location"] in zones)
    )


def _history(pool: Pool, start: datetime | None, end: datetime | None) -> list[dict[str, Any]]:
    """The price at each change between two moments, newest first, with the one in force at ``start``."""
    now = datetime.now(UTC)  # not the simulation's: who asks names moments of the real time
    last = min(_aware(end), now) if end else now
    first = max(_aware(start), now - HISTORY_LENGTH) if start else now
    moments = []
    step = int(last.timestamp() // HISTORY_STEP.total_seconds())
    while True:
        moment = datetime.fromtimestamp(step * HISTORY_STEP.total_seconds(), UTC)
        moments.append(moment)
        if moment <= first:
            break
        step -= 1
    return [_row(pool, moment, is_current=index == 0 and end is None) for index, moment in enumerate(moments)]


def _row(pool: Pool, moment: datetime, *, is_current: bool) -> dict[str, Any]:
    price = patch.cloud.pools.price(pool)
    wave = (
        0.0 if is_current else (zlib.crc32(f"{pool} {moment}".encode()) % 21 - 10) / 200
    )  # within 5 percent
    return {
        "InstanceType": pool.instance_type,
        "ProductDescription": "Linux/UNIX",
        "SpotPrice": f"{price * (1 + wave):.6f}",
        "AvailabilityZone": pool.zone,
        "Timestamp": moment,
    }


def _aware(moment: datetime | str) -> datetime:
    parsed = datetime.fromisoformat(moment.replace("Z", "+00:00")) if isinstance(moment, str) else moment
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


@patch.add(EC2Response, "get_spot_placement_scores", why="not in moto")
def get_spot_placement_scores(_original: Original, response: Any) -> ActionResult:
    """10 where the scenario sets no limit, 1 where nothing is left, in between by what is left."""
    response.error_on_dryrun()
    wanted = int(response._get_param("TargetCapacity") or 1)
    types = response._get_param("InstanceTypes", [])
    regions = response._get_param("RegionNames", []) or [response.region]
    by_zone = bool(response._get_param("SingleAvailabilityZone"))
    scores = []
    for region in regions:
        zones = sorted({zone for one in types for zone in zones_with(one, region)})
        ids = {zone.name: zone.zone_id for zone in response.ec2_backend.zones.get(region, [])}
        each = {zone: max((_score(one, zone, wanted) for one in types), default=1) for zone in zones}
        if by_zone:
            scores += [
                {"Region": region, "AvailabilityZoneId": ids.get(zone, zone), "Score": s}
                for zone, s in each.items()
            ]
        else:
            scores.append({"Region": region, "Score": max(each.values(), default=1)})
    scores.sort(key=lambda row: -int(row["Score"]))
    return ActionResult({"SpotPlacementScores": scores})


def _score(instance_type: str, zone: str, wanted: int) -> int:
    if zone not in zones_with(instance_type, zone[:-1]):
        return 1
    free = patch.cloud.pools.free(Pool(instance_type, zone, SPOT))
    return 9 if free is None else max(1, min(9, round(9 * free / max(1, wanted))))
