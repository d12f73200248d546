"""Costs: what a cluster costs an hour, and what it has cost so far, as well as can be known from outside.

Spot prices move: each hour is counted at the price it had. The bill is AWS's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from infra.ec2 import cleanup, images, prices
from infra.ec2.cleanup import Resource
from infra.ec2.endings import Spent
from infra.ec2.images import Image
from infra.ec2.prices import Price
from infra.ec2.region import Region
from infra.history import Run
from infra.spec import SPOT, ClusterSpec

SECONDS_AN_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Dollars; ``ended`` is the part of ``so_far`` that nodes cost which no longer run.

    ``unknown`` are the instance types whose price nobody knows, counted as 0.
    """

    per_hour: float
    so_far: float
    ended: float
    unknown: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Storage:
    """The images of our own in one region: how many, how large, and at most how many dollars a month."""

    region: str
    images: int
    gib: int
    per_month: float


def of_images(region: Region) -> Storage:
    """What the images of ``image build`` cost, by the whole size of their snapshots."""
    found = images.own(region)
    gib = sum(one.size_gib for one in found)
    per_month = prices.storage("snapshot", gib) * prices.HOURS_A_MONTH
    return Storage(region=region.name, images=len(found), gib=gib, per_month=per_month)


def of_volumes(spec: ClusterSpec, image: Image) -> float:
    """Dollars an hour of all volumes of the cluster, the roots too."""
    spill = spec.spill.count * prices.storage(spec.spill.type, spec.spill.size_gib)
    return spec.nodes * (spill + prices.storage("gp3", image.root_gib))


def of_addresses(spec: ClusterSpec) -> float:
    """Dollars an hour of the public addresses: every node has one, where a subnet gives them."""
    return 0.0 if spec.network.private_ips else spec.nodes * prices.address()


def of_resource(one: Resource) -> float:
    """Dollars an hour of what is no machine."""
    match one.kind:
        case cleanup.VOLUME:
            return prices.storage(one.volume_type, one.size_gib)
        case cleanup.SNAPSHOT:
            return prices.storage("snapshot", one.size_gib)
        case cleanup.ADDRESS:
            return prices.address()
    return 0.0


def of_cluster(
    region: Region,
    runs: Sequence[Run],
    resources: Sequence[Resource],
    *,
    spent: Spent | None = None,
    now: datetime | None = None,
) -> Cost:
    """What the nodes of ``runs``, their public addresses, and volumes, snapshots and addresses among
    ``resources`` cost.

    ``spent``: what is known already of nodes that ended until then, which are not counted once more.
    """
    now, spent = now or region.now(), spent or Spent()
    counted = [run for run in runs if not is_settled(run, spent)]
    book = PriceBook.of(region, counted)
    per_hour, so_far, ended = 0.0, spent.dollars, spent.dollars
    for run in counted:
        dollars = book.dollars(run, now)
        so_far += dollars
        if run.ended:
            ended += dollars
        else:
            per_hour += book.hourly(run)
    for one in resources:
        hourly = of_resource(one)
        per_hour += hourly
        so_far += hourly * (_hours(datetime.fromisoformat(one.created), now) if one.created else 0.0)
    return Cost(per_hour=per_hour, so_far=so_far, ended=ended, unknown=book.unknown(counted))


def is_settled(run: Run, spent: Spent) -> bool:
    """Whether ``spent`` has the run in it."""
    return bool(run.ended and spent.until and datetime.fromisoformat(run.ended) <= spent.until)


@dataclass(frozen=True, kw_only=True)
class PriceBook:
    """What machines of some types cost, by the hour and over time."""

    on_demand: Mapping[str, Price]
    spot: Mapping[tuple[str, str], tuple[tuple[datetime, float], ...]]

    @classmethod
    def of(cls, region: Region, runs: Sequence[Run]) -> PriceBook:
        """Of the types of ``runs``, from the first of them on. Three calls."""
        on_spot = [run for run in runs if run.purchase == SPOT]
        since = min((datetime.fromisoformat(run.launched) for run in on_spot), default=datetime.now(UTC))
        return cls(
            on_demand=prices.on_demand(region, {run.instance_type for run in runs}) if runs else {},
            spot=prices.spot_history(region, {run.instance_type for run in on_spot}, since=since),
        )

    def hourly(self, run: Run) -> float:
        """Dollars an hour at the price now, with its public address; 0 of a type whose price is unknown."""
        changes = self._changes(run)
        return (changes[-1][1] if changes else 0.0) + self._address(run)

    def dollars(self, run: Run, now: datetime) -> float:
        """What it has cost, with its public address, and of a node that is gone its volumes."""
        start = datetime.fromisoformat(run.launched)
        end = datetime.fromisoformat(run.ended) if run.ended else now
        beside = self._address(run) + (run.storage_per_hour if run.is_gone else 0.0)
        total, changes = beside * _hours(start, end), self._changes(run)
        for index, (since, price) in enumerate(changes):
            begins = max(start, since) if index else start
            ends = min(end, changes[index + 1][0]) if index + 1 < len(changes) else end
            total += price * _hours(begins, ends)
        return total

    def unknown(self, runs: Sequence[Run]) -> tuple[str, ...]:
        """The types whose price nobody knows."""
        return tuple(sorted({run.instance_type for run in runs if not self._changes(run)}))

    def _changes(self, run: Run) -> tuple[tuple[datetime, float], ...]:
        """The prices of its pool, each from its moment on; none where nobody knows any."""
        if run.purchase == SPOT and (found := self.spot.get((run.instance_type, run.zone))):
            return found
        # a spot price that EC2 does not give is replaced by the higher one: rather too much than too little
        known = self.on_demand.get(run.instance_type)
        return ((datetime.min.replace(tzinfo=UTC), known.dollars),) if known else ()

    @staticmethod
    def _address(run: Run) -> float:
        return prices.address() if run.has_address else 0.0


def _hours(since: datetime, until: datetime) -> float:
    return max(0.0, (until - since).total_seconds() / SECONDS_AN_HOUR)
