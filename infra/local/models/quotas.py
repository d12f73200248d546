"""Quotas: how many vCPUs of a family an account may run in a region, enforced and told by Service Quotas."""

from __future__ import annotations

import re
from collections.abc import Mapping

from moto.ec2.exceptions import EC2ClientError

from infra.errors import UsageError
from infra.local.models.prices import vcpus

PLENTY = 8192.0  # vCPUs: an account that asked for enough; a new one has 0 for G and VT spot

#: code -> (families, purchase, the name in the console)
BUCKETS = {
    "L-3819A6DF": (("g", "gr", "vt"), "spot", "All G and VT Spot Instance Requests"),
    "L-DB2E81BA": (("g", "gr", "vt"), "on-demand", "Running On-Demand G and VT instances"),
    "L-7212CCBC": (("p",), "spot", "All P Spot Instance Requests"),
    "L-417A185B": (("p",), "on-demand", "Running On-Demand P instances"),
    "L-34B43A08": (
        ("a", "c", "d", "h", "i", "m", "r", "t", "z"),
        "spot",
        "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests",
    ),
    "L-1216C47A": (
        ("a", "c", "d", "h", "i", "m", "r", "t", "z"),
        "on-demand",
        "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances",
    ),
}


class Quotas:
    """The limits of this account, the same in every region."""

    def __init__(self, limits: Mapping[str, float] | None = None) -> None:
        self._limits = dict.fromkeys(BUCKETS, PLENTY)
        self.change(limits or {})

    def change(self, limits: Mapping[str, float]) -> None:
        """Raises UsageError for a code that is not one of BUCKETS."""
        for code in limits:
            if code not in BUCKETS:
                raise UsageError(f"there is no quota {code!r}; there are {', '.join(BUCKETS)}")
        self._limits.update(limits)

    def limit(self, code: str) -> float:
        return self._limits[code]

    def room(self, instance_type: str, purchase: str, running: list[tuple[str, str, int]]) -> int:
        """How many more machines of the type the quota allows."""
        code = bucket_of(instance_type, purchase)
        if code is None or vcpus(instance_type) == 0:
            return 1 << 30
        used = sum(
            count * vcpus(other)
            for other, other_purchase, count in running
            if bucket_of(other, other_purchase) == code
        )
        return max(0, int((self._limits[code] - used) // vcpus(instance_type)))

    def check(
        self, instance_type: str, purchase: str, count: int, running: list[tuple[str, str, int]]
    ) -> None:
        """Raises VcpuLimitExceeded or MaxSpotInstanceCountExceeded if ``count`` more are too many."""
        if self.room(instance_type, purchase, running) >= max(1, count):
            return
        if purchase == "spot":
            raise EC2ClientError("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
        limit = self._limits[bucket_of(instance_type, purchase) or ""]
        raise EC2ClientError(
            "VcpuLimitExceeded",
            f"You have requested more vCPU capacity than your current vCPU limit of {limit:g} allows for "
            "the instance bucket that the specified instance type belongs to. Please visit "
            "http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
        )


def bucket_of(instance_type: str, purchase: str) -> str | None:
    """The code of the quota a type counts against, None for families without one here."""
    letters = re.match(r"[a-z]+", instance_type)
    family = letters.group() if letters else ""
    for code, (families, bought, _) in BUCKETS.items():
        if bought == purchase and (
            family in families or (family[:1] in families and family in STANDARD_NAMES)
        ):
            return code
    return None


STANDARD_NAMES = ("im", "is", "mac")  # families of more than one letter that count as Standard
