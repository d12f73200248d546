"""Scenario: how the simulated cloud behaves, as a small YAML, TOML or JSON file.

hosts: processes            # or namespaces (root on Linux), or none: instances are states only
speed: 1                    # simulated seconds per second, for boots, notices, deadlines and costs
boot_seconds: 0             # an instance is pending at least that long
lag_seconds: 0              # what was just created is not found yet, for so long
notice_seconds: 120         # from a spot interruption's notice to its end
pools_per_fleet: 0          # how many pools one CreateFleet tries before it gives up; 0: all of them
capacity:                   # the last rule that fits a pool decides; without one there is no end of machines
  - {instance_type: "g6.*", machines: 0}
  - {instance_type: g6.xlarge, zone: us-east-1b, purchase: spot, machines: 3}
spot_prices:                # dollars an hour; without a rule 40 to 50 % of the on-demand price
  - {instance_type: g6.xlarge, zone: us-east-1b, price: 0.31}
quotas: {L-3819A6DF: 16}    # vCPUs of the account in each region
faults:                     # see faults.py
  - {action: CreateFleet, kind: error, code: InternalError}
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from infra.errors import UsageError
from infra.local.hosts.namespaces.requirements import missing
from infra.local.models.faults import Fault
from infra.spec import ON_DEMAND, SPOT

HOST_KINDS = ("processes", "namespaces", "none")
HOSTS_VARIABLE = "SPARKNET_EC2_HOSTS"  # what kind hosts are where the scenario does not say
AUTO = "auto"  # there: namespaces if this machine can have them, or else processes
PURCHASES = ("*", SPOT, ON_DEMAND)

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class PoolRule:
    """What fits some pools (an instance type in a zone, bought in one way), by patterns as in a shell."""

    instance_type: str = "*"
    zone: str = "*"
    purchase: str = "*"

    def __post_init__(self) -> None:
        if self.purchase not in PURCHASES:
            raise UsageError(f"purchase must be one of {', '.join(PURCHASES)}, not {self.purchase!r}")

    def fits(self, instance_type: str, zone: str, purchase: str) -> bool:
        return (
            fnmatchcase(instance_type, self.instance_type)
            and fnmatchcase(zone, self.zone)
            and self.purchase in ("*", purchase)
        )


@dataclass(frozen=True, kw_only=True)
class CapacityRule(PoolRule):
    """How many machines such a pool has in all."""

    machines: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.machines < 0:
            raise UsageError(f"machines must be 0 or more, not {self.machines}")


@dataclass(frozen=True, kw_only=True)
class PriceRule(PoolRule):
    """What a spot machine of such a pool costs, in dollars an hour."""

    price: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.price <= 0:
            raise UsageError(f"price must be more than 0, not {self.price}")


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """See the module's text."""

    hosts: str = field(default_factory=lambda: _default_hosts())
    speed: float = 1.0
    boot_seconds: float = 0.0
    lag_seconds: float = 0.0
    notice_seconds: float = 120.0
    pools_per_fleet: int = 0
    capacity: tuple[CapacityRule, ...] = ()
    spot_prices: tuple[PriceRule, ...] = ()
    quotas: Mapping[str, float] | None = None
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        if self.hosts not in HOST_KINDS:
            raise UsageError(f"hosts must be one of {', '.join(HOST_KINDS)}, not {self.hosts!r}")
        if self.speed <= 0:
            raise UsageError(f"speed must be more than 0, not {self.speed}")

    @classmethod
    def read(cls, path: Path) -> Scenario:
        """Raises UsageError naming the file, and what in it cannot be."""
        try:
            return cls.of(_parse(path))
        except OSError as error:
            raise UsageError(f"cannot read the scenario {path}: {error.strerror}") from None
        except (ValueError, UsageError) as error:
            raise UsageError(f"the scenario {path} is wrong: {error}") from None

    @classmethod
    def of(cls, data: object) -> Scenario:
        """From what a file or a control call says. Raises UsageError."""
        values = dict(_mapping(data, "a scenario"))
        lists = {"capacity": CapacityRule, "spot_prices": PriceRule, "faults": Fault}
        for name, kind in lists.items():
            if name in values:
                values[name] = each(kind, values[name])
        return build(cls, values)


def each(kind: type[T], rows: object) -> tuple[T, ...]:
    """One ``kind`` for each row of a list. Raises UsageError."""
    if not isinstance(rows, list):
        raise UsageError(f"a list of {kind.__name__} was expected, not {rows!r}")
    return tuple(build(kind, _mapping(row, kind.__name__)) for row in rows)


def build(kind: type[T], values: Mapping[str, Any]) -> T:
    """``kind(**values)``, with a sentence for a key it does not know, or one that is missing."""
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    unknown = [name for name in values if name not in known]
    if unknown:
        raise UsageError(f"{kind.__name__} has no {unknown[0]!r}; it has {_listed(known)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise UsageError(f"{kind.__name__} {dict(values)}: {error}") from None


def _default_hosts() -> str:
    wanted = os.environ.get(HOSTS_VARIABLE) or "processes"
    if wanted != AUTO:
        return wanted
    return "processes" if missing() else "namespaces"


def _parse(path: Path) -> object:
    text = path.read_text()
    if path.suffix == ".json":
        return json.loads(text)
    if path.suffix == ".toml":
        return tomllib.loads(text)
    import yaml

    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise UsageError(" ".join(str(error).split())) from None


def _mapping(data: object, what: str) -> Mapping[str, Any]:
    if not isinstance(data, dict):
        raise UsageError(f"{what} is a mapping of names to values, not {data!r}")
    return data


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
