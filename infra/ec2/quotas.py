"""Quotas: how many vCPUs the account may run, by family and by the way they are bought."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import takewhile

from infra.ec2.region import ApiError, Region
from infra.errors import InfraError, QuotaError

_GPU, _STANDARD, _P = "G and VT", "Standard", "P"
_CODES = {
    (_GPU, "spot"): "L-3819A6DF",
    (_GPU, "on-demand"): "L-DB2E81BA",
    (_STANDARD, "spot"): "L-34B43A08",
    (_STANDARD, "on-demand"): "L-1216C47A",
    (_P, "spot"): "L-7212CCBC",
    (_P, "on-demand"): "L-417A185B",
}
_STANDARD_LETTERS = frozenset(["a", "c", "d", "h", "i", "im", "is", "m", "r", "t", "z"])
_CONSOLE = "https://console.aws.amazon.com/servicequotas/home/services/ec2/quotas"


@dataclass(frozen=True, kw_only=True)
class Need:
    """So many vCPUs of the types one quota covers."""

    family: str
    purchase: str  # "spot" or "on-demand"
    vcpus: int

    @property
    def code(self) -> str | None:
        """The quota's code; None for a family that has one of its own, which is not checked."""
        return _CODES.get((self.family, self.purchase))


def family(instance_type: str) -> str:
    """The family that the quotas count ``instance_type`` under."""
    letters = "".join(takewhile(str.isalpha, instance_type))
    if letters in ("g", "gr", "vt"):
        return _GPU
    if letters == "p":
        return _P
    return _STANDARD if letters in _STANDARD_LETTERS else letters


def limit(region: Region, need: Need) -> float | None:
    """The account's limit in vCPUs; None where it cannot be learnt (no permission, no such quota)."""
    if need.code is None:
        return None
    try:
        answer = region.attempt(
            "get_service_quota", service="service-quotas", ServiceCode="ec2", QuotaCode=need.code
        )
    except (ApiError, InfraError):
        return None
    return float(answer["Quota"]["Value"])


def require(region: Region, need: Need) -> None:
    """Raises QuotaError if the account may not run as many vCPUs, even with nothing else running."""
    allowed = limit(region, need)
    if allowed is not None and allowed < need.vcpus:
        raise QuotaError(
            f"The quota {need.code} ({need.family} {need.purchase} vCPUs in {region.name}) is {allowed:g}, "
            f"and "
            f"{need.vcpus} are needed.\n  why: a new account starts at 0 for machines with GPUs\n"
            f"  try: aws service-quotas request-service-quota-increase --service-code ec2 --quota-code "
            f"{need.code} "
            f"--desired-value {need.vcpus} --region {region.name}, or {_CONSOLE}"
        )
