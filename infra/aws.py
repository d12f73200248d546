"""Facts of AWS that no call is needed for: prices as of a date, quotas and what counts against them."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Quota:
    """A limit of the vCPUs that run at once, of some families, bought in one way."""

    code: str
    group: str  # of families: "G and VT", "P" or "Standard"
    families: tuple[str, ...]
    purchase: str
    name: str  # in the console


def prices_date() -> date:
    """When the prices were looked up."""
    found: date = _table()["as_of"]
    return found


def on_demand_prices() -> Mapping[str, float]:
    """Dollars an hour in us-east-1, by instance type."""
    found: Mapping[str, float] = _table()["on_demand"]
    return found


def on_demand_price(instance_type: str) -> float | None:
    """Dollars an hour in us-east-1; None for a type that is not in the table."""
    found: float | None = _table()["on_demand"].get(instance_type)
    return found


def storage_prices() -> Mapping[str, float]:
    """Dollars a GiB and month, by volume type, and of a "snapshot"."""
    found: Mapping[str, float] = _table()["storage"]
    return found


def volume_sizes() -> Mapping[str, tuple[int, int]]:
    """The smallest and the largest volume in GiB, by volume type."""
    return {kind: (least, most) for kind, (least, most) in _table()["volume_gib"].items()}


def address_price() -> float:
    """Dollars an hour for a public IPv4 address."""
    return float(_table()["other"]["address"])


@cache
def quotas() -> tuple[Quota, ...]:
    """The quotas of vCPUs that are known here."""
    return tuple(
        Quota(code=code, **{**row, "families": tuple(row["families"])})
        for code, row in _table()["quotas"].items()
    )


def quota_of(instance_type: str, purchase: str) -> Quota | None:
    """The quota that a type counts against, None for a family without one here."""
    family = family_of(instance_type)
    return next((one for one in quotas() if family in one.families and one.purchase == purchase), None)


def family_of(instance_type: str) -> str:
    """``g`` of ``g6.xlarge``."""
    return "".join(takewhile(str.isalpha, instance_type))


@cache
def _table() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
