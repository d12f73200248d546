"""Spot: the request behind every spot instance, the price history, and the scores of placement."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS
from moto.ec2.responses import EC2Response
from moto.ec2.responses.spot_instances import SpotInstances
from moto.ec2.utils import random_spot_request_id

from infra.local.calls.patches import Original, patch
from infra.local.models.capacity import SPOT, Pool, zones_with
from infra.local.models.prices import on_demand_price

HISTORY_STEP = timedelta(hours=6)
HISTORY_LENGTH = timedelta(days=90)
MOST_ROWS = 1000  # of one answer, as EC2's


class SpotRequest(TaggedEC2Resource):
    """A one-time request: open until there is an instance for it, which may be at once."""

    def __init__(
        self,
        backend: Any,
        parameters: Mapping[str, Any],  # as of RunInstances; the answer shows some of them
        max_price: float | None,
        tags: Mapping[str, str],
        fleet_id: str | None = None,
    ) -> None:
        self.ec2_backend = backend
        self.id = random_spot_request_id()
        self.instance: Any = None
        self.instance_id: str | None = None
        self.spot_instance_request_id = self.id
        self.spot_fleet_id = fleet_id
        self.parameters, self.max_price = parameters, max_price
        self.state = "open"
        self.status: dict[str, Any] = {}
        self.set_status("pending-evaluation", "Your Spot request has been submitted for review.")
        self.type = "one-time"
        self.product_description = "Linux/UNIX"
        self.instance_interruption_behavior = "terminate"
        self.create_time = utcnow()
        self.valid_until: datetime | None = None
        self.launched_availability_zone: str | None = None
        cap = max_price if max_price is not None else on_demand_price(parameters["InstanceType"])
        self.spot_price = f"{cap:.6f}"
        shown = ("ImageId", "InstanceType", "KeyName", "SubnetId", "Placement")
        self.launch_specification = {name: parameters[name] for name in shown if parameters.get(name)}
        self.launch_spec = None
        self.add_tags(dict(tags))

    def fulfil(self, instance: Any) -> None:
        """Let the request and its instance know of each other."""
        self.instance, self.instance_id = instance, instance.id
        self.launched_availability_zone = instance.placement.zone
        self.launch_specification["SecurityGroups"] = [
            {"GroupId": group.id, "GroupName": group.name} for group in instance.security_groups
        ]
        self.state = "active"
        self.set_status("fulfilled", "Your Spot request is fulfilled.")
        instance.spot_instance_request_id = self.id
        instance.lifecycle = "spot"

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
            "launch.instance-type": self.launch_specification["InstanceType"],
            "launch.image-id": self.launch_specification.get("ImageId"),
            "spot-price": self.spot_price,
            "launched-availability-zone": self.launched_availability_zone,
        }
        if filter_name in known:
            return known[filter_name]
        return super().get_filter_value(filter_name, "DescribeSpotInstanceRequests")


def request_for(
    instance: Any, max_price: float | None, tags: Mapping[str, str], fleet_id: str | None = None
) -> SpotRequest:
    """The request behind a spot instance of RunInstances or CreateFleet."""
    parameters = {
        "ImageId": instance.image_id,
        "InstanceType": instance.instance_type,
        "KeyName": instance.key_name,
        "SubnetId": instance.subnet_id,
        "Placement": {"AvailabilityZone": instance.placement.zone},
    }
    request = SpotRequest(instance.ec2_backend, parameters, max_price, tags, fleet_id)
    instance.ec2_backend.spot_instance_requests[request.id] = request
    request.fulfil(instance)
    return request


def request_of(instance: Any) -> SpotRequest | None:
    """The request of an instance, None if it is not a spot instance of ours."""
    request = instance.ec2_backend.spot_instance_requests.get(
        getattr(instance, "spot_instance_request_id", None)
    )
    return request if isinstance(request, SpotRequest) else None


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
    last = min(aware(end), now) if end else now
    first = max(aware(start), now - HISTORY_LENGTH) if start else now
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


def aware(moment: datetime | str) -> datetime:
    """A moment of a request, which moto may give as text, or without its zone."""
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
