"""Fleet: buys the workers, all or none, from whichever pool has them; and the master.

A pool is one instance type in one zone. Each tier (spot, then on-demand if allowed) is asked with one
CreateFleet of type ``instant`` over all its pools; EC2 picks one. If that one turns out empty, the pools that
answered with an error are left out and the rest is asked again, until one delivers or none is left.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instant-fleet.html
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from infra.ec2 import prices
from infra.ec2.error_codes import POOL_CODES, explain
from infra.ec2.nodes import MASTER, WORKER
from infra.ec2.region import Answer, ApiError, Region
from infra.ec2.tags import ClusterTags
from infra.ec2.template import INSTANCE_KINDS, JUST_MADE
from infra.errors import CapacityError, InfraError, PriceTooLow
from infra.events import Emit, PoolAnswered
from infra.spec import ON_DEMAND, SPOT, Purchase


@dataclass(frozen=True, kw_only=True)
class Pool:
    """One instance type in one zone, through a subnet there."""

    instance_type: str
    zone: str
    subnet_id: str

    def __str__(self) -> str:
        return f"{self.instance_type} in {self.zone}"


@dataclass(frozen=True, kw_only=True)
class PurchaseRequest:
    """``count`` workers wanted from any one of ``pools`` (from several with ``purchase.spread``)."""

    count: int
    pools: tuple[Pool, ...]
    template: str
    cluster_tags: ClusterTags
    purchase: Purchase
    existing: tuple[str, ...] = ()  # ids of the workers there are and were: growth has a token of its own
    partial: bool = False  # fewer than ``count`` will do


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What one CreateFleet brought: ids, how many from which pool, and what other pools answered."""

    instances: tuple[str, ...]
    launched: tuple[tuple[Pool | None, int], ...]
    errors: tuple[tuple[Pool | None, str, str], ...]


def buy_workers(region: Region, request: PurchaseRequest, emit: Emit, *, deadline_seconds: float) -> set[str]:
    """Buy ``request.count`` workers; the zones they are in.

    Emits PoolAnswered for every pool that answered. Raises CapacityError with the table of answers if no tier
    had as many (of a ``partial`` request those there were have been bought), QuotaError, CredentialsError or
    UsageError if EC2 named a reason that holds for all pools.
    """
    end = time.monotonic() + deadline_seconds
    # not a poll: nothing is waited for, each pass asks fewer pools
    bought: list[str] = []
    answers: list[PoolAnswered] = []
    refusal: InfraError | None = None
    for tier in request.purchase.ways:
        open_pools = list(request.pools)
        while open_pools and len(bought) < request.count and time.monotonic() < end:
            reply = _ask(region, request, tier, open_pools, bought)
            bought += reply.instances
            for answer in _answers(reply, tier, open_pools):
                answers.append(answer)
                emit(answer)
            refusal = _refusal(reply) or refusal
            if _refusal(reply):
                break
            open_pools = _still_open(open_pools, reply)
        if len(bought) >= request.count:
            return {answer.zone for answer in answers if answer.launched}
    raise refusal or _no_capacity(region, request, answers, len(bought))


def buy_master(
    region: Region,
    places: Sequence[Pool],
    template: str,
    cluster_tags: ClusterTags,
    emit: Emit,
    *,
    ended: Sequence[str] = (),
) -> str:
    """The id of the new master, on demand: a lost master is a lost job. ``places``: the best first.

    ``ended``: ids of nodes that are gone, for the token: the same one would bring back the master that was.
    """
    failed: list[str] = []
    for place in places:
        try:
            answer = region.attempt(
                "run_instances",
                just_made=JUST_MADE,
                MinCount=1,
                MaxCount=1,
                InstanceType=place.instance_type,
                SubnetId=place.subnet_id,
                LaunchTemplate={"LaunchTemplateId": template, "Version": "$Latest"},
                TagSpecifications=cluster_tags.specification(INSTANCE_KINDS, MASTER),
                ClientToken=cluster_tags.token("master", place, *sorted(ended)),
            )
        except ApiError as error:
            if error.code not in POOL_CODES:
                raise explain(error.code, error.message, error.operation) from None
            failed.append(f"{place}: {error.code}")
            emit(_answer(ON_DEMAND, place, f"{error.code}: {error.message}"))
            continue
        emit(_answer(ON_DEMAND, place, "launched 1", launched=1))
        return str(answer["Instances"][0]["InstanceId"])
    raise CapacityError(
        f"No zone has a {places[0].instance_type} for the master ({'; '.join(failed)}); try "
        "--master-instance-type m5.large."
    )


def _ask(region: Region, request: PurchaseRequest, tier: str, pools: list[Pool], bought: list[str]) -> Reply:
    missing = request.count - len(bought)
    arguments = _fleet_arguments(request, tier, pools, missing)
    token = request.cluster_tags.token(WORKER, sorted((*request.existing, *bought)), arguments)
    try:
        answer = region.attempt("create_fleet", just_made=JUST_MADE, ClientToken=token, **arguments)
    except ApiError as error:
        if error.code not in POOL_CODES:
            raise explain(error.code, error.message, error.operation) from None
        return Reply(
            instances=(), launched=(), errors=tuple((pool, error.code, error.message) for pool in pools)
        )
    return _reply(answer, pools)


def _fleet_arguments(request: PurchaseRequest, tier: str, pools: list[Pool], count: int) -> dict[str, Any]:
    options: dict[str, Any] = (
        {}
        if request.purchase.spread
        else {
            "SingleInstanceType": True,  # of equal speed: every round waits for its slowest worker
            "SingleAvailabilityZone": True,  # and traffic between zones costs
            **({"MinTargetCapacity": count} if not request.partial else {}),  # all or none
        }
    )
    if tier == SPOT:
        kind: dict[str, Any] = {
            "SpotOptions": {
                "AllocationStrategy": "price-capacity-optimized",  # cheap, and not about to be taken back
                "InstanceInterruptionBehavior": "terminate",  # all that an instant fleet allows
                **options,
            }
        }
    else:
        kind = {"OnDemandOptions": {"AllocationStrategy": "prioritized", **options}}
    return {
        "Type": "instant",
        "LaunchTemplateConfigs": [
            {
                "LaunchTemplateSpecification": {"LaunchTemplateId": request.template, "Version": "$Latest"},
                "Overrides": [_override(request, tier, pool) for pool in pools],
            }
        ],
        "TargetCapacitySpecification": {
            "TotalTargetCapacity": count,
            "DefaultTargetCapacityType": tier,
        },
        "TagSpecifications": request.cluster_tags.specification(("fleet", *INSTANCE_KINDS), WORKER),
        **kind,
    }


def _override(request: PurchaseRequest, tier: str, pool: Pool) -> dict[str, Any]:
    preference = list(dict.fromkeys(p.instance_type for p in request.pools)).index(pool.instance_type)
    override: dict[str, Any] = {"InstanceType": pool.instance_type, "SubnetId": pool.subnet_id}
    if tier == ON_DEMAND:
        override["Priority"] = float(preference)
    elif request.purchase.spot_price is not None:
        override["MaxPrice"] = f"{request.purchase.spot_price:g}"
    return override


def _reply(answer: Answer, pools: list[Pool]) -> Reply:
    errors = [
        (_pool_of(error, pools), error.get("ErrorCode", ""), error.get("ErrorMessage", ""))
        for error in answer.get("Errors", [])
    ]
    groups = answer.get("Instances", [])
    return Reply(
        instances=tuple(one for group in groups for one in group.get("InstanceIds", [])),
        launched=tuple((_pool_of(group, pools), len(group.get("InstanceIds", []))) for group in groups),
        errors=tuple(errors),
    )


def _pool_of(part: dict[str, Any], pools: list[Pool]) -> Pool | None:
    overrides = part.get("LaunchTemplateAndOverrides", {}).get("Overrides", {})
    for pool in pools:
        if overrides.get("InstanceType") == pool.instance_type and (
            overrides.get("SubnetId") == pool.subnet_id or overrides.get("AvailabilityZone") == pool.zone
        ):
            return pool
    return None


def _still_open(pools: list[Pool], reply: Reply) -> list[Pool]:
    failed = {pool for pool, _, _ in reply.errors if pool is not None}
    # an answer that names no pool rules out the first one, so that the asking ends
    return [pool for pool in pools if pool not in failed] if failed else pools[1:]


def _refusal(reply: Reply) -> InfraError | None:
    for _, code, message in reply.errors:
        if not reply.instances and code not in POOL_CODES:
            return explain(code, message, "create_fleet")
    return None


def _answers(reply: Reply, tier: str, pools: list[Pool]) -> list[PoolAnswered]:
    refused = [_answer(tier, pool or pools[0], f"{code}: {message}") for pool, code, message in reply.errors]
    launched = [_answer(tier, pool, f"launched {count}", launched=count) for pool, count in reply.launched]
    return refused + launched


def _answer(tier: str, pool: Pool | None, text: str, *, launched: int = 0) -> PoolAnswered:
    return PoolAnswered(
        purchase=tier,
        instance_type=pool.instance_type if pool else "",
        zone=pool.zone if pool else "",
        answer=text,
        launched=launched,
    )


def _no_capacity(
    region: Region, request: PurchaseRequest, answers: list[PoolAnswered], bought: int
) -> CapacityError:
    """The table of what each pool answered, and what may help: another price, or other pools."""
    table = "\n".join(f"    {a.purchase}  {a.instance_type}  {a.zone}  {a.answer}" for a in answers)
    missing = f"only {bought} of {request.count}" if bought else f"no pool has {request.count}"
    said = f"No capacity: {missing} workers could be had.\n{table}\n"
    if answers and all("SpotMaxPriceTooLow" in answer.answer for answer in answers):
        now = prices.spot(region, {pool.instance_type for pool in request.pools})
        cheapest = min(now.get((pool.instance_type, pool.zone), math.inf) for pool in request.pools)
        return PriceTooLow(
            f"{said}  try: --spot-price above ${cheapest:.4f}, the lowest price now, or leave it out"
        )
    fallback = "--fallback on-demand, " if ON_DEMAND not in request.purchase.ways else ""
    return CapacityError(
        f"{said}  try: {fallback}--spread, more types after --instance-type, or another --region"
    )
