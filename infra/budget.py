"""Budget: when a cluster may have cost what it is allowed to, each of its nodes at the most that it can cost.

A spot instance costs no more than the maximum price of its request, which is the on-demand price unless
``--spot-price`` says less. With that a budget is a moment at which the nodes end themselves, and nobody has
to ask EC2 for prices. What has been spent is kept as a bound in a tag of the cluster's group. Whenever the
cluster is changed it becomes what its nodes have cost by the history of spot prices, if that is less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from infra import bill, costs
from infra.cloud import Cloud
from infra.ec2 import cleanup, nodes, prices
from infra.ec2.nodes import Node
from infra.ec2.region import Region
from infra.errors import UsageError
from infra.spec import SPOT, ClusterSpec
from infra.survey import Survey

LEAST_HOURS = 0.25


@dataclass(frozen=True, kw_only=True)
class Spent:
    """At most ``dollars`` had been spent at ``moment``, and from then on at most ``per_hour``."""

    dollars: float
    per_hour: float
    moment: datetime

    @classmethod
    def read(cls, text: str) -> Self | None:
        """From a tag, where there is one."""
        words = text.split()
        if len(words) != 3:
            return None
        return cls(dollars=float(words[0]), per_hour=float(words[1]), moment=datetime.fromisoformat(words[2]))

    def __str__(self) -> str:
        return f"{self.dollars:.4f} {self.per_hour:.4f} {self.moment.isoformat(timespec='seconds')}"

    def at(self, now: datetime) -> float:
        """Dollars spent until ``now``, at most."""
        return self.dollars + self.per_hour * max(0.0, (now - self.moment).total_seconds()) / 3600

    def reaches(self, budget: float) -> datetime:
        """When the budget may be spent."""
        return self.moment + timedelta(hours=(budget - self.dollars) / self.per_hour)


def of_launch(region: Region, spec: ClusterSpec, found: Survey) -> Spent:
    """Of a cluster that begins now, with workers of the dearest type it may get."""
    master = found.master_places[0].instance_type
    workers = {pool.instance_type for pool in found.pools}
    known = _prices(region, {master, *workers})
    dearest = max(_cap(known[name], spec) for name in workers)
    fixed = costs.of_volumes(spec, found.image) + costs.of_addresses(spec)
    per_hour = spec.workers * dearest + known[master] + fixed
    return Spent(dollars=0.0, per_hour=per_hour, moment=region.now())


def of_cluster(cloud: Cloud, name: str, before: Spent | None) -> Spent:
    """Of the cluster as it is now."""
    region = cloud.region
    now, living = region.now(), nodes.alive(nodes.describe(region, name))
    per_hour = _of_nodes(region, living) + sum(map(costs.of_resource, cleanup.remaining(region, name)))
    if before is None:  # it had no budget so far: as if all had been there since its beginning
        began = min((datetime.fromisoformat(node.launched) for node in living), default=now)
        before = Spent(dollars=0.0, per_hour=per_hour, moment=began)
    known = bill.note(cloud, name)
    is_known = known is not None and not known.cost.unknown
    paid = known.cost.so_far if known and is_known else before.at(now)
    return Spent(dollars=min(paid, before.at(now)), per_hour=per_hour, moment=now)


def require_enough(spent: Spent, budget: float) -> None:
    """Raises UsageError if the cluster would end itself before it is of any use."""
    hours = (budget - spent.dollars) / spent.per_hour
    if hours < LEAST_HOURS:
        so_far = f" of which ${spent.dollars:.2f} may be spent already" if spent.dollars else ""
        raise UsageError(
            f"--budget {budget:g}{so_far} is spent in {max(0.0, hours) * 60:.0f} minutes at "
            f"${spent.per_hour:.2f} an hour, the most that the cluster can cost: more dollars or fewer nodes."
        )


def _of_nodes(region: Region, living: Sequence[Node]) -> float:
    known = _prices(region, {node.instance_type for node in living})
    caps = _spot_caps(region, [node.id for node in living if node.purchase == SPOT])
    return sum(
        caps.get(node.id, known[node.instance_type]) + (prices.address() if node.public_ip else 0.0)
        for node in living
    )


def _spot_caps(region: Region, ids: Sequence[str]) -> dict[str, float]:
    """The maximum price of each instance's request."""
    if not ids:
        return {}
    filters = [{"Name": "instance-id", "Values": list(ids)}]
    found = region.pages("describe_spot_instance_requests", "SpotInstanceRequests", Filters=filters)
    return {one["InstanceId"]: float(one["SpotPrice"]) for one in found if one.get("SpotPrice")}


def _cap(on_demand: float, spec: ClusterSpec) -> float:
    """What a worker can cost an hour."""
    price = spec.purchase.spot_price
    return on_demand if price is None or spec.purchase.fallback_on_demand else min(price, on_demand)


def _prices(region: Region, names: set[str]) -> dict[str, float]:
    """On-demand prices. Raises UsageError for a type without one."""
    known = prices.on_demand(region, names)
    unknown = sorted(names - known.keys())
    if unknown:
        raise UsageError(
            f"Nobody knows the price of {', '.join(unknown)}: with --budget, name types that have one "
            "(--instance-type, --master-instance-type)."
        )
    return {name: price.dollars for name, price in known.items()}
