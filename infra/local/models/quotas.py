"""Quotas: how many vCPUs of a family an account may run in a region, for each region the same."""

from __future__ import annotations

from collections.abc import Mapping

from moto.ec2.exceptions import EC2ClientError

from infra import aws
from infra.errors import UsageError
from infra.local.models.prices import vcpus
from infra.spec import SPOT

PLENTY = 8192.0  # vCPUs: an account that asked for enough; a new one has 0 for G and VT spot
UNLIMITED = 1 << 30  # machines: of types that no quota here covers


class Quotas:
    """The limits of this account, the same in every region."""

    def __init__(self, limits: Mapping[str, float] | None = None) -> None:
        self._limits = {quota.code: PLENTY for quota in aws.quotas()}
        self.change(limits or {})

    def change(self, limits: Mapping[str, float]) -> None:
        """Raises UsageError for a code that is not known."""
        for code in limits:
            if code not in self._limits:
                raise UsageError(f"there is no quota {code!r}; there are {', '.join(self._limits)}")
        self._limits.update(limits)

    def limit(self, code: str) -> float:
        return self._limits[code]

    def left(self, instance_type: str, purchase: str, running: list[tuple[str, str, int]]) -> int:
        """How many more machines of the type the quota allows."""
        quota = aws.quota_of(instance_type, purchase)
        if quota is None or vcpus(instance_type) == 0:
            return UNLIMITED
        used = sum(
            count * vcpus(other)
            for other, other_purchase, count in running
            if aws.quota_of(other, other_purchase) == quota
        )
        return max(0, int((self._limits[quota.code] - used) // vcpus(instance_type)))

    def check(
        self, instance_type: str, purchase: str, count: int, running: list[tuple[str, str, int]]
    ) -> None:
        """Raises VcpuLimitExceeded or MaxSpotInstanceCountExceeded if ``count`` more are too many."""
        quota = aws.quota_of(instance_type, purchase)
        if quota is None or self.left(instance_type, purchase, running) >= max(1, count):
            return
        if purchase == SPOT:
            raise EC2ClientError("MaxSpotInstanceCountExceeded", "Max spot instance count exceeded")
        limit = self._limits[quota.code]
        raise EC2ClientError(
            "VcpuLimitExceeded",
            f"You have requested more vCPU capacity than your current vCPU limit of {limit:g} allows for "
            "the instance bucket that the specified instance type belongs to. Please visit "
            "http://aws.amazon.com/contact-us/ec2-request to request an adjustment to this limit.",
        )
