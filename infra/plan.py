"""Plan: what a launch would make, where, at what price, against which quota. Changes nothing.

A survey is what every launch reads first; a plan adds what a person wants to know before paying.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from infra import costs
from infra.ec2 import network, prices, quotas
from infra.ec2.error_codes import explain
from infra.ec2.fleet import Pool
from infra.ec2.prices import Price
from infra.ec2.quotas import Need, QuotaLine
from infra.ec2.region import ApiError, Region
from infra.errors import InfraError, QuotaError
from infra.spec import ON_DEMAND, SPOT, ClusterSpec
from infra.survey import Survey, survey

#: Calls whose permission can be asked for without making them, and the least they need.
PERMISSIONS: dict[str, dict[str, Any]] = {
    "create_security_group": {"GroupName": "sparknet-permission", "Description": "never made"},
    "create_launch_template": {
        "LaunchTemplateName": "sparknet-permission",
        "LaunchTemplateData": {"InstanceType": "m6i.large"},
    },
    "import_key_pair": {"KeyName": "sparknet-permission", "PublicKeyMaterial": b"ssh-ed25519 AAAA"},
}


@dataclass(frozen=True, kw_only=True)
class PoolPrice:
    """What one worker costs in one pool, in dollars an hour; None where nobody knows."""

    pool: Pool
    spot: float | None
    on_demand: Price | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a launch would make."""

    spec: ClusterSpec
    survey: Survey
    account: str
    ssh_from: str
    pools: tuple[PoolPrice, ...]
    master: Price | None
    quotas: tuple[QuotaLine, ...]
    problems: tuple[InfraError, ...]  # what would make the launch fail
    spot_now: float | None  # dollars an hour of the whole cluster now, in the cheapest pool
    on_demand: float | None  # the same bought on demand, in the dearest pool: never more than this
    storage: float  # dollars an hour of the volumes, root volumes too; part of the two above
    addresses: float  # of the public addresses; also part of them

    @property
    def hours_at_most(self) -> float | None:
        """Hours after which it ends itself, whatever runs on it; None: never."""
        limits = [self.spec.max_hours] if self.spec.max_hours else []
        if self.spec.budget and self.on_demand:
            limits.append(self.spec.budget / self.on_demand)
        return min(limits, default=None)

    @property
    def worst_case(self) -> float | None:
        """Dollars until it ends itself; None if it does not."""
        hours = self.hours_at_most
        return None if self.on_demand is None or hours is None else self.on_demand * hours


def require_quota(
    region: Region, spec: ClusterSpec, found: Survey, workers: int, *, master: bool = True
) -> None:
    """Raises QuotaError if the account's limits have no room for ``workers`` more workers in any way of
    buying them, and for the master if there is to be one.
    """
    used, refusal = quotas.in_use(region), QuotaError("")
    for purchase in spec.purchase.ways:
        for needs in _needs(found, workers, purchase, master=master):
            try:
                quotas.require(region, quotas.lines(region, needs, used))
            except QuotaError as error:
                refusal = error
            else:
                return
    if str(refusal):
        raise refusal


def require_place(spec: ClusterSpec, found: Survey, workers: int) -> None:
    """Raises UsageError if the subnets have no address for ``workers`` more workers, or no way out."""
    network.require_room(found.subnets, workers, spread=spec.purchase.spread)
    network.require_way_out(found.subnets)


def plan(region: Region, spec: ClusterSpec, caller_address: Callable[[], str]) -> Plan:
    """All that can be known before the first thing is made; what is wrong stands in ``problems``."""
    account = str(region.read("get_caller_identity", service="sts")["Arn"])
    found = survey(region, spec)
    problems = _permission_problems(region, found)
    problems += _problem(require_place, spec, found, spec.workers)
    problems += _problem(require_quota, region, spec, found, spec.workers)
    names = {pool.instance_type for pool in found.pools}
    known = prices.on_demand(region, {*names, found.master_places[0].instance_type})
    spot = prices.spot(region, names)
    pools = tuple(
        PoolPrice(
            pool=pool,
            spot=spot.get((pool.instance_type, pool.zone)),
            on_demand=known.get(pool.instance_type),
        )
        for pool in found.pools
    )
    master = known.get(found.master_places[0].instance_type)
    storage, addresses = costs.of_volumes(spec, found.image), costs.of_addresses(spec)
    fixed = storage + addresses + master.dollars if master else None
    dearest = max((pool.on_demand.dollars for pool in pools if pool.on_demand), default=None)
    cheapest = min(_worker_prices(pools, spec), default=None)
    return Plan(
        spec=spec,
        survey=found,
        account=account,
        ssh_from=spec.network.authorized_address or caller_address(),
        pools=pools,
        master=master,
        quotas=_quota_lines(region, spec, found),
        problems=tuple(problems),
        spot_now=_total(spec.workers, cheapest, fixed),
        on_demand=_total(spec.workers, dearest, fixed),
        storage=storage,
        addresses=addresses,
    )


def _worker_prices(pools: tuple[PoolPrice, ...], spec: ClusterSpec) -> list[float]:
    """Dollars an hour of a worker as it is bought first, in each pool whose price is known."""
    if spec.purchase.on_demand:
        return [pool.on_demand.dollars for pool in pools if pool.on_demand]
    return [pool.spot for pool in pools if pool.spot is not None]


def _needs(found: Survey, workers: int, purchase: str, *, master: bool) -> list[tuple[Need, ...]]:
    """What a launch needs of the quotas, once for each family its workers may be of.

    Of a family the type with fewest vCPUs counts. The master is bought on demand, perhaps of the same family.
    """
    fewest: dict[str, int] = {}
    for name in {pool.instance_type for pool in found.pools} & found.types.keys():
        family, vcpus = quotas.family(name), found.types[name].vcpus * workers
        fewest[family] = min(vcpus, fewest.get(family, vcpus))
    own = _master_need(found) if master else {}
    return [
        tuple(
            Need(family=family, purchase=bought, vcpus=vcpus)
            for (family, bought), vcpus in (Counter({(name, purchase): least}) + Counter(own)).items()
        )
        for name, least in sorted(fewest.items())
    ]


def _master_need(found: Survey) -> dict[tuple[str, str], int]:
    name = found.master_places[0].instance_type
    facts = found.types.get(name)
    return {(quotas.family(name), ON_DEMAND): facts.vcpus} if facts else {}


def _quota_lines(region: Region, spec: ClusterSpec, found: Survey) -> tuple[QuotaLine, ...]:
    """Each quota a launch touches, or would with ``--fallback on-demand``, once."""
    needs = {
        (need.family, need.purchase): need
        for purchase in (ON_DEMAND, SPOT)
        for way in _needs(found, spec.workers, purchase, master=True)
        for need in reversed(way)
    }
    return quotas.lines(region, list(needs.values()), quotas.in_use(region))


def _permission_problems(region: Region, found: Survey) -> list[InfraError]:
    master = found.master_places[0]
    machine = {
        "ImageId": found.image.id,
        "InstanceType": master.instance_type,
        "SubnetId": master.subnet_id,
        "MinCount": 1,
        "MaxCount": 1,
    }
    problems: list[InfraError] = []
    for operation, least in {**PERMISSIONS, "run_instances": machine}.items():
        try:
            region.attempt(operation, DryRun=True, **least)
        except ApiError as error:
            if error.code in ("UnauthorizedOperation", "AccessDenied"):
                problems.append(explain(error.code, error.message, operation))
    return problems


def _problem(check: Callable[..., None], *arguments: object) -> list[InfraError]:
    try:
        check(*arguments)
    except InfraError as error:
        return [error]
    return []


def _total(workers: int, price: float | None, fixed: float | None) -> float | None:
    return None if price is None or fixed is None else workers * price + fixed
