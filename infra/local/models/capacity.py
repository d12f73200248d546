"""Capacity: how many machines of a type a zone has left, and at what price.

A capacity pool is an instance type in a zone, bought in one way (``spot`` or ``on-demand``). Every
refusal here has the code and the words of EC2.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from moto.ec2.exceptions import EC2ClientError
from moto.ec2.models.instance_types import INSTANCE_TYPE_OFFERINGS, INSTANCE_TYPES

from infra.local.models.prices import on_demand_price
from infra.local.models.quotas import Quotas
from infra.local.models.scenario import CapacityRule, PriceRule
from infra.spec import ON_DEMAND, SPOT


@dataclass(frozen=True, order=True)
class CapacityPool:
    """An instance type in a zone, bought in one way."""

    instance_type: str
    zone: str
    purchase: str

    @property
    def region(self) -> str:
        return self.zone[:-1]


class Capacity:
    """What every pool has, costs, and has given away."""

    def __init__(self, capacity: Iterable[CapacityRule], prices: Iterable[PriceRule], quotas: Quotas) -> None:
        self.rules, self.price_rules = tuple(capacity), tuple(prices)
        self.quotas = quotas
        self._taken: Counter[CapacityPool] = Counter()

    def free(self, pool: CapacityPool) -> int | None:
        """Machines left; None if there is no end of them."""
        rules = [rule for rule in self.rules if rule.fits(pool.instance_type, pool.zone, pool.purchase)]
        return max(0, rules[-1].machines - self._taken[pool]) if rules else None

    def price(self, pool: CapacityPool) -> float:
        """Dollars an hour of one machine now."""
        normal = on_demand_price(pool.instance_type)
        if pool.purchase == ON_DEMAND:
            return normal
        rules = [rule for rule in self.price_rules if rule.fits(pool.instance_type, pool.zone, pool.purchase)]
        if rules:
            return rules[-1].price
        share = 0.40 + zlib.crc32(f"{pool.instance_type} {pool.zone}".encode()) % 1000 / 10_000
        return round(normal * share, 6)

    def check_offered(self, pool: CapacityPool) -> None:
        """Raises Unsupported if the zone does not have the type at all."""
        zones = zones_with(pool.instance_type, pool.region)
        if pool.zone not in zones:
            raise EC2ClientError(
                "Unsupported",
                f"Your requested instance type ({pool.instance_type}) is not supported in your requested "
                f"Availability Zone ({pool.zone}). Please retry your request by not specifying an "
                f"Availability Zone or choosing {', '.join(zones)}.",
            )

    def check_price(self, pool: CapacityPool, max_price: float | None) -> None:
        """Raises SpotMaxPriceTooLow; without a maximum of its own, a spot machine costs what it costs."""
        price = self.price(pool)
        if pool.purchase == SPOT and max_price is not None and max_price < price:
            raise EC2ClientError(
                "SpotMaxPriceTooLow",
                f"Your Spot request price of {max_price:g} is lower than the minimum required Spot request "
                f"fulfillment price of {price:g}.",
            )

    def available(self, pool: CapacityPool, wanted: int, *, at_least: int) -> int:
        """How many of ``wanted`` the pool and the quota allow. Raises if that is less than ``at_least``."""
        self.check_quota(pool, at_least)
        free = self.free(pool)
        count = wanted if free is None else min(wanted, free)
        if count < at_least or count == 0:
            raise EC2ClientError("InsufficientInstanceCapacity", no_capacity(pool))
        return min(count, self.quotas.left(pool.instance_type, pool.purchase, self._running(pool.region)))

    def check_quota(self, pool: CapacityPool, count: int) -> None:
        """Raises VcpuLimitExceeded or MaxSpotInstanceCountExceeded."""
        self.quotas.check(pool.instance_type, pool.purchase, count, self._running(pool.region))

    def take(self, pool: CapacityPool, count: int) -> None:
        self._taken[pool] += count

    def give_back(self, pool: CapacityPool, count: int = 1) -> None:
        self._taken[pool] -= count

    def _running(self, region: str) -> list[tuple[str, str, int]]:
        """(instance type, purchase, machines) of all that run in the region."""
        return [
            (pool.instance_type, pool.purchase, count)
            for pool, count in self._taken.items()
            if pool.region == region
        ]


def zones_with(instance_type: str, region: str) -> list[str]:
    """The zones of the region that have the type."""
    return _offerings(region).get(instance_type, [])


def check_type(instance_type: str) -> None:
    """Raises InvalidParameterValue for a type that EC2 does not know."""
    if instance_type not in INSTANCE_TYPES:
        raise EC2ClientError("InvalidParameterValue", f"Invalid value '{instance_type}' for InstanceType.")


def no_capacity(pool: CapacityPool) -> str:
    """What EC2 says when a pool is empty."""
    if pool.purchase == SPOT:
        return "There is no Spot capacity available that matches your request."
    return (
        f"We currently do not have sufficient {pool.instance_type} capacity in the Availability Zone you "
        f"requested ({pool.zone}). Our system will be working on provisioning additional capacity. You can "
        f"currently get {pool.instance_type} capacity by not specifying an Availability Zone in your "
        "request or choosing another one."
    )


def _offerings(region: str) -> dict[str, list[str]]:
    if region not in _OFFERINGS:
        found: dict[str, list[str]] = {}
        for row in INSTANCE_TYPE_OFFERINGS["availability-zone"].get(region, []):
            found.setdefault(row["InstanceType"], []).append(row["Location"])
        _OFFERINGS[region] = {name: sorted(zones) for name, zones in found.items()}
    return _OFFERINGS[region]


_OFFERINGS: dict[str, dict[str, list[str]]] = {}  # region -> type -> zones; moto keeps it as one long list
