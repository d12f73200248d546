"""Plan: what a launch would make, where, at what price, against which quota. Changes nothing.

``survey`` is what every launch reads first; ``plan`` adds what a person wants to know before paying.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from infra import bootstrap
from infra.ec2 import catalog, images, keys, network, prices, quotas
from infra.ec2.catalog import InstanceType
from infra.ec2.codes import explain
from infra.ec2.fleet import ON_DEMAND, SPOT, Pool
from infra.ec2.images import Image
from infra.ec2.network import Subnet
from infra.ec2.prices import Price
from infra.ec2.quotas import Need, QuotaLine
from infra.ec2.region import ApiError, Region
from infra.errors import CapacityError, InfraError, QuotaError, UsageError
from infra.spec import ClusterSpec

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
class Survey:
    """What the region has of what the spec asks for."""

    image: Image
    subnets: tuple[Subnet, ...]
    pools: tuple[Pool, ...]  # for workers, in order of preference
    master_places: tuple[Pool, ...]
    types: dict[str, InstanceType]
    notes: tuple[str, ...]


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
    spot_now: float | None  # dollars an hour of the whole cluster, in the cheapest pool
    on_demand: float | None  # the same bought on demand, in the dearest pool: never more than this
    storage: float  # dollars an hour of the volumes, root volumes too; part of the two above
    addresses: float  # of the public addresses; also part of them

    @property
    def worst_case(self) -> float | None:
        """Dollars until ``--max-hours`` are over; None without that limit."""
        if self.on_demand is None or not self.spec.max_hours:
            return None
        return self.on_demand * self.spec.max_hours


def survey(region: Region, spec: ClusterSpec, *, also: Iterable[str] = ()) -> Survey:
    """What the region has, with the facts of the types ``also``.

    With ``max_price_per_hour``, types with which the cluster could cost more are left out. Raises UsageError
    or CapacityError if what the region has is not enough to begin with.
    """
    wanted, notes = catalog.today(spec.instance_types)
    (master,), more = catalog.today([spec.master_instance_type])
    fitting = bootstrap.recipe(spec) if spec.use_own_image else ""
    image = images.find(region, spec.image, recipe=fitting)
    subnets = network.subnets(region, spec)
    offered = catalog.offerings(region, (*wanted, master))
    catalog.require_offered(region, wanted, offered)
    catalog.require_offered(region, [master], offered)
    fixed = _storage(spec, image) + _addresses(spec)
    kept, dear = _affordable(region, spec, wanted, master, fixed=fixed)
    pools = _pools(kept, subnets, offered)
    if not pools:
        raise CapacityError(
            f"None of {', '.join(kept)} is offered in {', '.join(one.zone for one in subnets)}; "
            "leave out --zone and --subnet-id, or name other types."
        )
    return Survey(
        image=image,
        subnets=subnets,
        pools=pools,
        master_places=_pools((master,), subnets, offered),
        types=catalog.types(region, {*wanted, master, *also}),
        notes=(*notes, *more, *dear, *([image.note] if image.note else [])),
    )


def require_quota(
    region: Region, spec: ClusterSpec, found: Survey, workers: int, *, master: bool = True
) -> None:
    """Raises QuotaError if the account's limits have no room for ``workers`` more workers in any way of
    buying them, and for the master if there is to be one.
    """
    used, refusal = quotas.in_use(region), QuotaError("")
    for purchase in (SPOT, ON_DEMAND) if spec.purchase.fallback_on_demand else (SPOT,):
        for needs in _needs(found, workers, purchase, master=master):
            try:
                quotas.require(region, quotas.lines(region, needs, used))
            except QuotaError as error:
                refusal = error
            else:
                return
    if str(refusal):
        raise refusal


def plan(region: Region, spec: ClusterSpec, caller_address: Callable[[], str]) -> Plan:
    """All that can be known before the first thing is made; what is wrong stands in ``problems``."""
    account = str(region.read("get_caller_identity", service="sts")["Arn"])
    found = survey(region, spec)
    problems = _permission_problems(region, found)
    if spec.access.identity_file:
        problems += _problem(keys.check_file, spec.access.identity_file)
    problems += [
        UsageError(
            f"The subnet {subnet.id} in {subnet.zone} has {subnet.free_addresses} free addresses, "
            f"and {spec.nodes} are needed."
        )
        for subnet in found.subnets
        if subnet.free_addresses < spec.nodes
    ]
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
    storage, addresses = _storage(spec, found.image), _addresses(spec)
    fixed = storage + addresses + master.dollars if master else None
    cheapest = min((pool.spot for pool in pools if pool.spot is not None), default=None)
    dearest = max((pool.on_demand.dollars for pool in pools if pool.on_demand), default=None)
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


def _storage(spec: ClusterSpec, image: Image) -> float:
    """Dollars an hour of all volumes."""
    spill = spec.spill.count * prices.storage(spec.spill.type, spec.spill.size_gib)
    return spec.nodes * (spill + prices.storage("gp3", image.root_gib))


def _addresses(spec: ClusterSpec) -> float:
    """Dollars an hour of the public addresses: every node has one, where a subnet gives them."""
    return 0.0 if spec.network.private_ips else spec.nodes * prices.address()


def _pools(
    names: tuple[str, ...], subnets: tuple[Subnet, ...], offered: dict[str, frozenset[str]]
) -> tuple[Pool, ...]:
    return tuple(
        Pool(instance_type=name, zone=subnet.zone, subnet_id=subnet.id)
        for name in names
        for subnet in subnets
        if subnet.zone in offered.get(name, ())
    )


def _affordable(
    region: Region, spec: ClusterSpec, names: tuple[str, ...], master: str, *, fixed: float
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The types with which the cluster cannot cost more than its limit, and a note for each other one."""
    most = spec.purchase.max_price_per_hour
    if most is None:
        return names, ()
    known = prices.on_demand(region, (*names, master))
    kept, notes = [], []
    for name in names:
        if name not in known or master not in known:
            notes.append(f"{name} is left out: nobody knows its price, and --max-price-per-hour is given.")
            continue
        worker = known[name].dollars
        if spec.purchase.spot_price is not None and not spec.purchase.fallback_on_demand:
            worker = min(worker, spec.purchase.spot_price)
        total = worker * spec.workers + known[master].dollars + fixed
        if total <= most:
            kept.append(name)
        else:
            notes.append(f"{name} is left out: the cluster could cost ${total:.2f} an hour with it.")
    if not kept:
        raise UsageError(
            f"With every type the cluster could cost more than --max-price-per-hour {most:g}: "
            f"{' '.join(notes)}"
        )
    return tuple(kept), tuple(notes)


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
