"""Allocation: which candidates of a fleet give how many instances, and why the others do not.

A candidate is one override in one zone. Candidates are asked in the order of the allocation strategy; with
``SingleInstanceType`` and ``SingleAvailabilityZone`` all instances come from candidates of one type and one
zone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from moto.ec2.exceptions import EC2ClientError

from infra.local.calls.cloud import Cloud
from infra.local.calls.launch_spec import LaunchSpec, check_addresses
from infra.local.models.capacity import no_capacity


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One override in one zone, resolved."""

    spec: LaunchSpec
    price: float  # dollars an hour, now
    reference: Mapping[str, Any]  # LaunchTemplateSpecification, as it is answered
    override: Mapping[str, Any]
    position: int

    @property
    def weight(self) -> float:
        return float(self.override.get("WeightedCapacity") or 1)

    @property
    def priority(self) -> float:
        given = self.override.get("Priority")
        return float("inf") if given is None else float(given)

    @property
    def described(self) -> dict[str, Any]:
        shown = {"AvailabilityZone": self.spec.pool.zone, "SubnetId": self.spec.subnet.id, **self.override}
        return {"LaunchTemplateSpecification": dict(self.reference), "Overrides": shown}


@dataclass(frozen=True, kw_only=True)
class Target:
    """What one purchase (spot or on-demand) of a fleet is to bring."""

    purchase: str
    capacity: int
    strategy: str
    minimum: int
    single_type: bool
    single_zone: bool


@dataclass
class Outcome:
    """What it brought: how many from which candidate, and the refusals."""

    allocation: list[tuple[Candidate, int]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)


def allocate(
    cloud: Cloud, target: Target, candidates: list[Candidate], errors: list[dict[str, Any]]
) -> Outcome:
    """Which candidates give how many: of one group of them that is enough, or, without Single..., of all."""
    outcome = Outcome(errors=list(errors))
    tried = cloud.scenario.pools_per_fleet or None
    for group in _groups(target, candidates)[:tried]:
        allocation, refusals = _fill(cloud, target, group)
        outcome.errors += refusals
        got = sum(count * candidate.weight for candidate, count in allocation)
        if allocation and got >= target.minimum:
            outcome.allocation = allocation
            break
        outcome.errors += [_shortfall(candidate, target.purchase) for candidate, _ in allocation]
    return outcome


def _groups(target: Target, candidates: list[Candidate]) -> list[list[Candidate]]:
    """Candidates that may serve together, the best group first."""
    ordered = sorted(candidates, key=lambda one: _rank(target, one))
    groups: dict[tuple[str, str], list[Candidate]] = {}
    for candidate in ordered:
        pool = candidate.spec.pool
        key = (pool.instance_type if target.single_type else "", pool.zone if target.single_zone else "")
        groups.setdefault(key, []).append(candidate)
    return list(groups.values())


def _rank(target: Target, candidate: Candidate) -> tuple[float, float, int]:
    if target.strategy in ("prioritized", "capacity-optimized-prioritized"):
        return candidate.priority, candidate.price, candidate.position
    return candidate.price / candidate.weight, candidate.priority, candidate.position


def _fill(
    cloud: Cloud, target: Target, group: list[Candidate]
) -> tuple[list[tuple[Candidate, int]], list[dict[str, Any]]]:
    """As many as the group has, the best first, or evenly if ``diversified``; and who refused."""
    wanted = float(target.capacity)
    shares = len(group) if target.strategy == "diversified" else 1
    taken: dict[int, int] = {}
    errors: list[dict[str, Any]] = []
    for candidate in group:
        if wanted <= 0:
            break
        share = -(-wanted // candidate.weight) if shares <= 1 else -(-wanted // (candidate.weight * shares))
        shares -= 1
        try:
            cloud.capacity.check_price(candidate.spec.pool, candidate.spec.max_price)
            count = cloud.capacity.available(candidate.spec.pool, int(share), at_least=1)
            check_addresses(candidate.spec, count)
        except EC2ClientError as error:
            errors.append(
                described_error(candidate.reference, candidate.described["Overrides"], target.purchase, error)
            )
            continue
        taken[candidate.position] = count
        wanted -= count * candidate.weight
    allocation = [
        (candidate, taken[candidate.position]) for candidate in group if candidate.position in taken
    ]
    if allocation and wanted > 0 and not target.minimum:
        errors += [_shortfall(candidate, target.purchase) for candidate, _ in allocation]
    return allocation, errors


def _shortfall(candidate: Candidate, purchase: str) -> dict[str, Any]:
    """The pool has some, but not enough."""
    error = EC2ClientError("InsufficientInstanceCapacity", no_capacity(candidate.spec.pool))
    return described_error(candidate.reference, candidate.described["Overrides"], purchase, error)


def described_error(
    reference: Mapping[str, Any], override: Mapping[str, Any], purchase: str, error: EC2ClientError
) -> dict[str, Any]:
    """One of the ``Errors`` of CreateFleet's answer."""
    code = "InvalidFleetConfiguration" if error.code == "Unsupported" else error.code
    return {
        "LaunchTemplateAndOverrides": {
            "LaunchTemplateSpecification": dict(reference),
            "Overrides": dict(override),
        },
        "Lifecycle": purchase,
        "ErrorCode": code,
        "ErrorMessage": error.message,
    }
