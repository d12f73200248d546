"""Quotas: how many vCPUs the account may run, by family and by the way they are bought."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from infra import aws
from infra.ec2 import catalog
from infra.ec2.nodes import purchase_of
from infra.ec2.region import ApiError, Region
from infra.errors import InfraError, QuotaError
from infra.spec import ON_DEMAND, SPOT

_WHY = {("G and VT", SPOT): "a new account starts at 0 for spot machines with GPUs"}
_CONSOLE = "https://console.aws.amazon.com/servicequotas/home/services/ec2/quotas"


#: vCPUs by family and purchase
Usage = Mapping[tuple[str, str], int]


@dataclass(frozen=True, kw_only=True)
class Need:
    """So many vCPUs of the types one quota covers."""

    family: str
    purchase: str  # SPOT or ON_DEMAND
    vcpus: int

    @property
    def code(self) -> str | None:
        """The quota's code; None for a family that has one of its own, which is not checked."""
        found = (
            one.code for one in aws.quotas() if (one.group, one.purchase) == (self.family, self.purchase)
        )
        return next(found, None)


@dataclass(frozen=True, kw_only=True)
class QuotaLine:
    """A quota: what a launch needs of it, what is in use, and its limit (None: could not be learnt)."""

    need: Need
    used: int
    limit: float | None

    @property
    def is_enough(self) -> bool:
        return self.limit is None or self.limit >= self.need.vcpus + self.used


def family(instance_type: str) -> str:
    """The family that the quotas count ``instance_type`` under."""
    quota = aws.quota_of(instance_type, ON_DEMAND)
    return quota.group if quota else aws.family_of(instance_type)


def limit(region: Region, need: Need) -> float | None:
    """The account's limit in vCPUs; None where it cannot be learnt (no permission, no such quota)."""
    if need.code is None:
        return None
    for operation in ("get_service_quota", "get_aws_default_service_quota"):  # the second: never changed
        try:
            answer = region.attempt(
                operation, service="service-quotas", ServiceCode="ec2", QuotaCode=need.code
            )
        except (ApiError, InfraError):
            continue
        return float(answer["Quota"]["Value"])
    return None


def in_use(region: Region) -> Usage:
    """The vCPUs that machines of the account use now, ours or not, by family and purchase.

    Two calls; nothing where they are not allowed, which is no reason not to launch.
    """
    running = [{"Name": "instance-state-name", "Values": ["pending", "running"]}]
    try:
        machines = Counter(
            (one["InstanceType"], purchase_of(one))
            for reservation in region.pages("describe_instances", "Reservations", Filters=running)
            for one in reservation["Instances"]
        )
        vcpus = catalog.vcpus(region, {name for name, _ in machines}) if machines else {}
    except InfraError:
        return {}
    used = Counter[tuple[str, str]]()
    for (name, purchase), count in machines.items():
        used[family(name), purchase] += vcpus.get(name, 0) * count
    return used


def lines(region: Region, needs: Sequence[Need], used: Usage) -> tuple[QuotaLine, ...]:
    """How each of ``needs`` stands to its limit."""
    return tuple(
        QuotaLine(need=need, used=used.get((need.family, need.purchase), 0), limit=limit(region, need))
        for need in needs
    )


def require(region: Region, found: Sequence[QuotaLine]) -> None:
    """Raises QuotaError, with the way to raise the limit, for the first that is not enough."""
    for line in found:
        if not line.is_enough:
            raise QuotaError(_too_small(region.name, line))


def _too_small(region: str, line: QuotaLine) -> str:
    need, wanted = line.need, line.need.vcpus + line.used
    taken = f" and {line.used} are in use" if line.used else ""
    return (
        f"The quota {need.code} ({need.family} {need.purchase} vCPUs in {region}) is {line.limit:g}, "
        f"{need.vcpus} are needed{taken}.\n"
        f"  why: {_WHY.get((need.family, need.purchase), 'the account may run no more of this family')}\n"
        f"  try: aws service-quotas request-service-quota-increase --service-code ec2 --quota-code "
        f"{need.code} --desired-value {wanted} --region {region}, or {_CONSOLE}"
    )
