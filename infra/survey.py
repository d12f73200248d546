"""Survey: what a region has of what a spec asks for. Every launch and every plan begin with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from infra import costs, private_key
from infra.ec2 import catalog, images, keys, network, prices, template
from infra.ec2.catalog import InstanceType
from infra.ec2.fleet import Pool
from infra.ec2.images import Image
from infra.ec2.network import SecurityGroup, Subnet
from infra.ec2.region import Region
from infra.errors import CapacityError, UsageError
from infra.node import bootstrap, login, user_data
from infra.spec import ClusterSpec


@dataclass(frozen=True, kw_only=True)
class Survey:
    """What the region has of what the spec asks for."""

    image: Image
    subnets: tuple[Subnet, ...]
    pools: tuple[Pool, ...]  # for workers, in order of preference
    master_places: tuple[Pool, ...]
    types: dict[str, InstanceType]
    notes: tuple[str, ...]


def survey(region: Region, spec: ClusterSpec, *, also: Iterable[str] = ()) -> Survey:
    """What the region has, with the facts of the types ``also``.

    With ``max_price_per_hour``, types with which the cluster could cost more are left out. Raises UsageError
    or CapacityError if what the region has is not enough to begin with.
    """
    _require_what_is_named(region, spec)
    wanted, notes = catalog.without_retired(spec.instance_types)
    (master,), more = catalog.without_retired([spec.master_instance_type])
    # one of our own fits only if it was made by these very scripts
    content_hash = bootstrap.content_hash(spec) if spec.use_own_image else ""
    image = images.find(region, spec.image, content_hash=content_hash)
    subnets = network.subnets(region, spec)
    offered = catalog.offerings(region, (*wanted, master))
    catalog.require_offered(region, wanted, offered)
    catalog.require_offered(region, [master], offered)
    fixed = costs.of_volumes(spec, image) + costs.of_addresses(spec)
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


def launch_data(spec: ClusterSpec, found: Survey, group: SecurityGroup) -> template.LaunchData:
    """What all nodes start from."""
    return template.LaunchData(
        image=found.image.id,
        root_device=found.image.root_device,
        key_pair=spec.access.key_pair or keys.key_name(spec.name),
        security_groups=(group.id, *spec.network.additional_security_groups),
        user_data=user_data.document(spec, expires=group.lifetime.ends),
        spill=spec.spill,
        instance_profile=spec.instance_profile,
        placement_group=spec.network.placement_group,
    )


def _require_what_is_named(region: Region, spec: ClusterSpec) -> None:
    """Raises UsageError if a file, a key pair, a group that the options name is not there."""
    if spec.access.identity_file:
        private_key.require_private(spec.access.identity_file)
        login.require_usable(spec.access.identity_file)
    if spec.user_data and not spec.user_data.is_file():
        raise UsageError(f"There is no file {spec.user_data} for --user-data.")
    user_data.document(spec, expires=datetime.now(UTC) if spec.max_hours or spec.budget else None)
    if spec.access.key_pair and spec.access.identity_file:
        key = private_key.read(spec.access.identity_file, private_key.known_passphrase())
        keys.require_pair(region, spec.access.key_pair, key)
    if spec.network.placement_group:
        region.read("describe_placement_groups", GroupNames=[spec.network.placement_group])
    if spec.network.additional_security_groups:
        region.read("describe_security_groups", GroupIds=list(spec.network.additional_security_groups))


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
        # the worst case: without --spot-price EC2 charges up to the on-demand price for a spot instance
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
