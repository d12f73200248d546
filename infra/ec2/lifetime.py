"""Lifetime: what ends a cluster by itself, as its tags say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from infra.ec2 import tags


@dataclass(frozen=True, kw_only=True)
class Lifetime:
    """The cluster ends at ``expires`` (None: never), after ``idle_minutes`` without a job (0: never), and
    before it has cost more than ``budget`` dollars (None: no limit), for which it ends at ``budget_ends``."""

    expires: datetime | None = None
    idle_minutes: float = 0.0
    budget: float | None = None
    budget_ends: datetime | None = None

    @classmethod
    def of(cls, known: Mapping[str, str]) -> Lifetime:
        """By the tags of a node, or of the cluster's group."""
        return cls(
            expires=tags.moment(known.get(tags.EXPIRES, tags.NEVER)),
            idle_minutes=float(known.get(tags.IDLE) or 0),
            budget=float(known[tags.BUDGET]) if known.get(tags.BUDGET) else None,
            budget_ends=tags.moment(known.get(tags.BUDGET_ENDS, "")),
        )

    @property
    def ends(self) -> datetime | None:
        """The moment at which the nodes end themselves, whatever runs on them."""
        return min(filter(None, (self.expires, self.budget_ends)), default=None)

    def as_list(self) -> tags.TagList:
        """Tags that take the place of those there are."""
        expires = self.expires.isoformat() if self.expires else tags.NEVER
        spent = self.budget_ends.isoformat() if self.budget_ends else ""
        limits = tags.limits(self.idle_minutes, self.budget)
        known = {tags.EXPIRES: expires, **limits, tags.BUDGET_ENDS: spent}
        return [{"Key": key, "Value": value} for key, value in known.items()]

    def __str__(self) -> str:
        """
        >>> str(Lifetime(expires=datetime(2026, 12, 1, 5, 30, tzinfo=UTC), idle_minutes=30, budget=20))
        'at 2026-12-01 05:30 UTC, after 30 minutes without a job, before it has cost more than $20.00'
        >>> str(Lifetime())
        'never'
        """
        parts = [
            f"at {self.expires.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if self.expires else "",
            f"after {self.idle_minutes:g} minutes without a job" if self.idle_minutes else "",
            f"before it has cost more than ${self.budget:.2f}" if self.budget else "",
        ]
        if self.budget and self.budget_ends:
            moment = f"{self.budget_ends.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
            parts[-1] += f" (at {moment}, if each hour costs the most that it can)"
        return ", ".join(filter(None, parts)) or "never"
