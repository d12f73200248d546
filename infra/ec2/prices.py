"""Prices: dollars an hour, from AWS where it answers, otherwise from a dated table, and which of the two."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from infra import aws
from infra.ec2.region import ApiError, Region
from infra.errors import InfraError

HOURS_A_MONTH = 730.0
API_SECONDS = 0.01  # asked once: the table is good enough
PRICING_REGION = "us-east-1"


@dataclass(frozen=True, kw_only=True)
class Price:
    """Dollars an hour and where the number comes from: "AWS", or the table and its date."""

    dollars: float
    source: str


def on_demand(region: Region, names: Iterable[str]) -> dict[str, Price]:
    """The on-demand price of each of ``names``; one that nobody knows is missing."""
    found: dict[str, Price] = {}
    wanted = sorted(set(names))
    # no permission, or no such service (the embedded cloud): what is missing comes from the table
    with suppress(ApiError, InfraError):
        found = {name: price for name in wanted if (price := _from_api(region, name))}
    table = {name: price for name in wanted if (price := _from_table(name))}
    return table | found


def spot(region: Region, names: Iterable[str]) -> dict[tuple[str, str], float]:
    """The spot price now, by type and zone."""
    wanted = sorted(set(names))
    if not wanted:  # no names would mean all types
        return {}
    found: dict[tuple[str, str], float] = {}
    for one in region.pages(
        "describe_spot_price_history",
        "SpotPriceHistory",
        InstanceTypes=wanted,
        ProductDescriptions=["Linux/UNIX"],
        StartTime=datetime.now(UTC) - timedelta(minutes=1),  # each pool's price as of then, and its changes
    ):
        found.setdefault((one["InstanceType"], one["AvailabilityZone"]), float(one["SpotPrice"]))
    return found


def spot_history(
    region: Region, names: Iterable[str], *, since: datetime
) -> dict[tuple[str, str], tuple[tuple[datetime, float], ...]]:
    """By type and zone, the spot price in force at ``since`` and each one after it, the oldest first.

    EC2 knows the prices of the last 90 days.
    """
    wanted = sorted(set(names))
    if not wanted:
        return {}
    found: dict[tuple[str, str], list[tuple[datetime, float]]] = {}
    for one in region.pages(
        "describe_spot_price_history",
        "SpotPriceHistory",
        InstanceTypes=wanted,
        ProductDescriptions=["Linux/UNIX"],
        StartTime=since,
    ):
        pool = found.setdefault((one["InstanceType"], one["AvailabilityZone"]), [])
        pool.append((one["Timestamp"], float(one["SpotPrice"])))
    return {pool: tuple(sorted(changes)) for pool, changes in found.items()}


def storage(volume_type: str, size_gib: int) -> float:
    """Dollars an hour for a volume."""
    prices = aws.storage_prices()
    per_month = prices.get(volume_type, prices["gp3"])
    return per_month * size_gib / HOURS_A_MONTH


def address() -> float:
    """Dollars an hour for a public address, of a machine or kept."""
    return aws.address_price()


def _from_table(name: str) -> Price | None:
    dollars = aws.on_demand_price(name)
    return Price(dollars=dollars, source=f"table of {aws.prices_date()}") if dollars else None


def _from_api(region: Region, name: str) -> Price | None:
    filters = {
        "instanceType": name,
        "regionCode": region.name,
        "operatingSystem": "Linux",
        "preInstalledSw": "NA",
        "tenancy": "Shared",
        "capacitystatus": "Used",
    }
    answer = region.at(PRICING_REGION, retry_seconds=API_SECONDS).attempt(
        "get_products",
        service="pricing",
        ServiceCode="AmazonEC2",
        Filters=[{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in filters.items()],
    )
    found = [dollars for product in answer.get("PriceList", []) for dollars in _dollars(json.loads(product))]
    return Price(dollars=max(found), source="AWS") if found else None


def _dollars(product: dict[str, Any]) -> Iterable[float]:
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term.get("priceDimensions", {}).values():
            dollars = float(dimension["pricePerUnit"].get("USD", 0))
            if dollars > 0:
                yield dollars
