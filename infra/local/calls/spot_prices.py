"""Spot prices: their history, and the scores of placement."""

from __future__ import annotations

import zlib
from datetime import UTC, datetime, timedelta
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS
from moto.ec2.responses import EC2Response
from moto.ec2.responses.spot_instances import SpotInstances

from infra.local.calls.cloud import Cloud
from infra.local.calls.patches import Original, patch
from infra.local.models.capacity import CapacityPool, zones_with
from infra.spec import SPOT

HISTORY_STEP = timedelta(hours=6)
HISTORY_LENGTH = timedelta(days=90)
MOST_ROWS = 1000  # of one answer, as EC2's


@patch(SpotInstances, "describe_spot_price_history", why="prices of the scenario, moving a little over time")
def describe_spot_price_history(cloud: Cloud, _original: Original, response: Any) -> ActionResult:
    filters = response._filters_from_querystring()
    types = set(response._get_param("InstanceTypes", []) or filters.get("instance-type", []))
    zone = response._get_param("AvailabilityZone")
    zones = {zone} if zone else set(filters.get("availability-zone", []))
    products = response._get_param("ProductDescriptions", []) or filters.get("product-description", [])
    start, end = response._get_param("StartTime"), response._get_param("EndTime")
    rows: list[dict[str, Any]] = []
    if not products or any(product.startswith("Linux/UNIX") for product in products):
        for pool in _spot_pools(response.region, types, zones):
            rows += _history(cloud, pool, start, end)
    first = int(response._get_param("NextToken") or 0)
    size = min(MOST_ROWS, response._get_param("MaxResults") or MOST_ROWS)
    following = str(first + size) if first + size < len(rows) else ""
    return ActionResult({"SpotPriceHistory": rows[first : first + size], "NextToken": following})


@patch.add(EC2Response, "get_spot_placement_scores", why="not in moto")
def get_spot_placement_scores(cloud: Cloud, _original: Original, response: Any) -> ActionResult:
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
        each = {zone: max((_score(cloud, one, zone, wanted) for one in types), default=1) for zone in zones}
        if by_zone:
            scores += [
                {"Region": region, "AvailabilityZoneId": ids.get(zone, zone), "Score": s}
                for zone, s in each.items()
            ]
        else:
            scores.append({"Region": region, "Score": max(each.values(), default=1)})
    scores.sort(key=lambda row: -int(row["Score"]))
    return ActionResult({"SpotPlacementScores": scores})


def aware(moment: datetime | str) -> datetime:
    """A moment of a request, which moto may give as text, or without its zone."""
    parsed = datetime.fromisoformat(moment.replace("Z", "+00:00")) if isinstance(moment, str) else moment
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _spot_pools(region: str, types: set[str], zones: set[str]) -> list[CapacityPool]:
    rows = INSTANCE_TYPE_OFFERINGS["availability-zone"].get(region, [])
    return sorted(
        CapacityPool(row["InstanceType"], row["Location"], SPOT)
        for row in rows
        if (not types or row["InstanceType"] in types) and (not zones or row["Location"] in zones)
    )


def _history(
    cloud: Cloud, pool: CapacityPool, start: datetime | None, end: datetime | None
) -> list[dict[str, Any]]:
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
    return [
        _row(cloud, pool, moment, is_current=index == 0 and end is None)
        for index, moment in enumerate(moments)
    ]


def _row(cloud: Cloud, pool: CapacityPool, moment: datetime, *, is_current: bool) -> dict[str, Any]:
    price = cloud.capacity.price(pool)
    # within 5 percent of the price now
    wave = 0.0 if is_current else (zlib.crc32(f"{pool} {moment}".encode()) % 21 - 10) / 200
    return {
        "InstanceType": pool.instance_type,
        "ProductDescription": "Linux/UNIX",
        "SpotPrice": f"{price * (1 + wave):.6f}",
        "AvailabilityZone": pool.zone,
        "Timestamp": moment,
    }


def _score(cloud: Cloud, instance_type: str, zone: str, wanted: int) -> int:
    if zone not in zones_with(instance_type, zone[:-1]):
        return 1
    free = cloud.capacity.free(CapacityPool(instance_type, zone, SPOT))
    return 9 if free is None else max(1, min(9, round(9 * free / max(1, wanted))))
